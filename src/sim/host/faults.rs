//! What the beginning and the end of a fault do to nodes, network and disk.

use std::sync::atomic::Ordering;

use futures_util::FutureExt;

use super::{Host, NodeIndex};
use crate::sim::fault::{ANY, Fault, FaultKind};

impl Host {
    pub(super) fn begin(&mut self, fault: &Fault) {
        match &fault.kind {
            FaultKind::Kill { node } => self.each(node, |host, node| {
                host.end_process(node, false, false);
            }),
            FaultKind::PowerLoss { node } => self.each(node, |host, node| {
                host.end_process(node, true, false);
                host.disk.lose_unsynced(node).now_or_never();
            }),
            FaultKind::Stop { node } => self.each(node, |host, node| {
                host.end_process(node, false, true);
            }),
            FaultKind::Pause { node } => self.each(node, |host, node| {
                host.states[node as usize].paused = true;
            }),
            FaultKind::Drain { node } => self.each(node, |host, node| host.wish(node, true)),
            FaultKind::Panic { node } => self.each(node, |host, node| {
                host.machines[node as usize].panics.store(true, Ordering::Relaxed);
            }),
            FaultKind::Slow { node, times } => self.each(node, |host, node| {
                host.machines[node as usize].slow.store(*times, Ordering::Relaxed);
            }),
            FaultKind::FlipBit { path } => {
                if let Some(flipped) = self.disk.flip_bit(path).now_or_never().flatten() {
                    self.counts.bits_flipped += 1;
                    self.note(format!("a bit of {flipped} has flipped"));
                }
            }
            FaultKind::Clock { node, by_ms } => self.each(node, |host, node| {
                host.machines[node as usize].skew_ms.set(*by_ms);
            }),
            kind => {
                self.active.push(kind.clone());
                self.share_faults();
            }
        }
    }

    pub(super) fn end(&mut self, fault: &Fault) {
        match &fault.kind {
            FaultKind::Kill { node } | FaultKind::PowerLoss { node } | FaultKind::Stop { node } => {
                self.each(node, |host, node| host.start(node));
            }
            FaultKind::Pause { node } => self.each(node, |host, node| {
                host.states[node as usize].paused = false;
                host.machines[node as usize].waker.wake_by_ref();
            }),
            FaultKind::Clock { node, .. } => self.each(node, |host, node| {
                host.machines[node as usize].skew_ms.set(0);
            }),
            FaultKind::Slow { node, .. } => self.each(node, |host, node| {
                host.machines[node as usize].slow.store(0, Ordering::Relaxed);
            }),
            FaultKind::Drain { node } => self.each(node, |host, node| host.wish(node, false)),
            FaultKind::FlipBit { .. } | FaultKind::Panic { .. } => {}
            kind => {
                if let Some(at) = self.active.iter().position(|active| active == kind) {
                    self.active.remove(at);
                }
                self.share_faults();
            }
        }
    }

    fn wish(&self, node: NodeIndex, leaves: bool) {
        let name = self.names[node as usize].clone();
        self.wishes.send_modify(|wishes| {
            wishes.insert(name, leaves);
        });
    }

    fn share_faults(&mut self) {
        self.network.0.borrow_mut().set_faults(self.active.clone());
        self.disk.set_faults(self.active.clone());
    }

    fn each(&mut self, name: &str, act: impl Fn(&mut Self, NodeIndex)) {
        for index in 0..self.names.len() {
            if name == ANY || self.names[index] == name {
                act(self, index as NodeIndex);
            }
        }
    }
}
