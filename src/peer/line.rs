//! What a link and the task of its connection share.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::task::{Poll, Waker};

use gradmesh_actors::presence::WordId;
use tokio::io::AsyncWrite;
use tokio::sync::watch;

use super::link::Outgoing;
use super::pending::Pending;
use crate::wire::{Class, Frame, FrameWriter};

pub(super) type Writer = FrameWriter<Box<dyn AsyncWrite + Unpin>>;

/// More answers than any side lends at once.
const ANSWERS_LENT_MAX: usize = 64;

/// Who waits for answers, and what is to be written beside requests.
#[derive(Default)]
pub(super) struct Line {
    pub(super) pending: RefCell<Pending>,
    /// The writer of a connection whose task waits for something to write: a request that is short
    /// enough needs no turn of that task.
    idle: RefCell<Option<Writer>>,
    /// About the attachment, a few in all.
    notes: RefCell<Vec<Frame>>,
    /// Answers whose bodies have been read from the other side's memory, as many as it lends. That
    /// goes out with the next request or ping.
    taken: RefCell<Vec<u64>>,
    /// A beat that waits for its turn, or for a connection: one for all. It is true at any time.
    beat: Cell<Option<WordId>>,
    /// Told when the other side wants to know who is here.
    pub(super) roll_calls: watch::Sender<()>,
    /// Whether a request was written since this was asked last.
    has_sent: Cell<bool>,
    /// There is something to write that no request brings, and the task that waits for that.
    is_woken: Cell<bool>,
    waker: Cell<Option<Waker>>,
}

impl Line {
    /// Has nothing of the connection before.
    pub(super) fn begin(&self, notes: Option<Frame>) {
        self.idle.take();
        self.notes.replace(notes.into_iter().collect());
        self.taken.take();
        self.has_sent.take();
        self.is_woken.take();
    }

    /// Nothing is written any more.
    pub(super) fn end(&self) {
        self.idle.take();
    }

    pub(super) fn note(&self, note: Option<Frame>) {
        self.notes.borrow_mut().extend(note);
        self.wake();
    }

    pub(super) fn notes(&self) -> impl Iterator<Item = Frame> + use<> {
        let beat = self.beat.take().map(beat);
        beat.into_iter().chain(self.notes.take())
    }

    /// Sends a beat, or has the task send it when it can.
    pub(super) fn beat(&self, word: WordId) {
        let mut idle = self.idle.borrow_mut();
        let frame = beat(word);
        let written = match idle.as_mut().filter(|writer| writer.stages(&frame)) {
            Some(writer) => writer.write_now(&frame),
            None => {
                self.beat.set(Some(word));
                false
            }
        };
        // The task goes on with what is left, and hears of errors.
        if !written {
            self.wake();
        }
    }

    /// More than the other side lends at once need no word.
    pub(super) fn has_taken(&self, request: u64) {
        let mut taken = self.taken.borrow_mut();
        if taken.len() < ANSWERS_LENT_MAX {
            taken.push(request);
        }
    }

    /// What lets the other side have its memory again.
    pub(super) fn taken(&self) -> impl Iterator<Item = Frame> + use<> {
        self.taken.take().into_iter().map(|request| Frame::bare(Class::Taken, request))
    }

    pub(super) fn has_sent(&self) -> bool {
        self.has_sent.take()
    }

    /// The frame under its number, for whose answer somebody waits from now on.
    pub(super) fn enter(&self, Outgoing { mut frame, waiting }: Outgoing) -> Frame {
        self.has_sent.set(true);
        frame.request = self.pending.borrow_mut().insert(waiting);
        frame
    }

    /// The task waits: requests may use the writer meanwhile.
    pub(super) fn lend(&self, writer: Writer) {
        self.idle.replace(Some(writer));
    }

    pub(super) fn take_back(&self) -> Option<Writer> {
        self.idle.take()
    }

    fn wake(&self) {
        self.is_woken.set(true);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// There is something to write.
    pub(super) async fn woken(&self) {
        poll_fn(|cx| {
            if self.is_woken.take() {
                return Poll::Ready(());
            }
            let before = self.waker.take().filter(|waker| waker.will_wake(cx.waker()));
            self.waker.set(Some(before.unwrap_or_else(|| cx.waker().clone())));
            Poll::Pending
        })
        .await;
    }

    /// Sends a request at once, where the task waits for some and it is short; or gives it back.
    pub(super) fn send_now(&self, request: Outgoing) -> Result<(), Outgoing> {
        let mut idle = self.idle.borrow_mut();
        let Some(writer) = idle.as_mut().filter(|writer| writer.stages(&request.frame)) else {
            return Err(request);
        };
        let frame = self.enter(request);
        let mut written = true;
        for frame in self.taken().chain([frame]) {
            written &= writer.write_now(&frame);
        }
        // The task goes on with what is left, and hears of errors.
        if !written {
            self.wake();
        }
        Ok(())
    }
}

fn beat(word: WordId) -> Frame {
    let mut frame = Frame::bare(Class::Beat, word.life.0);
    frame.target.index = word.number;
    frame
}
