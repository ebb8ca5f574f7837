//! What faults and lost machines do to the network.

use rand_chacha::rand_core::Rng;

use super::pipes::{Ended, PipeId, wake};
use super::{Due, Wires};
use crate::sim::fault::FaultKind;
use crate::sim::faulty_link::is_between;
use crate::sim::trace::NodeIndex;

/// Between two machines of one room, with a scheduler in the way. Timers have a step of 1 ms.
const LATENCY_MS: std::ops::RangeInclusive<u64> = 1..=3;

impl Wires {
    pub(super) fn latency(&mut self, from: NodeIndex, to: NodeIndex) -> u64 {
        let base = self.draw(LATENCY_MS);
        let extra = self.sum(from, to, |fault| match fault {
            FaultKind::Delay { ms, .. } => *ms,
            _ => 0,
        });
        base + extra
    }

    pub(super) fn draw(&mut self, range: std::ops::RangeInclusive<u64>) -> u64 {
        let width = range.end() - range.start() + 1;
        range.start() + self.rng.next_u64() % width
    }

    /// Whether something of this rate happens now. Draws only where there is a rate, so that a
    /// fault changes nothing before it begins.
    pub(super) fn happens(&mut self, rate: u64) -> bool {
        rate > 0 && self.rng.next_u64() % 1000 < rate
    }

    pub(super) fn sum(
        &self,
        from: NodeIndex,
        to: NodeIndex,
        of: impl Fn(&FaultKind) -> u64,
    ) -> u64 {
        // Names last: they are what takes long.
        let counts = |fault: &&FaultKind| of(fault) > 0 && self.is_between(fault, from, to);
        self.faults.iter().filter(counts).map(&of).sum()
    }

    pub(super) fn is_between(&self, fault: &FaultKind, from: NodeIndex, to: NodeIndex) -> bool {
        let name = |node: NodeIndex| self.nodes.get(node as usize).map_or("", |node| &node.name);
        is_between(fault, name(from), name(to))
    }

    pub(super) fn is_blocked(&self, from: NodeIndex, to: NodeIndex) -> bool {
        self.sum(from, to, |fault| u64::from(matches!(fault, FaultKind::Block { .. }))) > 0
    }

    /// The faults that are active from now on.
    pub(in crate::sim) fn set_faults(&mut self, faults: Vec<FaultKind>) {
        self.faults = faults;
        let open: Vec<PipeId> = self
            .pipes
            .iter()
            .filter(|(_, pipe)| !pipe.blocked.is_empty() && !self.is_blocked(pipe.from, pipe.to))
            .map(|(id, _)| id)
            .collect();
        let now = self.now_ms();
        for id in open {
            let Some(pipe) = self.pipes.get_mut(id) else { continue };
            let (from, to, blocked) = (pipe.from, pipe.to, std::mem::take(&mut pipe.blocked));
            let at = now + self.latency(from, to);
            for due in blocked {
                self.schedule(at, due);
            }
        }
    }

    pub(in crate::sim) fn start(&mut self, node: NodeIndex) {
        if let Some(node) = self.nodes.get_mut(node as usize) {
            (node.up, node.dark) = (true, false);
            node.life += 1;
        }
        // Those of a machine that went dark: the one that starts knows nothing of them.
        self.listeners.retain(|_, listening| listening.node != node);
    }

    /// A process is gone. Its kernel resets its connections, unless that is gone too.
    pub(in crate::sim) fn lose(&mut self, node: NodeIndex, dark: bool) {
        if let Some(node) = self.nodes.get_mut(node as usize) {
            (node.up, node.dark) = (false, dark);
            node.life += 1;
        }
        self.listeners.retain(|_, listening| listening.node != node || dark);
        let own = self.pipes.iter().filter(|(_, pipe)| pipe.from == node || pipe.to == node);
        let own: Vec<(PipeId, NodeIndex, NodeIndex)> =
            own.map(|(id, pipe)| (id, pipe.from, pipe.to)).collect();
        for (id, from, to) in own {
            if from == node && !dark {
                let at = self.now_ms() + self.latency(from, to);
                self.schedule(at, Due::Reset { pipe: id });
            } else if to == node
                && let Some(pipe) = self.pipes.get_mut(id)
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
    pub(in crate::sim) fn forget_connections(&mut self, node: NodeIndex) {
        let own: Vec<PipeId> = self
            .pipes
            .iter()
            .filter(|(_, pipe)| pipe.from == node || pipe.to == node)
            .map(|(id, _)| id)
            .collect();
        for id in own {
            self.end(id, Ended::Reset);
        }
        // Both ends are of lives that are over, or know that it is reset.
        self.pipes.retain(|pipe| pipe.from != node && pipe.to != node || pipe.ended.is_none());
    }
}
