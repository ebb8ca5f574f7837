//! The simulated network: connections of bytes, cut into the frames that were written.
//!
//! A frame is what is late, lost, doubled or overtaken. What the transports promise otherwise
//! holds: bytes of a connection arrive in order, a reader that doesn't read holds its writer back,
//! a connection to nobody is refused.

mod calls;
mod faults;
mod numbered;
mod pipes;

pub(super) use pipes::LATE_BITS;

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use gradmesh_actors::clock;
use rand_chacha::ChaCha8Rng;
use tokio::sync::oneshot;
use tokio::time::Instant;

use self::calls::Listening;
use self::numbered::{Numbered, Shelf};
pub(super) use self::pipes::PipeId;
use self::pipes::{Ended, Pipe};
use super::fault::FaultKind;
use super::trace::{EventKind, NodeIndex, Sent, Trace};
use crate::transport::Connection;

/// All connections of one simulation.
pub(super) struct Wires {
    started: Instant,
    /// Simulated time, in milliseconds. It stands still while the host runs.
    now_ms: u64,
    rng: ChaCha8Rng,
    pub(super) trace: Trace,
    pub(super) nodes: Vec<NetNode>,
    listeners: BTreeMap<SocketAddr, Listening>,
    pipes: Numbered<Pipe>,
    last_id: u64,
    due: BinaryHeap<Reverse<(u64, u64, Due)>>,
    payloads: Shelf<Payload>,
    /// Faults of the network that are active.
    faults: Vec<FaultKind>,
    /// Callers of machines that don't answer: nobody tells them.
    unanswered: Vec<oneshot::Sender<io::Result<Connection>>>,
    /// Dropped when the simulation is over.
    refused: Vec<Connection>,
    pub(super) messages: u64,
    pub(super) bytes: u64,
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

/// What happens at some time; the payload is beside the heap so that this stays small.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    Deliver { pipe: PipeId, payload: u64 },
    Close { pipe: PipeId },
    Reset { pipe: PipeId },
    Call { payload: u64 },
}

enum Payload {
    Message { bytes: Vec<u8>, sent: Sent },
    Call { from: NodeIndex, to: SocketAddr, answer: oneshot::Sender<io::Result<Connection>> },
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
            pipes: Numbered::default(),
            last_id: 0,
            due: BinaryHeap::new(),
            payloads: Shelf::default(),
            faults: Vec::new(),
            unanswered: Vec::new(),
            refused: Vec::new(),
            messages: 0,
            bytes: 0,
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
        self.now_ms = clock::since(self.started).as_millis() as u64;
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
                let Some(ends) = self.pipes.get(pipe).map(|pipe| (pipe.from, pipe.to)) else {
                    return;
                };
                if self.is_blocked(ends.0, ends.1) {
                    if let Some(pipe) = self.pipes.get_mut(pipe) {
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

    fn schedule(&mut self, at: u64, due: Due) {
        self.last_id += 1;
        self.due.push(Reverse((at, self.last_id, due)));
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
