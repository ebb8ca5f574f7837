//! Coordinator → ParameterServer: become the owner of a shard at a version, or stay it in a new view.

use serde::{Deserialize, Serialize};

use super::link::{LinkError, WireMessage, WirePart};
use crate::ids::{ShardId, Version, View};
use crate::plan::JobOffer;

/// Asks for the shard's state at `version`: initialised by seed for version 0, else read from the
/// checkpoint. Everything of lower views is forgotten.
///
/// Safe to repeat: a shard that was restored in this view answers at once.
#[derive(Clone, Debug, PartialEq, actix::Message, Serialize, Deserialize)]
#[rtype(result = "Result<(), RestoreError>")]
pub struct RestoreShard {
    pub view: View,
    pub shard: ShardId,
    pub version: Version,
    pub offer: JobOffer,
    /// How many shards the job's parameters are cut into.
    pub shards: u32,
    /// Versions at multiples of this are saved.
    pub checkpoint_every: u64,
}

/// Asks for nothing but the view to be raised: leases have changed, shards have not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, actix::Message, Serialize, Deserialize)]
#[rtype(result = "Result<(), RestoreError>")]
pub struct AdoptView {
    pub view: View,
    pub shard: ShardId,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum RestoreError {
    #[error("{got} is older than {current}")]
    StaleView { got: View, current: View },
    #[error("restoring {expected} reached {got}")]
    WrongShard { expected: ShardId, got: ShardId },
    /// The actor restarted and lost its state; it needs [`RestoreShard`].
    #[error("{0} has no state to keep")]
    NotReady(ShardId),
    #[error("the checkpoint can't be used: {cause}")]
    Checkpoint { cause: String },
    #[error("the job can't run: {cause}")]
    Plan { cause: String },
    #[error(transparent)]
    Link(#[from] LinkError),
    /// Nothing is wrong with the checkpoint as far as anyone can see; ask again.
    #[error("the checkpoint can't be read now: {cause}")]
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
