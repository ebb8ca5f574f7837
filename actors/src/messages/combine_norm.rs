//! ParameterServer → the first shard's primary: what it knows of the global norm of a step.

use serde::{Deserialize, Serialize};

use super::link::{LinkError, WireMessage, WirePart};
use crate::ids::{ShardId, Version};

/// Hands in one shard's sums of squares, or the sum over all of them, and asks for the latter.
///
/// Answered when every shard has handed in its own, or one of them the whole. The sums of a step have one value whatever
/// happened before, so this needs no view.
#[derive(Clone, Debug, PartialEq, actix::Message, Serialize, Deserialize)]
#[rtype(result = "Result<CombinedNorm, NormError>")]
pub struct CombineNorm {
    pub step: Version,
    pub shard: ShardId,
    pub part: NormPart,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NormPart {
    /// Sums of squares, one a block of the shard, in block order.
    Sums(Vec<f64>),
    /// The sum over all shards: this one has applied the step. A first shard that took another
    /// one's place may need it.
    Whole(f64),
}

/// Sum of the squares of the whole gradient.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct CombinedNorm {
    pub sum_of_squares: f64,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum NormError {
    #[error("the first shard has not been restored yet")]
    NotReady,
    #[error(
        "{shard} handed in {got} sums of squares at {step} that are not those of its {expected} blocks"
    )]
    WrongSums { shard: ShardId, step: Version, expected: usize, got: usize },
    /// No shard can be in that step: a copy of an old request, or of a run that was rolled back.
    #[error("the norm of the step of {step} is asked for, the first shard is at {version}")]
    OutOfWindow { step: Version, version: Version },
    /// The same shard asked again, and this request will not be answered.
    #[error("a later request of the same shard took this one's place")]
    Superseded,
    #[error(transparent)]
    Link(#[from] LinkError),
}

impl WireMessage for CombineNorm {
    const KIND: u16 = 0x0103;
    type Reply = CombinedNorm;
    type Refusal = NormError;
}

impl WirePart for CombineNorm {
    const POSITIONAL: bool = true;
}
impl WirePart for CombinedNorm {
    const POSITIONAL: bool = true;
}
impl WirePart for NormError {}
