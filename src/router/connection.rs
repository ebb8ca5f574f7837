//! One caller, from the handshake to its end.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::{pending, poll_fn};
use std::io::Cursor;
use std::net::{SocketAddr, TcpStream};
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use gradmesh_actors::ids::Incarnation;
use gradmesh_actors::presence::WordId;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::select;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;
use tracing::{debug, warn};

use super::callers::Present;
use super::refusals::Refusals;
use super::under_way::UnderWay;
use super::{Router, SILENCE_MAX};
use crate::peer::REQUESTS_MAX;
use crate::transport::{self, Connection};
use crate::wire::{
    Attachment, Class, Fault, Frame, FrameError, FrameReader, FrameWriter, Hello, Limits, Pulse,
    Target, WhenWoken, attach, shake_hands,
};

/// Pongs and faults that wait for the socket: a few, so that a caller that doesn't read is held
/// back. Answers wait in their actors' channels.
const ANSWERS_WAITING_MAX: usize = 16;
/// Requests of one caller that actors work on: all that it waits for, and as many that it has
/// given up, because a timeout there ends nothing here.
const UNDER_WAY_MAX: usize = 2 * REQUESTS_MAX;

/// What the reader has the writer say beside answers. Both run in one task, the reader first.
#[derive(Default)]
struct Words {
    waiting: RefCell<VecDeque<Frame>>,
    /// The reader that waits for room.
    waits: Cell<Option<Waker>>,
    /// The reader has ended.
    closed: Cell<bool>,
}

impl Words {
    /// Waits until there is room.
    async fn say(&self, frame: Frame) {
        poll_fn(|cx| {
            let is_full = self.waiting.borrow().len() >= ANSWERS_WAITING_MAX;
            self.waits.set(is_full.then(|| cx.waker().clone()));
            if is_full { Poll::Pending } else { Poll::Ready(()) }
        })
        .await;
        self.waiting.borrow_mut().push_back(frame);
    }

    /// `None` where nothing waits and nothing will.
    fn poll_next(&self) -> Poll<Option<Frame>> {
        match self.waiting.borrow_mut().pop_front() {
            None if self.closed.get() => Poll::Ready(None),
            None => Poll::Pending,
            frame => {
                if let Some(reader) = self.waits.take() {
                    reader.wake();
                }
                Poll::Ready(frame)
            }
        }
    }
}

/// A caller whose connection another thread takes over.
#[derive(Debug)]
pub struct Moved {
    socket: TcpStream,
    peer: SocketAddr,
    node: String,
    /// What was read of it already.
    read: Vec<u8>,
    permit: OwnedSemaphorePermit,
}

/// Serves one caller, here or, where it calls for one actor alone, on that one's thread. Whatever it
/// sends, only its own connection suffers.
pub(super) async fn serve(
    connection: Connection,
    own: &Hello,
    router: &Router,
    refusals: &Refusals,
    permit: OwnedSemaphorePermit,
) {
    let Connection { peer, reader, writer, same_host, socket } = connection;
    let pulse = Pulse::new();
    let mut reader = FrameReader::new(reader, Limits::HELLO, pulse.clone());
    let mut writer = FrameWriter::new(writer, pulse.clone());
    let Hello { node, target, .. } = match shake_hands(&mut reader, &mut writer, own, None).await {
        Ok(hello) => hello,
        Err(error) => {
            if let Some(others) = refusals.count(Instant::now()) {
                warn!(%peer, %error, others, "caller refused");
            }
            return;
        }
    };
    debug!(%peer, node, "caller connected");
    let desk = target.and_then(|target| router.desk(target));
    if let Some((socket, desk)) = socket.zip(desk) {
        let moved = Moved { socket, peer, node, read: reader.into_rest(), permit };
        if let Err(error) = desk.try_send(moved) {
            // It calls again.
            warn!(%peer, %error, "an actor's thread does not take its caller");
        }
        return;
    }
    let who = Who { present: Some(router.callers.enter(&node)), peer, node };
    answer(Caller::new(who, reader, writer, pulse, same_host), router).await;
}

/// Serves a caller that another thread has greeted.
pub(super) async fn serve_moved(moved: Moved, router: &Router) {
    let Moved { socket, peer, node, read, permit } = moved;
    let Connection { reader, writer, same_host, .. } = match transport::moved(socket, peer) {
        Ok(connection) => connection,
        Err(error) => return warn!(%peer, %error, "a caller can't be taken over"),
    };
    let pulse = Pulse::new();
    let reader: Box<dyn AsyncRead + Unpin> =
        if read.is_empty() { reader } else { Box::new(Cursor::new(read).chain(reader)) };
    let reader = FrameReader::new(reader, Limits::TRUSTED, pulse.clone());
    let writer = FrameWriter::new(writer, pulse.clone());
    let who = Who { peer, node, present: None };
    answer(Caller::new(who, reader, writer, pulse, same_host), router).await;
    drop(permit);
}

/// Whose connection it is.
struct Who {
    peer: SocketAddr,
    node: String,
    /// `None` on the thread of an actor: the node's own connection says that it lives.
    present: Option<Present>,
}

/// Who has been greeted.
struct Caller {
    who: Who,
    reader: FrameReader<Box<dyn AsyncRead + Unpin>>,
    writer: FrameWriter<Box<dyn AsyncWrite + Unpin>>,
    pulse: Pulse,
    attachment: Option<Attachment>,
}

