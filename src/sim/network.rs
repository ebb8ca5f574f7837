//! The simulated network: connections of bytes, cut into the frames that were written.
//!
//! A frame is what is late, lost, doubled or overtaken. What the transports promise otherwise
//! holds: bytes of a connection arrive in order, a reader that doesn't read holds its writer back,
//! a connection to nobody is refused.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::Waker;
use std::time::Duration;

use bytes::{Buf, Bytes};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::Rng;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::fault::FaultKind;
use super::faulty_link::is_between;
use super::trace::{EventKind, NodeIndex, Sent, Trace};
use crate::transport::Connection;
use crate::wire::{Begins, begins};

/// What one direction holds, on its way and unread, like the buffers of a kernel.
const WINDOW_BYTES: usize = 256 << 10;
/// As [`crate::transport::MemoryTransport`]'s.
pub(super) const BACKLOG: usize = 128;
/// Between two machines of one room, with a scheduler in the way. Timers have a step of 1 ms.
const LATENCY_MS: std::ops::RangeInclusive<u64> = 1..=3;
/// By how much an overtaken message, or the copy of a doubled one, is late at most. Most by a
/// little; some come when the cluster has moved on.
pub(super) const OVERTAKEN_MS: u64 = 20;
pub(super) const FORGOTTEN_MS: u64 = 2000;
/// One of so many is forgotten on its way.
pub(super) const FORGOTTEN: u64 = 3;

pub(super) type PipeId = u64;

/// All connections of one simulation.
pub(super) struct Wires {
    started: Instant,
    /// Simulated time, in milliseconds. It stands still while the host runs.
    now_ms: u64,
    rng: ChaCha8Rng,
    pub(super) trace: Trace,
    pub(super) nodes: Vec<NetNode>,
    listeners: BTreeMap<SocketAddr, Listening>,
    pipes: BTreeMap<PipeId, Pipe>,
    last_id: u64,
    due: BinaryHeap<Reverse<(u64, u64, Due)>>,
    payloads: BTreeMap<u64, Payload>,
    /// Faults of the network that are active.
    faults: Vec<FaultKind>,
    /// Callers of machines that don't answer: nobody tells them.
    unanswered: Vec<oneshot::Sender<io::Result<Connection>>>,
    /// Dropped when the simulation is over.
    refused: Vec<Connection>,
    pub(super) messages: u64,
    pub(super) actor_restarts: u64,
    next_port: u16,
}

/// What the network knows of a machine.
pub(super) struct NetNode {
    pub(super) name: String,
    /// Goes up with each start: ends of an earlier life are dead.
    pub(super) life: u64,
    pub(super) up: bool,
    /// Silent instead of refusing while it is down.
    pub(super) dark: bool,
}

struct Listening {
    node: NodeIndex,
    calls: mpsc::Sender<Connection>,
}

/// What happens at some time; the payload is beside the heap so that this stays small.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    Deliver { pipe: PipeId, payload: u64 },
    Close { pipe: PipeId },
    Reset { pipe: PipeId },
    Call { payload: u64 },
}

enum Payload {
    Message { bytes: Bytes, sent: Sent },
    Call { from: NodeIndex, to: SocketAddr, answer: oneshot::Sender<io::Result<Connection>> },
}

/// One direction of a connection.
struct Pipe {
    from: NodeIndex,
    to: NodeIndex,
    /// Written, and not a whole frame yet.
    written: Vec<u8>,
    /// On its way or unread.
    held_bytes: usize,
    /// What can't get through now, in order.
    blocked: VecDeque<Due>,
    arrived: VecDeque<Bytes>,
    last_due: u64,
    reader: Option<Waker>,
    writer: Option<Waker>,
    reader_gone: bool,
    ended: Option<Ended>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    Closed,
    Reset,
}

impl Wires {
    pub(super) fn new(rng: ChaCha8Rng, trace: Trace) -> Self {
        Self {
            started: Instant::now(),
            now_ms: 0,
            rng,
            trace,
            nodes: Vec::new(),
            listeners: BTreeMap::new(),
            pipes: BTreeMap::new(),
            last_id: 0,
            due: BinaryHeap::new(),
            payloads: BTreeMap::new(),
            faults: Vec::new(),
            unanswered: Vec::new(),
            refused: Vec::new(),
            messages: 0,
            actor_restarts: 0,
            next_port: 49_152,
        }
    }

