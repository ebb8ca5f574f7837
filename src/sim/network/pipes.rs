//! Connections: what is written, on its way and read.

use std::collections::VecDeque;
use std::io;
use std::task::Waker;

use tokio::io::ReadBuf;

use super::{Due, Payload, Wires};
use crate::sim::fault::FaultKind;
use crate::sim::trace::{EventKind, NodeIndex, Sent};
use crate::wire::{Begins, begins};

/// What one direction holds, on its way and unread, like the buffers of a kernel.
const WINDOW_BYTES: usize = 256 << 10;
/// By how much an overtaken message, or the copy of a doubled one, is late at most: 2 s, in powers
/// of two, each as likely as the others. Most come a little late, some when the cluster has moved on.
pub(in crate::sim) const LATE_BITS: u64 = 11;

pub(in crate::sim) type PipeId = u64;

/// One direction of a connection.
pub(super) struct Pipe {
    pub(super) from: NodeIndex,
    pub(super) to: NodeIndex,
    /// Written, and not a whole frame yet.
    pub(super) written: Vec<u8>,
    /// On its way or unread.
    pub(super) held_bytes: usize,
    /// What can't get through now, in order.
    pub(super) blocked: VecDeque<Due>,
    pub(super) arrived: VecDeque<Arrived>,
    pub(super) last_due: u64,
    pub(super) reader: Option<Waker>,
    pub(super) writer: Option<Waker>,
    pub(super) reader_gone: bool,
    pub(super) ended: Option<Ended>,
}

/// A message, and how much of it has been read.
pub(super) struct Arrived {
    bytes: Vec<u8>,
    read: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    Closed,
    Reset,
}

impl Wires {
    pub(super) fn deliver(&mut self, id: PipeId, payload: u64) {
        let Some(Payload::Message { bytes, sent }) = self.payloads.take(payload) else { return };
        let Some(pipe) = self.pipes.get_mut(id) else { return };
        if pipe.ended.is_some() || pipe.reader_gone {
            pipe.held_bytes = pipe.held_bytes.saturating_sub(bytes.len());
            return;
        }
        let (from, to) = (pipe.from, pipe.to);
        pipe.arrived.push_back(Arrived { bytes, read: 0 });
        wake(&mut pipe.reader);
        self.messages += 1;
        self.bytes += u64::from(sent.bytes);
        self.note(EventKind::Arrived { from, to, message: sent });
    }

    pub(super) fn end(&mut self, id: PipeId, how: Ended) {
        let Some(pipe) = self.pipes.get_mut(id) else { return };
        if pipe.ended.is_some() {
            return;
        }
        pipe.ended = Some(how);
        if how == Ended::Reset {
            pipe.arrived.clear();
        }
        wake(&mut pipe.reader);
        wake(&mut pipe.writer);
        let (from, to) = (pipe.from, pipe.to);
        self.note(match how {
            Ended::Closed => EventKind::Closed { from, to },
            Ended::Reset => EventKind::Reset { from, to },
        });
    }

    /// Bytes that have arrived, of one message at a time; none at the end of the connection, `None`
    /// to wait for more.
    pub(in crate::sim) fn read(
        &mut self,
        id: PipeId,
        buffer: &mut ReadBuf<'_>,
        waker: &Waker,
    ) -> Option<io::Result<()>> {
        let pipe = self.pipes.get_mut(id)?;
        match (pipe.arrived.front_mut(), pipe.ended) {
            (Some(Arrived { bytes, read }), _) => {
                let taken = (bytes.len() - *read).min(buffer.remaining());
                buffer.put_slice(&bytes[*read..*read + taken]);
                *read += taken;
                if *read == bytes.len() {
                    pipe.arrived.pop_front();
                }
                pipe.held_bytes = pipe.held_bytes.saturating_sub(taken);
                wake(&mut pipe.writer);
                Some(Ok(()))
            }
            (None, Some(Ended::Closed)) => Some(Ok(())),
            (None, Some(Ended::Reset)) => Some(Err(io::ErrorKind::ConnectionReset.into())),
            (None, None) => {
                if !pipe.reader.as_ref().is_some_and(|reader| reader.will_wake(waker)) {
                    pipe.reader = Some(waker.clone());
                }
                None
            }
        }
    }

