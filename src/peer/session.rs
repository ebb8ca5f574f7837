//! One connection of a link, from the handshake to its end.

use std::cell::RefCell;
use std::pin::pin;

use gradmesh_actors::messages::LinkError;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::select;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep};

use super::link::{LinkPolicy, Outgoing};
use super::pending::Pending;
use crate::transport::Connection;
use crate::wire::{
    Attachment, Class, Fault, Frame, FrameError, FrameReader, FrameWriter, Hello, HelloError,
    Limits, Pulse, attach, shake_hands,
};

pub(super) struct Session {
    node: String,
    reader: FrameReader<Box<dyn AsyncRead + Unpin>>,
    writer: FrameWriter<Box<dyn AsyncWrite + Unpin>>,
    pulse: Pulse,
    /// Where both ends are on one machine.
    attachment: Option<Attachment>,
}

/// More answers than any side lends at once.
const ANSWERS_LENT_MAX: usize = 64;

/// What the reader has the writer say.
#[derive(Default)]
struct Notes {
    /// About the attachment, a few in all.
    frames: RefCell<Vec<Frame>>,
    wake: Notify,
    /// Answers whose bodies have been read from the other side's memory, as many as it lends. That
    /// goes out with the next request or ping.
    taken: RefCell<Vec<u64>>,
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
        pending: &RefCell<Pending>,
        policy: &LinkPolicy,
    ) -> Result<(), LinkError> {
        let Self { node, mut reader, mut writer, pulse, attachment } = self;
        let attachment = attachment.as_ref();
        let notes = Notes::default();
        notes.frames.borrow_mut().extend(attachment.and_then(Attachment::offer));
        // Reads first: what has arrived counts, even where the other futures have given up.
        let ended = select! { biased;
            error = read_answers(&node, &mut reader, pending, attachment, &notes) => Err(error),
            written = write_requests(&mut writer, first, requests, pending, &notes, &pulse, policy) => {
                written.map_err(|error| disconnected(&node, &error.to_string()))
            }
            () = pulse.silent_for(policy.silence_max) => {
                let limit_ms = policy.silence_max.as_millis();
                Err(disconnected(&node, &format!("silent for {limit_ms} ms")))
            }
        };
        if let Err(error) = &ended {
            let all = pending.borrow_mut().take_all();
            all.for_each(|waiting| waiting.answer(Err(error.clone())));
        }
        ended
    }
}

async fn read_answers<R: AsyncRead + Unpin>(
    node: &str,
    reader: &mut FrameReader<R>,
    pending: &RefCell<Pending>,
    attachment: Option<&Attachment>,
    notes: &Notes,
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
            Class::Memory => {
                let note = attachment.and_then(|attachment| attachment.hear(frame, true));
                notes.frames.borrow_mut().extend(note);
                notes.wake.notify_one();
            }
            Class::Error if frame.request == 0 => {
                return Fault::from_frame(frame).into_link_error(node);
            }
            Class::Reply | Class::Refusal | Class::Error => {
                if let Some(attachment) = attachment {
                    attachment.release(frame.request);
                    let mut taken = notes.taken.borrow_mut();
                    // More than it lends at once need no word.
                    if attachment.has_read() && taken.len() < ANSWERS_LENT_MAX {
                        taken.push(frame.request);
                    }
                }
                let waiting = pending.borrow_mut().take(frame.request);
                if let Some(waiting) = waiting {
                    waiting.answer(Ok(frame));
                }
            }
            got => return protocol(node, format!("{got:?} where an answer belongs")),
        }
    }
}

async fn write_requests<W: AsyncWrite + Unpin>(
    writer: &mut FrameWriter<W>,
    first: Option<Outgoing>,
    requests: &mut mpsc::Receiver<Outgoing>,
    pending: &RefCell<Pending>,
    notes: &Notes,
    pulse: &Pulse,
    policy: &LinkPolicy,
) -> Result<(), FrameError> {
    let mut next = first;
    let mut ping_due = pin!(sleep(policy.ping_every));
    // Requests and their answers are signs of life too: a ping is for links without them.
    let mut has_sent = false;
    loop {
        if ping_due.is_elapsed() {
            pending.borrow_mut().forget_given_up();
            let now = Instant::now();
            let quiet_at = pulse.last() + policy.ping_every;
            if has_sent && quiet_at > now {
                ping_due.as_mut().reset(quiet_at);
            } else {
                ping_due.as_mut().reset(now + policy.ping_every);
                writer.write(&Frame::bare(Class::Ping, 0)).await?;
            }
            has_sent = false;
            write_taken(writer, notes).await?;
        }
        let frames = notes.frames.take();
        for frame in &frames {
            writer.write(frame).await?;
        }
        match next.take().or_else(|| requests.try_recv().ok()) {
            // Not sent: its sender has given up.
            Some(request) if request.waiting.has_given_up() => {}
            Some(Outgoing { mut frame, waiting }) => {
                has_sent = true;
                frame.request = pending.borrow_mut().insert(waiting);
                write_taken(writer, notes).await?;
                writer.write(&frame).await?;
            }
            // Small requests leave together, as soon as there is no other to join them.
            None => {
                writer.flush().await?;
                select! { biased;
                    () = ping_due.as_mut() => {}
                    () = notes.wake.notified() => {}
                    request = requests.recv() => match request {
                        Some(request) => next = Some(request),
                        None => return Ok(()),
                    },
                }
            }
        }
    }
}

/// Lets the other side have its memory again.
async fn write_taken<W: AsyncWrite + Unpin>(
    writer: &mut FrameWriter<W>,
    notes: &Notes,
) -> Result<(), FrameError> {
    let taken = notes.taken.take();
    for request in taken {
        writer.write(&Frame::bare(Class::Taken, request)).await?;
    }
    Ok(())
}

fn disconnected(node: &str, cause: &str) -> LinkError {
    LinkError::Disconnected { node: node.to_owned(), cause: cause.to_owned() }
}

fn protocol(node: &str, cause: String) -> LinkError {
    LinkError::Protocol { node: node.to_owned(), cause }
}
