//! Who listens, who calls, and what becomes of a call.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;

use tokio::sync::{mpsc, oneshot};

use super::pipes::{Pipe, PipeId};
use super::{Due, Payload, Wires};
use crate::sim::trace::{EventKind, NodeIndex};
use crate::sim::transport;
use crate::transport::Connection;

/// As [`crate::transport::MemoryTransport`]'s.
const BACKLOG: usize = 128;

pub(super) struct Listening {
    pub(super) node: NodeIndex,
    calls: mpsc::Sender<Connection>,
}

impl Wires {
    pub(in crate::sim) fn listen(
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

    pub(super) fn port(&mut self) -> u16 {
        let port = self.next_port;
        self.next_port = self.next_port.checked_add(1).unwrap_or(49_152);
        port
    }

    pub(in crate::sim) fn call(
        &mut self,
        from: NodeIndex,
        to: SocketAddr,
    ) -> oneshot::Receiver<io::Result<Connection>> {
        let (answer, answered) = oneshot::channel();
        let callee = self.listeners.get(&to).map_or(from, |listening| listening.node);
        let at = self.now_ms() + self.latency(from, callee);
        let payload = self.payloads.put(Payload::Call { from, to, answer });
        self.schedule(at, Due::Call { payload });
        answered
    }

    pub(super) fn called(&mut self, payload: u64) {
        let Some(Payload::Call { from, to, answer }) = self.payloads.take(payload) else {
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

    pub(super) fn pipe(&mut self, from: NodeIndex, to: NodeIndex) -> PipeId {
        self.pipes.insert(Pipe {
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
        })
    }

    /// The end that belongs to `node`.
    pub(super) fn connection(
        &self,
        node: NodeIndex,
        peer: SocketAddr,
        reads: PipeId,
        writes: PipeId,
    ) -> Connection {
        transport::connection(node, self.life(node), peer, reads, writes)
    }

    pub(in crate::sim) fn life(&self, node: NodeIndex) -> u64 {
        self.nodes.get(node as usize).map_or(0, |node| node.life)
    }
}
