//! The exact global norm of a step's gradient: the same bits however the shards are cut.

use std::collections::BTreeMap;

use crate::ids::{ShardId, Version};
use crate::layout::BLOCK;

/// Sums of squares of each block of a shard's values; f64, so that no gradient overflows it.
pub fn block_sums(values: &[f32]) -> Vec<f64> {
    values.chunks(BLOCK).map(sum_of_squares).collect()
}

/// Eight running sums, added up in a fixed order: fast, and the same bits each time.
fn sum_of_squares(block: &[f32]) -> f64 {
    let mut lanes = [0f64; 8];
    for chunk in block.chunks(8) {
        for (lane, &value) in lanes.iter_mut().zip(chunk) {
            *lane += f64::from(value) * f64::from(value);
        }
    }
    lanes.iter().sum()
}

/// What a gradient is multiplied with so that its L2 norm is at most `clip_norm`; 1 if it is.
///
/// `min(1, C / ‖g‖)` (Pascanu et al., 2013).
pub fn clip_factor(sum_of_squares: f64, clip_norm: f32) -> f32 {
    let norm = sum_of_squares.sqrt();
    let clip = f64::from(clip_norm);
    if norm <= clip { 1.0 } else { (clip / norm) as f32 }
}

/// Collects the block sums of all shards, step by step.
#[derive(Clone, Debug)]
pub struct NormRounds {
    shards: usize,
    /// Sums by step, shard by shard. At most [`ROUNDS_KEPT`].
    rounds: BTreeMap<Version, Vec<Option<Vec<f64>>>>,
}

/// A shard may ask for the step before the one that others are in, never for an older one.
const ROUNDS_KEPT: usize = 3;

impl NormRounds {
    pub fn new(shards: usize) -> Self {
        Self { shards, rounds: BTreeMap::new() }
    }

    /// Takes one shard's block sums of a step; returns the sum over all blocks once all are here.
    ///
    /// Blocks are added in block order. Repeating a shard's sums changes nothing. `None` too for a
    /// shard that doesn't exist.
    pub fn add(&mut self, step: Version, shard: ShardId, sums: Vec<f64>) -> Option<f64> {
        let round = self.rounds.entry(step).or_insert_with(|| vec![None; self.shards]);
        *round.get_mut(shard.0 as usize)? = Some(sums);
        let total = round
            .iter()
            .map(Option::as_deref)
            .collect::<Option<Vec<_>>>()
            .map(|shards| shards.into_iter().flatten().sum());
        while self.rounds.len() > ROUNDS_KEPT {
            // After a rollback, requests of abandoned steps may come late: never forget the round
            // of the step that was asked for.
            match self.rounds.first_key_value() {
                Some((&oldest, _)) if oldest != step => self.rounds.pop_first(),
                _ => self.rounds.pop_last(),
            };
        }
        total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gradient(len: usize) -> Vec<f32> {
        (0..len).map(|i| ((i * 7919) as f32).sin() * 10f32.powi(i as i32 % 9 - 4)).collect()
    }

    #[test]
    fn the_norm_does_not_depend_on_the_cut_or_on_who_comes_first() {
        let values = gradient(10 * BLOCK + 17);
        let whole = NormRounds::new(1).add(Version(0), ShardId(0), block_sums(&values));
        for cut in [1, 4, 9] {
            let (left, right) = values.split_at(cut * BLOCK);
            let mut rounds = NormRounds::new(2);
            assert_eq!(rounds.add(Version(0), ShardId(1), block_sums(right)), None);
            assert_eq!(rounds.add(Version(0), ShardId(0), block_sums(left)), whole);
            assert_eq!(rounds.add(Version(0), ShardId(1), block_sums(right)), whole);
        }
    }

    #[test]
    fn clipping_scales_to_the_norm_and_leaves_smaller_gradients_alone() {
        assert_eq!(clip_factor(25.0, 5.0), 1.0);
        assert_eq!(clip_factor(100.0, 5.0), 0.5);
        assert_eq!(clip_factor(0.0, 5.0), 1.0);
    }

    #[test]
    fn late_requests_of_abandoned_steps_do_not_displace_the_step_in_flight() {
        let mut rounds = NormRounds::new(2);
        for step in 100..110 {
            rounds.add(Version(step), ShardId(1), vec![1.0]);
        }
        assert_eq!(rounds.add(Version(50), ShardId(0), vec![2.0]), None);
        assert_eq!(rounds.add(Version(50), ShardId(1), vec![3.0]), Some(5.0));
    }

    #[test]
    fn old_rounds_are_forgotten() {
        let mut rounds = NormRounds::new(2);
        for step in 0..100 {
            rounds.add(Version(step), ShardId(0), vec![1.0]);
        }
        assert_eq!(rounds.rounds.len(), ROUNDS_KEPT);
    }
}
