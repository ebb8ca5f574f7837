//! Which nodes have something to do.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Wake, Waker};

use futures_util::task::AtomicWaker;

thread_local! {
    /// A host runs on this thread.
    static HAS_HOST: Cell<bool> = const { Cell::new(false) };
}

/// Nodes that were woken. The host looks here before time goes on: nobody on its thread wakes it.
pub(super) struct Ready {
    /// A bit for each.
    nodes: Vec<AtomicU64>,
    /// For other threads, which a node should not have.
    host: AtomicWaker,
}

impl Ready {
    /// Of a host on this thread.
    pub(super) fn new(nodes: usize) -> Self {
        HAS_HOST.set(true);
        let nodes = (0..nodes.div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        Self { nodes, host: AtomicWaker::new() }
    }

    /// `waker` ends a wait of the host's runtime.
    pub(super) fn host_waits(&self, waker: &Waker) {
        self.host.register(waker);
    }

    fn add(&self, node: usize) {
        self.nodes[node / 64].fetch_or(1 << (node % 64), Ordering::Relaxed);
        // A thread that ends has none.
        if !HAS_HOST.try_with(Cell::get).unwrap_or(false) {
            self.host.wake();
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts.
    struct Bell(AtomicU64);

    impl Wake for Bell {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_host_is_woken_by_other_threads_alone() {
        let ready = Arc::new(Ready::new(100));
        let bell = Arc::new(Bell(AtomicU64::new(0)));
        ready.host_waits(&Arc::clone(&bell).into());
        let woken = |node| Waker::from(Arc::new(Woken { node, ready: Arc::clone(&ready) }));
        woken(70).wake();
        assert_eq!(bell.0.load(Ordering::Relaxed), 0);
        let other = woken(3);
        std::thread::scope(|scope| drop(scope.spawn(|| other.wake())));
        assert_eq!(bell.0.load(Ordering::Relaxed), 1);
        let woken: Vec<_> = std::iter::from_fn(|| ready.take_from(0)).collect();
        assert_eq!(woken, [3, 70]);
    }
}
