//! Coordinator → Worker: the slots to compute from now on.

use serde::{Deserialize, Serialize};

use super::link::{LinkError, WireMessage, WirePart};
use crate::ids::{CoordinatorId, ServerId, Version, View, WorkerId};
use crate::reduction::Span;

/// Replaces the worker's lease. Whatever it is doing for a lower view, it drops.
#[derive(Clone, Debug, PartialEq, Eq, actix::Message, Serialize, Deserialize)]
#[rtype(result = "Result<(), LeaseError>")]
pub struct LeaseSlots {
    pub view: View,
    pub worker: WorkerId,
    /// Contiguous; empty for a worker that stands by.
    pub slots: Span,
    /// The primary of each shard, in shard order.
    pub primaries: Vec<ServerId>,
    /// Whom to report to.
    pub leader: CoordinatorId,
    /// The view in which everyone went back last, and to which version: parameters and residuals
    /// that a worker holds from before are of steps that didn't happen.
    pub lineage: View,
    pub rolled_back_to: Version,
    /// Which versions are saved: as the shards were told.
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
    WrongShards { expected: usize, got: usize },
    #[error("a lease with {got} as a primary reached a worker that knows {servers} servers")]
    NoSuchServer { servers: usize, got: ServerId },
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