impl Caller {
    fn new(
        who: Who,
        mut reader: FrameReader<Box<dyn AsyncRead + Unpin>>,
        mut writer: FrameWriter<Box<dyn AsyncWrite + Unpin>>,
        pulse: Pulse,
        same_host: Option<SocketAddr>,
    ) -> Self {
        let attachment = attach(same_host, who.peer, &mut reader, &mut writer);
        Self { who, reader, writer, pulse, attachment }
    }
}

/// Until the caller is gone.
async fn answer(caller: Caller, router: &Router) {
    let Caller { who, mut reader, mut writer, pulse, attachment } = caller;
    let Who { peer, node, .. } = &who;
    let words = Words::default();
    let under_way = RefCell::new(UnderWay::default());
    let reading = async {
        let attachment = attachment.as_ref();
        read_requests(&mut reader, router, &under_way, &words, attachment, &who, &pulse).await;
        under_way.borrow_mut().clear();
        words.closed.set(true);
        // What was answered before still goes out; the writer then ends by itself.
        pending::<()>().await;
    };
    let (reading, is_silent) = (pin!(reading), pin!(pulse.silent_for(SILENCE_MAX)));
    // What the reader has taken over is the writer's in the same turn.
    select! { biased;
        () = WhenWoken::new(reading) => {}
        written = write_answers(&mut writer, &under_way, &words) => match written {
            Ok(()) => debug!(%peer, node, "caller gone"),
            Err(error) => warn!(%peer, node, %error, "answers can't be sent"),
        },
        () = WhenWoken::new(is_silent) => {
            warn!(%peer, node, limit_ms = SILENCE_MAX.as_millis() as u64, "caller is silent, closed");
        }
    }
}

/// Until the caller closes or is not understood.
async fn read_requests<R: AsyncRead + Unpin>(
    reader: &mut FrameReader<R>,
    router: &Router,
    under_way: &RefCell<UnderWay>,
    words: &Words,
    attachment: Option<&Attachment>,
    Who { peer, node, present }: &Who,
    pulse: &Pulse,
) {
    loop {
        let (fault, kind, request, target) = match reader.read().await {
            Ok(None) => return,
            Ok(Some(frame)) if frame.class == Class::Ping => {
                words.say(Frame::bare(Class::Pong, frame.request)).await;
                continue;
            }
            Ok(Some(frame)) if frame.class == Class::Beat => {
                let life = Incarnation(frame.request);
                let word = WordId { life, number: frame.target.index };
                let beat = |present: &Present| present.beat(word, pulse.last());
                if present.as_ref().is_some_and(beat) {
                    words.say(Frame::bare(Class::RollCall, 0)).await;
                }
                continue;
            }
            Ok(Some(frame)) if frame.class == Class::Memory => {
                let note = attachment.and_then(|attachment| attachment.hear(frame, false));
                if let Some(note) = note {
                    words.say(note).await;
                }
                continue;
            }
            Ok(Some(frame)) if frame.class == Class::Taken => {
                if let Some(attachment) = attachment {
                    attachment.release(frame.request);
                }
                continue;
            }
            Ok(Some(frame)) => {
                let Frame { kind, request, target, .. } = frame;
                match start(frame, router, &mut under_way.borrow_mut()) {
                    Ok(()) => continue,
                    Err(fault) => (fault, kind, request, target),
                }
            }
            Err(error) => (Fault::Connection { cause: error.to_string() }, 0, 0, Target::NODE),
        };
        warn!(%peer, node, %fault, "request not taken");
        let closes = matches!(fault, Fault::Undecodable { .. } | Fault::Connection { .. });
        words.say(fault.to_frame(kind, request, target)).await;
        if closes {
            return;
        }
    }
}

/// Hands one request over; the writer takes its answer when it is there.
fn start(frame: Frame, router: &Router, under_way: &mut UnderWay) -> Result<(), Fault> {
    if frame.class != Class::Request {
        let cause = format!("{:?} where a request belongs", frame.class);
        return Err(Fault::Connection { cause });
    }
    if under_way.len() >= UNDER_WAY_MAX {
        return Err(Fault::Busy { waiting: under_way.len() });
    }
    under_way.push(router.dispatch(frame)?);
    Ok(())
}

async fn write_answers<W: AsyncWrite + Unpin>(
    writer: &mut FrameWriter<W>,
    under_way: &RefCell<UnderWay>,
    words: &Words,
) -> Result<(), FrameError> {
    while let Some(mut frame) = poll_fn(|cx| next_frame(under_way, words, cx)).await {
        loop {
            writer.write(&frame).await?;
            let next = poll_fn(|cx| Poll::Ready(next_frame(under_way, words, cx))).await;
            match next {
                Poll::Ready(Some(next)) => frame = next,
                Poll::Ready(None) | Poll::Pending => break,
            }
        }
        writer.flush().await?;
    }
    writer.shutdown().await
}

/// What is to be written next; `None` where the reader has ended and nothing waits.
///
/// A request that is taken meanwhile is polled at once: the reader runs in this task, before.
fn next_frame(
    under_way: &RefCell<UnderWay>,
    words: &Words,
    cx: &mut Context<'_>,
) -> Poll<Option<Frame>> {
    if let Poll::Ready(answer) = under_way.borrow_mut().poll_next(cx) {
        return Poll::Ready(Some(answer));
    }
    words.poll_next()
}
