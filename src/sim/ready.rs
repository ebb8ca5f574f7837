//! Which nodes have something to do.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Wake;

use futures_util::task::AtomicWaker;

/// Nodes that were woken: a bit for each.
pub(super) struct Ready(Vec<AtomicU64>);

impl Ready {
    pub(super) fn new(nodes: usize) -> Self {
        Self((0..nodes.div_ceil(64)).map(|_| AtomicU64::new(0)).collect())
    }

    fn add(&self, node: usize) {
        self.0[node / 64].fetch_or(1 << (node % 64), Ordering::Relaxed);
    }

    /// Takes the first one from `node` on.
    pub(super) fn take_from(&self, node: usize) -> Option<usize> {
        for (word, bits) in self.0.iter().enumerate().skip(node / 64) {
            let before = if word == node / 64 { (1u64 << (node % 64)) - 1 } else { 0 };
            let set = bits.load(Ordering::Relaxed) & !before;
            if set != 0 {
                let bit = set.trailing_zeros();
                bits.fetch_and(!(1 << bit), Ordering::Relaxed);
                return Some(word * 64 + bit as usize);
            }
        }
        None
    }
}

pub(super) struct Woken {
    pub(super) node: usize,
    pub(super) ready: Arc<Ready>,
    pub(super) host: Arc<AtomicWaker>,
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.ready.add(self.node);
        self.host.wake();
    }
}
