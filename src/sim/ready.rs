//! Which nodes have something to do.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Wake;

/// Nodes that were woken. The host looks here before time goes on: nobody wakes it.
pub(super) struct Ready {
    /// A bit for each.
    nodes: Vec<AtomicU64>,
}

impl Ready {
    pub(super) fn new(nodes: usize) -> Self {
        Self { nodes: (0..nodes.div_ceil(64)).map(|_| AtomicU64::new(0)).collect() }
    }

    fn add(&self, node: usize) {
        self.nodes[node / 64].fetch_or(1 << (node % 64), Ordering::Relaxed);
    }

    /// Takes the first one from `node` on.
    pub(super) fn take_from(&self, node: usize) -> Option<usize> {
        for (word, bits) in self.nodes.iter().enumerate().skip(node / 64) {
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

/// Wakes one node.
pub(super) struct Woken {
    pub(super) node: usize,
    pub(super) ready: Arc<Ready>,
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.ready.add(self.node);
    }
}
