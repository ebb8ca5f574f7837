//! ParameterServer → Coordinator: how far a shard is, and which checkpoint parts it has written.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::link::{LinkError, WireMessage, WirePart};
use crate::checkpoint::SavedPart;
use crate::ids::{ServerId, ShardCopy, ShardId, Slot, Version, View, WorkerId};
use crate::ledger::Ledger;

/// A snapshot of one shard's progress: a later one replaces an earlier one.
#[derive(Clone, Debug, PartialEq, actix::Message, Serialize, Deserialize)]
#[rtype(result = "Result<(), ReportError>")]
pub struct ReportShard {
    pub view: View,
    /// The primary.
    pub copy: ShardCopy,
    pub version: Version,
    /// Learners that have caught up: from now on no step is committed without them.
    pub synced: Vec<ServerId>,
    /// The first shard's; `None` from the others.
    pub ledger: Option<Ledger>,
    pub bytes: BytesMoved,
}

/// Bulk bytes of one shard's exchanges since its actor started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BytesMoved {
    /// Gradients as they arrived.
    pub pushed: u64,
    /// The same gradients as plain f32: what a codec saved is the difference.
    pub pushed_dense: u64,
    /// Parameters as they were sent.
    pub pulled: u64,
    /// Steps and states as they were sent to other copies.
    pub replicated: u64,
}

/// One part of a checkpoint is in the store: written by a shard, or by a worker for the residuals
/// of its slots.
#[derive(Clone, Debug, PartialEq, actix::Message, Serialize, Deserialize)]
#[rtype(result = "Result<(), ReportError>")]
pub struct ReportPart {
    pub view: View,
    pub version: Version,
    pub part: SavedPart,
    /// The shard's progress with that version; `None` from a worker.
    pub shard: Option<ReportShard>,
}

/// Training can't go on like this.
#[derive(Clone, Debug, PartialEq, Eq, actix::Message, Serialize, Deserialize)]
#[rtype(result = "Result<(), ReportError>")]
pub struct ReportFailure {
    pub view: View,
    pub worker: WorkerId,
    pub kind: FailureKind,
    pub cause: String,
}

/// What is to be done about a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailureKind {
    /// The checkpoint that this view began with can't be read any more: another one may do.
    Checkpoint,
    /// The shards are at a version of which this worker has no residuals: a lease of its life before
    /// reached it.
    Residuals,
    /// The same would happen again.
    Lasting,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum ReportError {
    /// The report is of steps that were rolled back; forget it.
    #[error("report of {got} refused, the cluster is in {current}")]
    StaleView { got: View, current: View },
    /// It does no longer, or doesn't know the job yet: report again.
    #[error("this coordinator can't take reports now")]
    NotLeading,
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error("report of {got} refused, servers.shards is {shards} at the coordinator")]
    NoSuchShard { got: ShardId, shards: u32 },
    #[error("report of {got} refused, the cluster has {servers} servers")]
    NoSuchServer { got: ServerId, servers: u32 },
    #[error("report of {got} refused, workers.count is {workers} at the coordinator")]
    NoSuchWorker { got: WorkerId, workers: u32 },
    #[error("report of {got} refused, the last one is {last}")]
    BeyondLast { got: Version, last: Version },
    #[error("ledger of {got} refused, the first shard keeps it")]
    NotItsLedger { got: ShardId },
    #[error("ledger of {got} finished epochs refused, job.epochs is {epochs}")]
    TooManyEpochs { got: u64, epochs: u64 },
    #[error(
        "checkpoint part of {got} refused, checkpoint.every_steps is {every} and the last is {last}"
    )]
    NotSaved { got: Version, every: u64, last: Version },
    #[error("checkpoint part of {got:?} refused, {shard} owns {expected:?}")]
    WrongRange { shard: ShardId, expected: Range<usize>, got: Range<usize> },
    #[error("checkpoint part of parameters refused, it comes from no shard")]
    NobodysRange,
    #[error("checkpoint part with {got} refused, residuals are kept of {slots} slots")]
    WrongSlot { got: Slot, slots: u32 },
}

impl WireMessage for ReportShard {
    const KIND: u16 = 0x0108;
    type Reply = ();
    type Refusal = ReportError;
}

impl WireMessage for ReportPart {
    const KIND: u16 = 0x0109;
    type Reply = ();
    type Refusal = ReportError;
}

impl WireMessage for ReportFailure {
    const KIND: u16 = 0x010a;
    type Reply = ();
    type Refusal = ReportError;
}

impl WirePart for ReportShard {
    const POSITIONAL: bool = true;
}
impl WirePart for ReportPart {}
impl WirePart for ReportFailure {}
impl WirePart for ReportError {}

impl BytesMoved {
    /// Stays at the largest number: a peer's counts may be any, and nothing is decided by them.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            pushed: self.pushed.saturating_add(other.pushed),
            pushed_dense: self.pushed_dense.saturating_add(other.pushed_dense),
            pulled: self.pulled.saturating_add(other.pulled),
            replicated: self.replicated.saturating_add(other.replicated),
        }
    }
}
