//! The order in which a slot's rows are seen: drawn from (seed, epoch, slot) and nothing else.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::ids::Slot;

/// A permutation of `0..rows` (Fisher and Yates, in Durstenfeld's form).
///
/// # Panics
/// If `rows` exceeds `u32::MAX`: the data set of one slot is far below.
pub fn order(seed: u64, epoch: u64, slot: Slot, rows: usize) -> Vec<u32> {
    let rows = u32::try_from(rows).unwrap_or_else(|_| panic!("{rows} rows in one slot"));
    let mut random = generator("shuffle", &[seed, epoch, u64::from(slot.0)]);
    let mut order: Vec<u32> = (0..rows).collect();
    for last in (1..rows).rev() {
        order.swap(last as usize, below(&mut random, last + 1) as usize);
    }
    order
}

/// A generator for one purpose: the same key, the same stream, on each machine.
pub fn generator(purpose: &str, key: &[u64]) -> ChaCha8Rng {
    let mut hasher = blake3::Hasher::new_derive_key("gradmesh random stream");
    hasher.update(purpose.as_bytes());
    for part in key {
        hasher.update(&part.to_le_bytes());
    }
    ChaCha8Rng::from_seed(*hasher.finalize().as_bytes())
}

/// A number in `0..bound`, unbiased (Lemire, 2019).
pub fn below(random: &mut ChaCha8Rng, bound: u32) -> u32 {
    let threshold = bound.wrapping_neg() % bound;
    loop {
        let product = u64::from(random.next_u32()) * u64::from(bound);
        if product as u32 >= threshold {
            return (product >> 32) as u32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_a_permutation() {
        let mut seen = order(7, 3, Slot(2), 1000);
        seen.sort_unstable();
        assert_eq!(seen, (0..1000).collect::<Vec<u32>>());
    }

    #[test]
    fn seed_epoch_and_slot_each_give_another_order() {
        let base = order(1, 1, Slot(1), 100);
        for other in
            [order(2, 1, Slot(1), 100), order(1, 2, Slot(1), 100), order(1, 1, Slot(2), 100)]
        {
            assert_ne!(other, base);
        }
        assert_eq!(order(1, 1, Slot(1), 100), base);
    }

    #[test]
    fn the_stream_is_the_one_that_trained_models_were_made_with() {
        // Changing the generator would change the digest of every job: this must be noticed.
        assert_eq!(order(1, 0, Slot(0), 10), [5, 0, 3, 2, 1, 6, 9, 4, 7, 8]);
    }

    #[test]
    fn each_position_is_equally_likely() {
        let mut counts = [0u32; 5];
        for epoch in 0..5000 {
            counts[order(1, epoch, Slot(0), 5)[0] as usize] += 1;
        }
        // 1,000 expected, standard deviation 28.
        assert!(counts.iter().all(|&count| (850..1150).contains(&count)), "{counts:?}");
    }
}
