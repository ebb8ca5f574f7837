//! The exact global norm of a step's gradient: the same bits however the shards are cut.

use std::collections::BTreeMap;

use crate::ids::{ShardId, Version};
use crate::layout::BLOCK;
use crate::messages::{NormError, NormPart};
use crate::planted::{self, Bug};
use crate::shard::EARLIER_KEPT;

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
    /// Blocks of each shard.
    blocks: Vec<usize>,
    /// Sums by step, shard by shard: of the steps in which a shard can be.
    rounds: BTreeMap<Version, Round>,
}

/// One step's sums.
#[derive(Clone, Debug)]
struct Round {
    /// Shard by shard.
    parts: Vec<Option<Vec<f64>>>,
    whole: Option<f64>,
}

/// Shards are at most so many versions apart: each keeps as many for the slowest one.
const APART_MAX: u64 = EARLIER_KEPT as u64;

/// Largest sum of squares of a block of finite values: exact in f64.
const BLOCK_SUM_MAX: f64 = f32::MAX as f64 * f32::MAX as f64 * BLOCK as f64;

impl NormRounds {
    /// `blocks` are the numbers of blocks of the shards, in shard order.
    pub fn new(blocks: Vec<usize>) -> Self {
        Self { blocks, rounds: BTreeMap::new() }
    }

    /// Whether a shard can be in this step while the first one is at version `at`. What comes late of another
    /// step, a copy of an old request or one of a run that was rolled back, must not displace the sums of these:
    /// whoever has handed them in does not do it twice.
    pub fn is_open(at: Version, step: Version) -> bool {
        at.0.abs_diff(step.0) <= APART_MAX
    }

