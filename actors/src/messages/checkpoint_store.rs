//! ParameterServer, Worker, Coordinator → the checkpoint store of their own node. Not on the wire.

use std::collections::BTreeSet;
use std::ops::Range;

use crate::checkpoint::{Finished, Manifest, PartContent, SavedPart, StateSnapshot};
use crate::ids::{Slot, Version};
use crate::messages::Values;

/// Tensors by name, all of the same length.
pub type NamedValues = Vec<(String, Values)>;

/// Writes one part of a checkpoint. Writing it again writes the same bytes.
#[derive(Clone, Debug, PartialEq, actix::Message)]
#[rtype(result = "Result<SavedPart, CheckpointError>")]
pub struct SavePart {
    pub version: Version,
    pub content: PartContent,
    pub tensors: NamedValues,
}

/// Reads a range of the flat space, whichever shards had written it.
#[derive(Clone, Debug, PartialEq, Eq, actix::Message)]
#[rtype(result = "Result<LoadedRange, CheckpointError>")]
pub struct LoadRange {
    pub version: Version,
    pub range: Range<usize>,
    /// Names of the optimizer's tensors.
    pub state: Vec<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct LoadedRange {
    pub parameters: Vec<f32>,
    /// In the order of [`LoadRange::state`].
    pub state: Vec<Vec<f32>>,
    /// What had been counted.
    pub manifest: Manifest,
}

/// Reads the codec's residuals of some slots.
#[derive(Clone, Debug, PartialEq, Eq, actix::Message)]
#[rtype(result = "Result<Vec<(Slot, Vec<f32>)>, CheckpointError>")]
pub struct LoadResiduals {
    pub version: Version,
    pub slots: Vec<Slot>,
}

/// Finds the newest checkpoint that is whole, and the sign that the job is finished.
#[derive(Clone, Debug, PartialEq, Eq, actix::Message)]
#[rtype(result = "Result<Opened, CheckpointError>")]
pub struct OpenCheckpoints {
    /// Digest of the job that is to run; a checkpoint of another one is refused.
    pub job_digest: String,
    pub data_digest: String,
    /// Checkpoints that look whole, but that somebody could not restore.
    pub not: BTreeSet<Version>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Opened {
    /// The newest whole checkpoint, if there is one.
    pub manifest: Option<Manifest>,
    /// The run of this job that finished last, if none of another job has since.
    pub finished: Option<Finished>,
}

/// Finds the newest checkpoint that counts, whether or not its parts are still what its manifest says.
/// For who follows a run: it costs a look at the store, and not the reading of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, actix::Message)]
#[rtype(result = "Result<FoundCheckpoint, CheckpointError>")]
pub struct FindCheckpoint {
    pub known: Option<Version>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum FoundCheckpoint {
    /// There is none.
    Nothing,
    /// The known one is the newest.
    Known,
    Other(Box<Manifest>),
}

/// Makes a checkpoint count: all its parts are there. Removes checkpoints that are not needed
/// any more.
#[derive(Clone, Debug, PartialEq, actix::Message)]
#[rtype(result = "Result<(), CheckpointError>")]
pub struct CommitCheckpoint {
    pub manifest: Manifest,
}

/// Reads the whole state of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, actix::Message)]
#[rtype(result = "Result<StateSnapshot, CheckpointError>")]
pub struct LoadState {
    pub version: Version,
}

/// Remembers that a run is published, then removes all checkpoints.
#[derive(Clone, Debug, PartialEq, actix::Message)]
#[rtype(result = "Result<(), CheckpointError>")]
pub struct ConcludeRun {
    pub finished: Finished,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    #[error(
        "checkpoint.store {store} holds {version} of another {what} ({got}, this one is {expected}); finish that job, set checkpoint.store to another folder, or drop it with --fresh"
    )]
    OtherJob { store: String, version: Version, what: &'static str, expected: String, got: String },
    #[error("checkpoint file {path} is damaged: {cause}")]
    Damaged { path: String, cause: String },
    #[error("checkpoint of {version} has no {what}")]
    Missing { version: Version, what: String },
    #[error("checkpoint.store can't be used: {0}")]
    Store(String),
    #[error("the checkpoint store didn't answer")]
    Closed,
}

impl CheckpointError {
    /// Whether the same request may succeed later: a full disk gets room, a store comes back.
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Store(_) | Self::Closed)
    }
}
