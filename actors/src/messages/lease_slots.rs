//! Coordinator → Worker: the slots to compute from now on.

use serde::{Deserialize, Serialize};

use super::link::{LinkError, WireMessage, WirePart};
use crate::ids::{Version, View, WorkerId};
use crate::reduction::Span;

/// Replaces the worker's lease. Whatever it is doing for a lower view, it drops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, actix::Message, Serialize, Deserialize)]
#[rtype(result = "Result<(), LeaseError>")]
pub struct LeaseSlots {
    pub view: View,
    pub worker: WorkerId,
    /// Contiguous; empty for a worker that stands by.
    pub slots: Span,
    /// Everyone went back to this checkpoint: parameters and residuals that the worker holds are
    /// of steps that didn't happen.
    pub rolled_back_to: Option<Version>,
    /// Cut of the parameters, and which versions are saved: as the shards were told.
    pub shards: u32,
    pub checkpoint_every: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum LeaseError {
    #[error("{got} is older than {current}")]
    StaleView { got: View, current: View },
    #[error("lease of {expected} reached {got}")]
    WrongWorker { expected: WorkerId, got: WorkerId },
    #[error("{got} are not slots of this job, which has {slots}")]
    WrongSlots { got: Span, slots: u32 },
    #[error("a lease of {got} shards reached a worker that knows {expected}")]
    WrongShards { expected: usize, got: u32 },
    #[error(transparent)]
    Link(#[from] LinkError),
}

impl WireMessage for LeaseSlots {
    const KIND: u16 = 0x0106;
    type Reply = ();
    type Refusal = LeaseError;
}

impl WirePart for LeaseSlots {}
impl WirePart for LeaseError {}
