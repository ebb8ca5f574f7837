//! Whether what processes tell each other of a shard fits into a frame.

use gradmesh_actors::layout::BLOCK;
use gradmesh_actors::optimizer::Optimizer;
use gradmesh_actors::plan::JobPlan;

use super::NodeError;
use crate::wire::{FRAME_BYTES_MAX, META_BYTES_MAX};

/// Of a frame with a whole shard, for all but its values: the typed part is as long as it may be.
const BESIDE: u64 = META_BYTES_MAX as u64 + (64 << 10);
/// A sum of squares of one block, in the typed part of a message.
const SUM_BYTES: u64 = 9;
/// Of that message, for all but the sums.
const BESIDE_SUMS: u64 = 1 << 10;

/// Checks the job against the limits of frames before anything is trained: a message that is too long
/// is refused each time that it is tried.
///
/// # Errors
/// [`NodeError::ShardTooLong`], with the number of shards that would do.
pub(super) fn check(plan: &JobPlan, replicas: u32) -> Result<(), NodeError> {
    let job = &plan.offer.job;
    let state = Optimizer::new(&job.optimizer, plan.last_version().0).state_names().len() as u64;
    // A copy that is filled gets parameters and state in one frame.
    let vectors = if replicas > 0 { 1 + state } else { 1 };
    let mut most = (FRAME_BYTES_MAX - BESIDE) / (vectors * size_of::<f32>() as u64);
    let shards = plan.shards.len();
    if job.gradient.clip_norm > 0.0 && shards > 1 {
        most = most.min((u64::from(META_BYTES_MAX) - BESIDE_SUMS) / SUM_BYTES * BLOCK as u64);
    }
    // Shards are cut between blocks.
    most -= most % BLOCK as u64;
    let longest = plan.shards.iter().map(|(_, range)| range.len() as u64).max().unwrap_or(0);
    if longest <= most {
        return Ok(());
    }
    let needed = (plan.layout.len() as u64).div_ceil(most - BLOCK as u64);
    Err(NodeError::ShardTooLong { longest, most, shards, needed })
}
