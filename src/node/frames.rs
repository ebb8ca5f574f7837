//! Whether what processes tell each other of a shard fits into a frame.

use gradmesh_actors::layout::BLOCK;
use gradmesh_actors::optimizer::Optimizer;
use gradmesh_actors::plan::JobPlan;

use super::NodeError;
use crate::wire::{FRAME_BYTES_MAX, META_BYTES_MAX};

/// Of a frame with a whole shard, for all but its values: the typed part is as long as it may be.
const BESIDE_VALUES: u64 = META_BYTES_MAX as u64 + (64 << 10);
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
    let (alone, beside) = (longest(vectors), longest(vectors).min(longest_summed()));
    let shards = plan.shards.len();
    let most = if job.gradient.clip_norm > 0.0 && shards > 1 { beside } else { alone };
    let longest = plan.shards.iter().map(|(_, range)| range.len() as u64).max().unwrap_or(0);
    if longest <= most {
        return Ok(());
    }
    // Of those, there is more than one.
    let fits = if job.gradient.clip_norm > 0.0 { beside } else { alone };
    // Shards are cut between blocks, so one may have a block more than another.
    let needed = (plan.layout.len() as u64).div_ceil(fits - BLOCK as u64);
    Err(NodeError::ShardTooLong { longest, most, shards, needed })
}

/// Parameters of the longest shard of which so many vectors fit into a frame.
fn longest(vectors: u64) -> u64 {
    whole_blocks((FRAME_BYTES_MAX - BESIDE_VALUES) / (vectors * size_of::<f32>() as u64))
}

/// Of the longest one of which the sums of squares do, as the norm over several shards needs them.
fn longest_summed() -> u64 {
    (u64::from(META_BYTES_MAX) - BESIDE_SUMS) / SUM_BYTES * BLOCK as u64
}

fn whole_blocks(parameters: u64) -> u64 {
    parameters - parameters % BLOCK as u64
}

#[cfg(test)]
mod tests {
    use gradmesh_actors::ids::{ShardId, Version};
    use gradmesh_actors::messages::{CombineNorm, NormPart};

    use super::*;
    use crate::wire::encode;

    #[test]
    fn the_longest_shard_fits_into_a_frame_and_one_of_a_mebibyte_more_does_not() {
        for vectors in [1, 2, 3] {
            let bytes = |parameters: u64| vectors * parameters * 4 + u64::from(META_BYTES_MAX);
            assert!(bytes(longest(vectors)) < FRAME_BYTES_MAX);
            assert!(bytes(longest(vectors) + (1 << 20)) > FRAME_BYTES_MAX);
        }
    }

    #[test]
    fn the_sums_of_the_longest_shard_fit_into_a_typed_part_and_those_of_one_percent_more_do_not() {
        let bytes = |parameters: u64| {
            let sums = vec![1.0 / 3.0; parameters.div_ceil(BLOCK as u64) as usize];
            let part = NormPart::Sums(sums);
            let message = CombineNorm { step: Version(u64::MAX), shard: ShardId(u32::MAX), part };
            encode(&message).unwrap().0.len()
        };
        assert!(bytes(longest_summed()) <= META_BYTES_MAX as usize);
        assert!(bytes(longest_summed() / 100 * 101) > META_BYTES_MAX as usize);
    }
}
