//! What links between real processes have done to frames.

use std::cell::Cell;
use std::rc::Rc;

use serde::Serialize;

/// Frames of all links together. One may be counted in several ways.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct FrameCounts {
    /// That came to a link.
    pub frames: u64,
    pub late: u64,
    pub lost: u64,
    pub doubled: u64,
    pub overtaken: u64,
    /// By a block, until it was over.
    pub held: u64,
}

/// Shared by the links of one thread.
#[derive(Clone, Debug, Default)]
pub struct SharedFrameCounts(Rc<Cell<FrameCounts>>);

impl SharedFrameCounts {
    pub fn get(&self) -> FrameCounts {
        self.0.get()
    }

    pub(super) fn add(&self, count: impl FnOnce(&mut FrameCounts) -> &mut u64) {
        let mut counts = self.0.get();
        *count(&mut counts) += 1;
        self.0.set(counts);
    }
}
