//! One connection of a link, from the handshake to its end.

use std::pin::pin;

use gradmesh_actors::messages::LinkError;
use tokio::io::AsyncRead;
use tokio::select;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use super::line::{Line, Writer};
use super::link::{LinkPolicy, Outgoing};
use crate::transport::Connection;
use crate::wire::{
    Attachment, Class, Fault, Frame, FrameError, FrameReader, FrameWriter, Hello, HelloError,
    Limits, Pulse, WhenWoken, attach, shake_hands,
};

pub(super) struct Session {
    node: String,
    reader: FrameReader<Box<dyn AsyncRead + Unpin>>,
    writer: Writer,
    pulse: Pulse,
    /// Where both ends are on one machine.
    attachment: Option<Attachment>,
}

impl Session {
    pub(super) fn new(node: &str, connection: Connection) -> Self {
        let pulse = Pulse::new();
        let mut reader = FrameReader::new(connection.reader, Limits::HELLO, pulse.clone());
        let mut writer = FrameWriter::new(connection.writer, pulse.clone());
        let attachment = attach(connection.same_host, connection.peer, &mut reader, &mut writer);
        Self { node: node.to_owned(), reader, writer, pulse, attachment }
    }

    pub(super) async fn shake_hands(&mut self, own: &Hello) -> Result<(), HelloError> {
        shake_hands(&mut self.reader, &mut self.writer, own, Some(&self.node)).await.map(drop)
    }

    /// Until the connection breaks, which fails all that waits; or the last link is gone.
    pub(super) async fn run(
        self,
        first: Option<Outgoing>,
        requests: &mut mpsc::Receiver<Outgoing>,
        line: &Line,
        policy: &LinkPolicy,
    ) -> Result<(), LinkError> {
        let Self { node, mut reader, writer, pulse, attachment } = self;
        let attachment = attachment.as_ref();
        line.begin(attachment.and_then(Attachment::offer));
        let reads = pin!(read_answers(&node, &mut reader, line, attachment));
        let writes = pin!(write_requests(writer, first, requests, line, &pulse, policy));
        let is_silent = pin!(pulse.silent_for(policy.silence_max));
        // Reads first: what has arrived counts, even where the other futures have given up.
        let ended = select! { biased;
            error = WhenWoken::new(reads) => Err(error),
            written = WhenWoken::new(writes) => {
                written.map_err(|error| disconnected(&node, &error.to_string()))
            }
            () = WhenWoken::new(is_silent) => {
                let limit_ms = policy.silence_max.as_millis();
                Err(disconnected(&node, &format!("silent for {limit_ms} ms")))
            }
        };
        line.end();
        if let Err(error) = &ended {
            let all = line.pending.borrow_mut().take_all();
            all.for_each(|waiting| waiting.answer(Err(error.clone())));
        }
        ended
    }
}

async fn read_answers<R: AsyncRead + Unpin>(
    node: &str,
    reader: &mut FrameReader<R>,
    line: &Line,
    attachment: Option<&Attachment>,
) -> LinkError {
    loop {
        let frame = match reader.read().await {
            Ok(Some(frame)) => frame,
            Ok(None) => return disconnected(node, "closed by the other side"),
            Err(
                error @ (FrameError::Io(_) | FrameError::Truncated | FrameError::TooSlow { .. }),
            ) => {
                return disconnected(node, &error.to_string());
            }
            Err(error) => return protocol(node, error.to_string()),
        };
        match frame.class {
            Class::Pong => {}
            Class::RollCall => line.roll_calls.send_modify(|()| {}),
            Class::Memory => {
                line.note(attachment.and_then(|attachment| attachment.hear(frame, true)));
            }
            Class::Error if frame.request == 0 => {
                return Fault::from_frame(frame).into_link_error(node);
            }
            Class::Reply | Class::Refusal | Class::Error => {
                if let Some(attachment) = attachment {
                    attachment.release(frame.request);
                    if attachment.has_read() {
                        line.has_taken(frame.request);
                    }
                }
                let waiting = line.pending.borrow_mut().take(frame.request);
                if let Some(waiting) = waiting {
                    waiting.answer(Ok(frame));
                }
            }
            got => return protocol(node, format!("{got:?} where an answer belongs")),
        }
    }
}

async fn write_requests(
    mut writer: Writer,
    first: Option<Outgoing>,
    requests: &mut mpsc::Receiver<Outgoing>,
    line: &Line,
    pulse: &Pulse,
    policy: &LinkPolicy,
) -> Result<(), FrameError> {
    let mut next = first;
    // Requests and their answers are signs of life too: a ping is for links without them.
    let mut ping_due = pin!(sleep(policy.ping_every));
    loop {
        if ping_due.is_elapsed() {
            line.pending.borrow_mut().forget_given_up();
            let now = Instant::now();
            let quiet_at = pulse.last() + policy.ping_every;
            if line.has_sent() && quiet_at > now {
                ping_due.as_mut().reset(quiet_at);
            } else {
                ping_due.as_mut().reset(now + policy.ping_every);
                writer.write(&Frame::bare(Class::Ping, 0)).await?;
            }
            write_all(&mut writer, line.taken()).await?;
        }
        write_all(&mut writer, line.notes()).await?;
        match next.take().or_else(|| requests.try_recv().ok()) {
            // Not sent: its sender has given up.
            Some(request) if request.waiting.has_given_up() => {}
            Some(request) => {
                let frame = line.enter(request);
                write_all(&mut writer, line.taken().chain([frame])).await?;
            }
            // Small requests leave together, as soon as there is no other to join them.
            None => {
                writer.flush().await?;
                line.lend(writer);
                select! { biased;
                    () = ping_due.as_mut() => {}
                    () = line.woken() => {}
                    request = requests.recv() => match request {
                        Some(request) => next = Some(request),
                        None => return Ok(()),
                    },
                }
                let Some(back) = line.take_back() else { return Ok(()) };
                writer = back;
            }
        }
    }
}

async fn write_all(
    writer: &mut Writer,
    frames: impl IntoIterator<Item = Frame>,
) -> Result<(), FrameError> {
    for frame in frames {
        writer.write(&frame).await?;
    }
    Ok(())
}

fn disconnected(node: &str, cause: &str) -> LinkError {
    LinkError::Disconnected { node: node.to_owned(), cause: cause.to_owned() }
}

fn protocol(node: &str, cause: String) -> LinkError {
    LinkError::Protocol { node: node.to_owned(), cause }
}