    /// Takes bytes; `None` to wait until there is room.
    pub(in crate::sim) fn write(
        &mut self,
        id: PipeId,
        bytes: &[u8],
        waker: &Waker,
    ) -> Option<io::Result<usize>> {
        let Some(pipe) = self.pipes.get_mut(id) else {
            return Some(Err(io::ErrorKind::BrokenPipe.into()));
        };
        if pipe.ended == Some(Ended::Reset) || pipe.reader_gone {
            return Some(Err(io::ErrorKind::ConnectionReset.into()));
        }
        // A frame may be longer than the window: what is written of it counts when it is whole.
        if pipe.held_bytes >= WINDOW_BYTES {
            pipe.writer = Some(waker.clone());
            return None;
        }
        pipe.written.extend_from_slice(bytes);
        self.send_whole_frames(id);
        Some(Ok(bytes.len()))
    }

    pub(super) fn send_whole_frames(&mut self, id: PipeId) {
        loop {
            let Some(pipe) = self.pipes.get_mut(id) else { return };
            let (length, class, kind) = match begins(&pipe.written) {
                Begins::Frame { class, kind, bytes } if pipe.written.len() >= bytes => {
                    (bytes, Some(class), kind)
                }
                Begins::Frame { .. } | Begins::Unknown => return,
                Begins::NoFrame => (pipe.written.len(), None, 0),
            };
            let bytes: Vec<u8> = if length == pipe.written.len() {
                std::mem::take(&mut pipe.written)
            } else {
                pipe.written.drain(..length).collect()
            };
            pipe.held_bytes += length;
            // A frame ends with its own checksum.
            let checksum = match (class, bytes.last_chunk::<4>()) {
                (Some(_), Some(last)) => u32::from_le_bytes(*last),
                _ => crc32fast::hash(&bytes),
            };
            let sent = Sent { class, kind, bytes: length as u32, checksum };
            self.send(id, bytes, sent);
        }
    }

    pub(super) fn send(&mut self, id: PipeId, bytes: Vec<u8>, sent: Sent) {
        let Some(pipe) = self.pipes.get(id) else { return };
        let (from, to) = (pipe.from, pipe.to);
        let rate = |fault: &FaultKind, which: u8| match (fault, which) {
            (FaultKind::Drop { rate, .. }, 0)
            | (FaultKind::Duplicate { rate, .. }, 1)
            | (FaultKind::Reorder { rate, .. }, 2) => u64::from(*rate),
            _ => 0,
        };
        let rates = [0, 1, 2].map(|which| self.sum(from, to, |fault| rate(fault, which)));
        if self.happens(rates[0]) {
            if let Some(pipe) = self.pipes.get_mut(id) {
                pipe.held_bytes = pipe.held_bytes.saturating_sub(bytes.len());
            }
            self.note(EventKind::Lost { from, to, message: sent });
            return;
        }
        if self.happens(rates[1]) {
            self.note(EventKind::Duplicated { from, to, message: sent });
            if let Some(pipe) = self.pipes.get_mut(id) {
                pipe.held_bytes += bytes.len();
            }
            self.send_once(id, bytes.clone(), sent, 1000);
        }
        self.send_once(id, bytes, sent, rates[2]);
    }

    pub(super) fn send_once(&mut self, id: PipeId, bytes: Vec<u8>, sent: Sent, overtaken: u64) {
        let Some(pipe) = self.pipes.get(id) else { return };
        let (from, to, last_due) = (pipe.from, pipe.to, pipe.last_due);
        let due = self.now_ms() + self.latency(from, to);
        let at = if self.happens(overtaken) {
            let most = 1 << self.draw(1..=LATE_BITS);
            due.max(last_due) + self.draw(1..=most)
        } else {
            let at = due.max(last_due);
            if let Some(pipe) = self.pipes.get_mut(id) {
                pipe.last_due = at;
            }
            at
        };
        let payload = self.payloads.put(Payload::Message { bytes, sent });
        self.schedule(at, Due::Deliver { pipe: id, payload });
    }

    /// The writer says that nothing follows, or is dropped.
    pub(in crate::sim) fn close(&mut self, id: PipeId) {
        let Some(pipe) = self.pipes.get(id) else { return };
        if pipe.ended.is_some() {
            return;
        }
        let (from, to, last_due) = (pipe.from, pipe.to, pipe.last_due);
        let at = (self.now_ms() + self.latency(from, to)).max(last_due);
        self.schedule(at, Due::Close { pipe: id });
    }

    /// The reader is dropped: the other side learns of it when it writes.
    pub(in crate::sim) fn stop_reading(&mut self, id: PipeId) {
        if let Some(pipe) = self.pipes.get_mut(id) {
            pipe.reader_gone = true;
            pipe.arrived.clear();
            wake(&mut pipe.writer);
        }
    }
}

pub(super) fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}
