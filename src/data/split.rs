//! Which rows of a file are kept for testing.

use std::fmt;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// Keeps this draw apart from whatever else is drawn from the seed of a job.
const DRAW_CONTEXT: &str = "gradmesh 2026-11-24 test rows of a data set";

/// A part of the rows `0..rows`, one bit a row.
#[derive(Clone, PartialEq)]
pub(super) struct RowSet {
    words: Vec<u64>,
    rows: usize,
}

impl RowSet {
    /// Draws `count` of `rows` rows, each such set with the same probability; the same set for the
    /// same arguments, on every machine.
    ///
    /// Floyd's algorithm (Bentley and Floyd, "A sample of brilliance", CACM 30 (9), 1987): it needs
    /// `count` draws, and no permutation of all rows in memory. The numbers come from ChaCha8 under
    /// a key that BLAKE3 derives from the seed.
    pub(super) fn draw(rows: usize, count: usize, seed: u64) -> Self {
        assert!(count <= rows, "{count} of {rows} rows can't be drawn");
        let key = blake3::derive_key(DRAW_CONTEXT, &seed.to_le_bytes());
        let mut rng = ChaCha8Rng::from_seed(key);
        let mut set = Self { words: vec![0; rows.div_ceil(64)], rows };
        for last in rows - count..rows {
            let row = draw_up_to(&mut rng, last as u64) as usize;
            set.insert(if set.contains(row) { last } else { row });
        }
        set
    }

    pub(super) fn contains(&self, row: usize) -> bool {
        self.words[row / 64] >> (row % 64) & 1 == 1
    }

    /// The rows that are in the set (`true`) or out of it, in ascending order.
    pub(super) fn rows(&self, inside: bool) -> impl Iterator<Item = usize> + '_ {
        (0..self.rows).filter(move |&row| self.contains(row) == inside)
    }

    fn insert(&mut self, row: usize) {
        self.words[row / 64] |= 1 << (row % 64);
    }
}

impl fmt::Debug for RowSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inside: u32 = self.words.iter().map(|word| word.count_ones()).sum();
        write!(f, "RowSet({inside} of {} rows)", self.rows)
    }
}

/// A number of `0..=last`, each with the same probability: the 64-bit numbers beyond the last whole
/// multiple of `last + 1` are drawn again, since their remainders would favour the small ones.
fn draw_up_to(rng: &mut impl Rng, last: u64) -> u64 {
    let Some(count) = last.checked_add(1) else {
        return rng.next_u64();
    };
    // 2^64 modulo count: as many numbers are too many.
    let surplus = count.wrapping_neg() % count;
    loop {
        let number = rng.next_u64();
        if number <= u64::MAX - surplus {
            return number % count;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pair_of_rows_is_drawn_equally_often() {
        let mut seen = std::collections::BTreeMap::new();
        for seed in 0..6_000 {
            let pair: Vec<_> = RowSet::draw(4, 2, seed).rows(true).collect();
            *seen.entry(pair).or_insert(0_i32) += 1;
        }
        // Six pairs, 1,000 each on average with a deviation of 29; five deviations are allowed.
        assert_eq!(seen.len(), 6);
        assert!(seen.values().all(|count| (count - 1_000).abs() < 145), "{seen:?}");
    }

    /// The rows of a published model's test set must not change with a version of gradmesh.
    #[test]
    fn the_draw_of_a_seed_never_changes() {
        let drawn: Vec<_> = RowSet::draw(100, 5, 7).rows(true).collect();
        assert_eq!(drawn, [10, 14, 26, 30, 47]);
    }

    #[test]
    fn all_rows_and_no_row_can_be_drawn() {
        assert_eq!(RowSet::draw(65, 65, 1).rows(false).count(), 0);
        assert_eq!(RowSet::draw(65, 0, 1).rows(true).count(), 0);
    }

    /// The answers are the next words of a fixed stream, so a skewed choice shows.
    #[test]
    fn numbers_beyond_the_last_whole_multiple_are_drawn_again() {
        struct Fixed(Vec<u64>);
        impl rand_chacha::rand_core::TryRng for Fixed {
            type Error = std::convert::Infallible;
            fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
                unreachable!("draws take 64 bits")
            }
            fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
                Ok(self.0.pop().unwrap())
            }
            fn try_fill_bytes(&mut self, _: &mut [u8]) -> Result<(), Self::Error> {
                unreachable!("draws take 64 bits")
            }
        }
        // 2^64 = 3 · k + 1: only the largest number is too many.
        assert_eq!(draw_up_to(&mut Fixed(vec![4, u64::MAX]), 2), 1);
        assert_eq!(draw_up_to(&mut Fixed(vec![4, u64::MAX - 1]), 2), 2);
    }
}
