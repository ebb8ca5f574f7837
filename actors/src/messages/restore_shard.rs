//! Coordinator → ParameterServer: what a copy of a shard is in a view, and which state it begins with.

use serde::{Deserialize, Serialize};

use super::link::{LinkError, WireMessage, WirePart};
use crate::ids::{CoordinatorId, ServerId, ShardCopy, Version, View};
use crate::plan::JobOffer;

/// What one copy of a shard does in one view.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Appointment {
    pub view: View,
    pub copy: ShardCopy,
    pub duty: Duty,
    /// The primary of the first shard, which adds up norms.
    pub first: ServerId,
    /// Whom to report to.
    pub leader: CoordinatorId,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Duty {
    /// Takes pushes, and commits a step when every one of `replicas` has it.
    Primary { replicas: Vec<ServerId>, learners: Vec<ServerId> },
    /// Takes each step from the primary, and can be the next one.
    Replica,
    /// Is filled by the primary first.
    Learner,
    /// Holds nothing any more.
    Released,
}

impl std::fmt::Display for Duty {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Primary { .. } => "primary",
            Self::Replica => "replica",
            Self::Learner => "learner",
            Self::Released => "released",
        })
    }
}

/// Asks for the shard's state at `version`: by the seed or the version that the job begins with for version 0, else read from the
/// checkpoint. Everything of lower views is forgotten.
///
/// Safe to repeat: a copy that was restored in this view answers at once, one that is being restored
/// says [`RestoreError::NotReady`].
#[derive(Clone, Debug, PartialEq, actix::Message, Serialize, Deserialize)]
#[rtype(result = "Result<(), RestoreError>")]
pub struct RestoreShard {
    pub appointment: Appointment,
    pub version: Version,
    pub offer: JobOffer,
    /// How many shards the job's parameters are cut into.
    pub shards: u32,
    /// Versions at multiples of this are saved.
    pub checkpoint_every: u64,
}

/// Appoints a copy anew and leaves its state as it is: holders or leases have changed.
#[derive(Clone, Debug, PartialEq, Eq, actix::Message, Serialize, Deserialize)]
#[rtype(result = "Result<(), RestoreError>")]
pub struct AdoptView {
    pub appointment: Appointment,
    /// The view in which everyone went back last. State of before that is of steps that didn't
    /// happen.
    pub lineage: View,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum RestoreError {
    #[error("{got} is older than {current}")]
    StaleView { got: View, current: View },
    #[error("restoring {expected} reached {got}")]
    WrongShard { expected: ShardCopy, got: ShardCopy },
    /// It is being restored, or has no state of this lineage to keep.
    #[error("{0} has no state to keep")]
    NotReady(ShardCopy),
    #[error("the checkpoint can't be used: {cause}")]
    Checkpoint { cause: String },
    #[error("the job can't run: {cause}")]
    Plan { cause: String },
    #[error(transparent)]
    Link(#[from] LinkError),
    /// Nothing is wrong with the checkpoint as far as anyone can see; ask again.
    #[error("what the shard begins with can't be read now: {cause}")]
    Store { cause: String },
}

impl WireMessage for RestoreShard {
    const KIND: u16 = 0x0104;
    type Reply = ();
    type Refusal = RestoreError;
}

impl WireMessage for AdoptView {
    const KIND: u16 = 0x0105;
    type Reply = ();
    type Refusal = RestoreError;
}

impl WirePart for RestoreShard {}
impl WirePart for AdoptView {}
impl WirePart for RestoreError {}
