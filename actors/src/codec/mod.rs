//! How a slot's gradient is written to the wire: fewer bytes, the same training.

use std::fmt;

use crate::job::{CodecKind, GradientSpec};
use crate::layout::ShardMap;

/// Writes the gradient of one slot and reads it again. Adding one is a file beside this one and a
/// line in [`codec`].
///
/// What it treats as a unit is a block of [`crate::layout::BLOCK`] parameters or the whole
/// gradient, never a shard: bytes depend on the cut into shards, decoded values don't.
pub trait Codec: Send + Sync + fmt::Debug {
    fn kind(&self) -> CodecKind;

    /// Whether what an encoding lost is added to the slot's next gradient (error feedback).
    fn keeps_residual(&self) -> bool;

    /// Encodes a slot's gradient (the whole flat space) into one piece a shard.
    ///
    /// `residual` has the gradient's length where [`Codec::keeps_residual`], else none. It is
    /// added to the gradient first, and holds afterwards what the encoding lost:
    /// `decoded + residual_after = gradient + residual_before`.
    fn encode(&self, gradient: &[f32], residual: &mut [f32], shards: &ShardMap) -> Vec<Vec<u8>>;

    /// Writes the decoded values of one shard's piece into `out`, all of them.
    ///
    /// # Errors
    /// The bytes are not what `encode` writes for a shard of this length, or a value isn't finite.
    /// `out` then holds anything.
    fn decode(&self, bytes: &[u8], out: &mut [f32]) -> Result<(), DecodeError>;
}

/// Bytes of a peer are not an encoded gradient.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("{codec} needs {expected} bytes for this shard, got {got}")]
    Length { codec: &'static str, expected: usize, got: usize },
    #[error("{codec} holds a value at {index} that is not finite")]
    NotFinite { codec: &'static str, index: usize },
    #[error("{codec} names parameter {index} of a shard of {len}")]
    Index { codec: &'static str, index: usize, len: usize },
    #[error("{codec} is cut off at byte {at}")]
    Truncated { codec: &'static str, at: usize },
}

/// The codec of a job; `None` for codec `none`, which sends sums of slots as they are.
pub fn codec(_spec: &GradientSpec) -> Option<Box<dyn Codec>> {
    None
}
#[allow(unused)]
fn _unused(_: &ShardMap) {}