    /// Takes what one shard knows of a step; returns the sum over all blocks once all are here, or
    /// one shard knew it. `at`: the first shard's version.
    ///
    /// Blocks are added in block order. Repeating a shard's sums changes nothing.
    ///
    /// # Errors
    /// [`NormError::WrongSums`]: no such shard, or not what [`block_sums`] makes of its values.
    /// [`NormError::OutOfWindow`]: nobody can be in that step.
    pub fn add(
        &mut self,
        at: Version,
        step: Version,
        shard: ShardId,
        part: NormPart,
    ) -> Result<Option<f64>, NormError> {
        let place = shard.0 as usize;
        let expected = self.blocks.get(place).copied().unwrap_or(0);
        let blocks: usize = self.blocks.iter().sum();
        let (sums, count, most) = match &part {
            NormPart::Sums(sums) => (sums.as_slice(), expected, BLOCK_SUM_MAX),
            NormPart::Whole(sum) => (std::slice::from_ref(sum), 1, BLOCK_SUM_MAX * blocks as f64),
        };
        let possible = sums.iter().all(|sum| (0.0..=most).contains(sum));
        if expected == 0 || sums.len() != count || !possible {
            return Err(NormError::WrongSums { shard, step, expected, got: sums.len() });
        }
        self.rounds.retain(|of, _| Self::is_open(at, *of));
        if !Self::is_open(at, step) {
            if planted::is(Bug::NormDisplaced) {
                self.rounds.pop_last();
            }
            return match part {
                NormPart::Whole(sum) => Ok(Some(sum)),
                NormPart::Sums(_) => Err(NormError::OutOfWindow { step, version: at }),
            };
        }
        let none = || Round { parts: vec![None; self.blocks.len()], whole: None };
        let round = self.rounds.entry(step).or_insert_with(none);
        match (part, round.parts.get_mut(place)) {
            (NormPart::Whole(sum), _) => round.whole = Some(sum),
            (NormPart::Sums(sums), Some(of_shard)) => *of_shard = Some(sums),
            (NormPart::Sums(_), None) => {}
        }
        let parts = round.parts.iter().map(Option::as_deref).collect::<Option<Vec<_>>>();
        Ok(round.whole.or_else(|| Some(parts?.into_iter().flatten().sum())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sums(values: &[f32]) -> NormPart {
        NormPart::Sums(block_sums(values))
    }

    fn gradient(len: usize) -> Vec<f32> {
        (0..len).map(|i| ((i * 7919) as f32).sin() * 10f32.powi(i as i32 % 9 - 4)).collect()
    }

    #[test]
    fn the_norm_does_not_depend_on_the_cut_or_on_who_comes_first() {
        let values = gradient(10 * BLOCK + 17);
        let whole =
            NormRounds::new(vec![11]).add(Version(0), Version(0), ShardId(0), sums(&values));
        assert!(matches!(whole, Ok(Some(_))));
        for cut in [1, 4, 9] {
            let (left, right) = values.split_at(cut * BLOCK);
            let mut rounds = NormRounds::new(vec![cut, 11 - cut]);
            assert_eq!(rounds.add(Version(0), Version(0), ShardId(1), sums(right)), Ok(None));
            assert_eq!(rounds.add(Version(0), Version(0), ShardId(0), sums(left)), whole);
            assert_eq!(rounds.add(Version(0), Version(0), ShardId(1), sums(right)), whole);
        }
    }

    #[test]
    fn clipping_scales_to_the_norm_and_leaves_smaller_gradients_alone() {
        assert_eq!(clip_factor(25.0, 5.0), 1.0);
        assert_eq!(clip_factor(100.0, 5.0), 0.5);
        assert_eq!(clip_factor(0.0, 5.0), 1.0);
    }

    #[test]
    fn what_comes_late_of_another_step_does_not_displace_those_in_flight() {
        let mut rounds = NormRounds::new(vec![1; 2]);
        let at = Version(50);
        let add = |rounds: &mut NormRounds, step, shard, sum: f64| {
            rounds.add(at, Version(step), ShardId(shard), NormPart::Sums(vec![sum]))
        };
        for step in 48..=52 {
            assert_eq!(add(&mut rounds, step, 1, step as f64), Ok(None));
        }
        for step in [0, 47, 53, 100, u64::MAX] {
            let refused = Err(NormError::OutOfWindow { step: Version(step), version: at });
            assert_eq!(add(&mut rounds, step, 1, 1.0), refused);
            let whole = rounds.add(at, Version(step), ShardId(1), NormPart::Whole(7.0));
            assert_eq!(whole, Ok(Some(7.0)));
        }
        for step in 48..=52 {
            assert_eq!(add(&mut rounds, step, 0, 1.0), Ok(Some(step as f64 + 1.0)));
        }
    }

    #[test]
    fn rounds_of_steps_that_are_over_are_forgotten() {
        let mut rounds = NormRounds::new(vec![1; 2]);
        for step in 0..100 {
            let at = Version(step);
            rounds.add(at, at, ShardId(0), NormPart::Sums(vec![1.0])).unwrap();
            rounds.add(at, at.next(), ShardId(1), NormPart::Sums(vec![1.0])).unwrap();
        }
        assert_eq!(rounds.rounds.len(), 4);
    }

    #[test]
    fn sums_that_no_shard_can_have_are_refused_and_leave_no_round() {
        let mut rounds = NormRounds::new(vec![2, 1]);
        let sums = [vec![], vec![1.0], vec![1.0; 3], vec![1.0, f64::NAN], vec![1.0, -1.0]];
        for sums in sums.into_iter().chain([vec![1.0, f64::INFINITY]]) {
            let (shard, step, expected, got) = (ShardId(0), Version(4), 2, sums.len());
            let refused = rounds.add(step, step, shard, NormPart::Sums(sums));
            assert_eq!(refused, Err(NormError::WrongSums { shard, step, expected, got }));
        }
        for shard in [2, u32::MAX] {
            let refused =
                rounds.add(Version(4), Version(4), ShardId(shard), NormPart::Sums(vec![]));
            assert!(matches!(refused, Err(NormError::WrongSums { expected: 0, .. })));
        }
        assert!(rounds.rounds.is_empty());
    }

    #[test]
    fn one_shard_that_knows_the_whole_sum_answers_for_those_that_have_forgotten() {
        let mut rounds = NormRounds::new(vec![1; 3]);
        rounds.add(Version(7), Version(7), ShardId(0), NormPart::Sums(vec![1.0])).unwrap();
        let whole = rounds.add(Version(7), Version(7), ShardId(2), NormPart::Whole(9.0));
        assert_eq!(whole, Ok(Some(9.0)));
        let again = rounds.add(Version(7), Version(7), ShardId(0), NormPart::Sums(vec![1.0]));
        assert_eq!(again, Ok(Some(9.0)));
        let refused = rounds.add(Version(7), Version(8), ShardId(2), NormPart::Whole(f64::NAN));
        assert!(matches!(refused, Err(NormError::WrongSums { .. })));
    }

    #[test]
    fn the_largest_gradient_that_is_finite_has_a_norm() {
        let sums = sums(&[f32::MAX; BLOCK]);
        assert!(matches!(
            NormRounds::new(vec![1]).add(Version(0), Version(0), ShardId(0), sums),
            Ok(Some(_))
        ));
    }
}