    pub(super) fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// Time may have gone on.
    pub(super) fn look_at_clock(&mut self) {
        // A simulation of half a billion years is not meant.
        self.now_ms = self.started.elapsed().as_millis() as u64;
    }

    pub(super) fn note(&mut self, kind: EventKind) {
        let now = self.now_ms();
        self.trace.add(now, kind);
    }

    /// When there is something to do next.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let Reverse((at, _, _)) = self.due.peek()?;
        Some(self.started + Duration::from_millis(*at))
    }

    /// Does what is due; whether there was anything.
    pub(super) fn run_due(&mut self) -> bool {
        let now = self.now_ms();
        let mut any = false;
        while let Some(Reverse((at, _, due))) = self.due.peek().copied() {
            if at > now {
                break;
            }
            self.due.pop();
            any = true;
            self.happen(due);
        }
        any
    }

    fn happen(&mut self, due: Due) {
        match due {
            Due::Call { payload } => self.called(payload),
            Due::Deliver { pipe, .. } | Due::Close { pipe } | Due::Reset { pipe } => {
                let Some(ends) = self.pipes.get(&pipe).map(|pipe| (pipe.from, pipe.to)) else {
                    return;
                };
                if self.is_blocked(ends.0, ends.1) {
                    if let Some(pipe) = self.pipes.get_mut(&pipe) {
                        pipe.blocked.push_back(due);
                    }
                    return;
                }
                match due {
                    Due::Deliver { payload, .. } => self.deliver(pipe, payload),
                    Due::Close { .. } => self.end(pipe, Ended::Closed),
                    _ => self.end(pipe, Ended::Reset),
                }
            }
        }
    }

    fn deliver(&mut self, id: PipeId, payload: u64) {
        let Some(Payload::Message { bytes, sent }) = self.payloads.remove(&payload) else { return };
        let Some(pipe) = self.pipes.get_mut(&id) else { return };
        if pipe.ended.is_some() || pipe.reader_gone {
            pipe.held_bytes = pipe.held_bytes.saturating_sub(bytes.len());
            return;
        }
        let (from, to) = (pipe.from, pipe.to);
        pipe.arrived.push_back(bytes);
        wake(&mut pipe.reader);
        self.messages += 1;
        self.note(EventKind::Arrived { from, to, message: sent });
    }

    fn end(&mut self, id: PipeId, how: Ended) {
        let Some(pipe) = self.pipes.get_mut(&id) else { return };
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

    fn schedule(&mut self, at: u64, due: Due) {
        self.last_id += 1;
        self.due.push(Reverse((at, self.last_id, due)));
    }

    fn latency(&mut self, from: NodeIndex, to: NodeIndex) -> u64 {
        let base = self.draw(LATENCY_MS);
        let extra = self.sum(from, to, |fault| match fault {
            FaultKind::Delay { ms, .. } => *ms,
            _ => 0,
        });
        base + extra
    }

    fn draw(&mut self, range: std::ops::RangeInclusive<u64>) -> u64 {
        let width = range.end() - range.start() + 1;
        range.start() + self.rng.next_u64() % width
    }

    /// Whether something of this rate happens now. Draws only where there is a rate, so that a
    /// fault changes nothing before it begins.
    fn happens(&mut self, rate: u64) -> bool {
        rate > 0 && self.rng.next_u64() % 1000 < rate
    }

    fn sum(&self, from: NodeIndex, to: NodeIndex, of: impl Fn(&FaultKind) -> u64) -> u64 {
        self.faults.iter().filter(|fault| self.is_between(fault, from, to)).map(of).sum()
    }

    fn is_between(&self, fault: &FaultKind, from: NodeIndex, to: NodeIndex) -> bool {
        let name = |node: NodeIndex| self.nodes.get(node as usize).map_or("", |node| &node.name);
        is_between(fault, name(from), name(to))
    }

    fn is_blocked(&self, from: NodeIndex, to: NodeIndex) -> bool {
        self.sum(from, to, |fault| u64::from(matches!(fault, FaultKind::Block { .. }))) > 0
    }

    /// The faults that are active from now on.
    pub(super) fn set_faults(&mut self, faults: Vec<FaultKind>) {
        self.faults = faults;
        let open: Vec<PipeId> = self
            .pipes
            .iter()
            .filter(|(_, pipe)| !pipe.blocked.is_empty() && !self.is_blocked(pipe.from, pipe.to))
            .map(|(id, _)| *id)
            .collect();
        let now = self.now_ms();
        for id in open {
            let Some(pipe) = self.pipes.get_mut(&id) else { continue };
            let (from, to, blocked) = (pipe.from, pipe.to, std::mem::take(&mut pipe.blocked));
            let at = now + self.latency(from, to);
            for due in blocked {
                self.schedule(at, due);
            }
        }
    }

    // Calls.

    pub(super) fn listen(
        &mut self,
        node: NodeIndex,
        mut address: SocketAddr,
    ) -> io::Result<(SocketAddr, mpsc::Receiver<Connection>)> {
        if address.port() == 0 {
            address.set_port(self.port());
        }
        if self.listeners.get(&address).is_some_and(|at| !at.calls.is_closed()) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        let (calls, waiting) = mpsc::channel(BACKLOG);
        self.listeners.insert(address, Listening { node, calls });
        Ok((address, waiting))
    }

    fn port(&mut self) -> u16 {
        let port = self.next_port;
        self.next_port = self.next_port.checked_add(1).unwrap_or(49_152);
        port
    }

    pub(super) fn call(
        &mut self,
        from: NodeIndex,
        to: SocketAddr,
    ) -> oneshot::Receiver<io::Result<Connection>> {
        let (answer, answered) = oneshot::channel();
        let callee = self.listeners.get(&to).map_or(from, |listening| listening.node);
        let at = self.now_ms() + self.latency(from, callee);
        let payload = self.keep(Payload::Call { from, to, answer });
        self.schedule(at, Due::Call { payload });
        answered
    }

    fn keep(&mut self, payload: Payload) -> u64 {
        self.last_id += 1;
        self.payloads.insert(self.last_id, payload);
        self.last_id
    }

    fn called(&mut self, payload: u64) {
        let Some(Payload::Call { from, to, answer }) = self.payloads.remove(&payload) else {
            return;
        };
        let refuse = |answer: oneshot::Sender<io::Result<Connection>>| {
            let _ = answer.send(Err(io::ErrorKind::ConnectionRefused.into()));
        };
        let Some((node, calls)) = self.listeners.get(&to).map(|at| (at.node, at.calls.clone()))
        else {
            self.note(EventKind::Refused { from });
            return refuse(answer);
        };
        let callee = self.nodes.get(node as usize);
        if callee.is_some_and(|node| node.dark)
            || self.is_blocked(from, node)
            || self.is_blocked(node, from)
        {
            self.unanswered.push(answer);
            return;
        }
        if callee.is_none_or(|node| !node.up) || answer.is_closed() {
            self.note(EventKind::Refused { from });
            return refuse(answer);
        }
        let (there, back) = (self.pipe(from, node), self.pipe(node, from));
        let caller = SocketAddr::from(([127, 0, 0, 1], self.port()));
        if let Err(refused) = calls.try_send(self.connection(node, caller, there, back)) {
            // Its ends would call this network while it works.
            self.refused.push(match refused {
                mpsc::error::TrySendError::Full(connection)
                | mpsc::error::TrySendError::Closed(connection) => connection,
            });
            self.note(EventKind::Refused { from });
            return refuse(answer);
        }
        self.note(EventKind::Connected { from, to: node });
        let _ = answer.send(Ok(self.connection(from, to, back, there)));
    }

    fn pipe(&mut self, from: NodeIndex, to: NodeIndex) -> PipeId {
        self.last_id += 1;
        let pipe = Pipe {
            from,
            to,
            written: Vec::new(),
            held_bytes: 0,
            blocked: VecDeque::new(),
            arrived: VecDeque::new(),
            last_due: 0,
            reader: None,
            writer: None,
            reader_gone: false,
            ended: None,
        };
        self.pipes.insert(self.last_id, pipe);
        self.last_id
    }

    /// The end that belongs to `node`.
    fn connection(
        &self,
        node: NodeIndex,
        peer: SocketAddr,
        reads: PipeId,
        writes: PipeId,
    ) -> Connection {
        super::transport::connection(node, self.life(node), peer, reads, writes)
    }

    pub(super) fn life(&self, node: NodeIndex) -> u64 {
        self.nodes.get(node as usize).map_or(0, |node| node.life)
    }

    // Reading and writing.

    /// Bytes that have arrived; `None` to wait for more.
    pub(super) fn read(
        &mut self,
        id: PipeId,
        room: usize,
        waker: &Waker,
    ) -> Option<io::Result<Bytes>> {
        let pipe = self.pipes.get_mut(&id)?;
        match (pipe.arrived.front_mut(), pipe.ended) {
            (Some(front), _) => {
                let taken = front.len().min(room);
                let bytes = front.split_to(taken);
                if !front.has_remaining() {
                    pipe.arrived.pop_front();
                }
                pipe.held_bytes = pipe.held_bytes.saturating_sub(taken);
                wake(&mut pipe.writer);
                Some(Ok(bytes))
            }
            (None, Some(Ended::Closed)) => Some(Ok(Bytes::new())),
            (None, Some(Ended::Reset)) => Some(Err(io::ErrorKind::ConnectionReset.into())),
            (None, None) => {
                pipe.reader = Some(waker.clone());
                None
            }
        }
    }

    /// Takes bytes; `None` to wait until there is room.
    pub(super) fn write(
        &mut self,
        id: PipeId,
        bytes: &[u8],
        waker: &Waker,
    ) -> Option<io::Result<usize>> {
        let Some(pipe) = self.pipes.get_mut(&id) else {
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

    fn send_whole_frames(&mut self, id: PipeId) {
        loop {
            let Some(pipe) = self.pipes.get_mut(&id) else { return };
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
            self.send(id, bytes.into(), sent);
        }
    }

    fn send(&mut self, id: PipeId, bytes: Bytes, sent: Sent) {
        let Some(pipe) = self.pipes.get(&id) else { return };
        let (from, to) = (pipe.from, pipe.to);
        let rate = |fault: &FaultKind, which: u8| match (fault, which) {
            (FaultKind::Drop { rate, .. }, 0)
            | (FaultKind::Duplicate { rate, .. }, 1)
            | (FaultKind::Reorder { rate, .. }, 2) => u64::from(*rate),
            _ => 0,
        };
        let rates = [0, 1, 2].map(|which| self.sum(from, to, |fault| rate(fault, which)));
        if self.happens(rates[0]) {
            if let Some(pipe) = self.pipes.get_mut(&id) {
                pipe.held_bytes = pipe.held_bytes.saturating_sub(bytes.len());
            }
            self.note(EventKind::Lost { from, to, message: sent });
            return;
        }
        if self.happens(rates[1]) {
            self.note(EventKind::Duplicated { from, to, message: sent });
            if let Some(pipe) = self.pipes.get_mut(&id) {
                pipe.held_bytes += bytes.len();
            }
            self.send_once(id, bytes.clone(), sent, 1000);
        }
        self.send_once(id, bytes, sent, rates[2]);
    }

    fn send_once(&mut self, id: PipeId, bytes: Bytes, sent: Sent, overtaken: u64) {
        let Some(pipe) = self.pipes.get(&id) else { return };
        let (from, to, last_due) = (pipe.from, pipe.to, pipe.last_due);
        let due = self.now_ms() + self.latency(from, to);
        let at = if self.happens(overtaken) {
            let most = if self.draw(1..=FORGOTTEN) == 1 { FORGOTTEN_MS } else { OVERTAKEN_MS };
            due.max(last_due) + self.draw(1..=most)
        } else {
            let at = due.max(last_due);
            if let Some(pipe) = self.pipes.get_mut(&id) {
                pipe.last_due = at;
            }
            at
        };
        let payload = self.keep(Payload::Message { bytes, sent });
        self.schedule(at, Due::Deliver { pipe: id, payload });
    }

    /// The writer says that nothing follows, or is dropped.
    pub(super) fn close(&mut self, id: PipeId) {
        let Some(pipe) = self.pipes.get(&id) else { return };
        if pipe.ended.is_some() {
            return;
        }
        let (from, to, last_due) = (pipe.from, pipe.to, pipe.last_due);
        let at = (self.now_ms() + self.latency(from, to)).max(last_due);
        self.schedule(at, Due::Close { pipe: id });
    }

    /// The reader is dropped: the other side learns of it when it writes.
    pub(super) fn stop_reading(&mut self, id: PipeId) {
        if let Some(pipe) = self.pipes.get_mut(&id) {
            pipe.reader_gone = true;
            pipe.arrived.clear();
            wake(&mut pipe.writer);
        }
    }

    // Machines.

    pub(super) fn start(&mut self, node: NodeIndex) {
        // One that went dark kept its addresses, so that calls were not refused.
        self.listeners.retain(|_, listening| listening.node != node);
        if let Some(node) = self.nodes.get_mut(node as usize) {
            (node.up, node.dark) = (true, false);
            node.life += 1;
        }
    }

    /// A process is gone. Its kernel resets its connections, unless that is gone too.
    pub(super) fn lose(&mut self, node: NodeIndex, dark: bool) {
        if let Some(node) = self.nodes.get_mut(node as usize) {
            (node.up, node.dark) = (false, dark);
            node.life += 1;
        }
        self.listeners.retain(|_, listening| listening.node != node || dark);
        let own = self.pipes.iter().filter(|(_, pipe)| pipe.from == node || pipe.to == node);
        let own: Vec<(PipeId, NodeIndex, NodeIndex)> =
            own.map(|(id, pipe)| (*id, pipe.from, pipe.to)).collect();
        for (id, from, to) in own {
            if from == node && !dark {
                let at = self.now_ms() + self.latency(from, to);
                self.schedule(at, Due::Reset { pipe: id });
            } else if to == node
                && let Some(pipe) = self.pipes.get_mut(&id)
            {
                pipe.arrived.clear();
                // A kernel without the process answers with a reset; a dark one not at all.
                pipe.reader_gone = !dark;
                if !dark {
                    wake(&mut pipe.writer);
                }
            }
        }
    }

    /// A machine is back: it knows no connection of its earlier life.
    pub(super) fn forget_connections(&mut self, node: NodeIndex) {
        let own: Vec<PipeId> = self
            .pipes
            .iter()
            .filter(|(_, pipe)| pipe.from == node || pipe.to == node)
            .map(|(id, _)| *id)
            .collect();
        for id in own {
            self.end(id, Ended::Reset);
        }
        // Both ends are of lives that are over, or know that it is reset.
        self.pipes.retain(|_, pipe| pipe.from != node && pipe.to != node || pipe.ended.is_none());
    }
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

/// The network as all its users hold it.
#[derive(Clone)]
pub(super) struct Network(pub(super) Rc<RefCell<Wires>>);

thread_local! {
    /// The network of the simulation that this thread runs: connections find it here, because
    /// those that wait in a mailbox must not hold it up.
    static NETWORK: RefCell<Option<Network>> = const { RefCell::new(None) };
}

impl Network {
    /// Is the one of this thread until the guard is dropped.
    pub(super) fn enter(&self) -> Entered {
        NETWORK.set(Some(self.clone()));
        Entered
    }

    /// `None` where the simulation is over.
    pub(super) fn with<T>(act: impl FnOnce(&mut Wires) -> T) -> Option<T> {
        NETWORK.with_borrow(|network| Some(act(&mut network.as_ref()?.0.borrow_mut())))
    }
}

pub(super) struct Entered;

impl Drop for Entered {
    fn drop(&mut self) {
        NETWORK.set(None);
    }
}
