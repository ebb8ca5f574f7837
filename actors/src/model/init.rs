//! Initial parameters, by seed, any range of them without the rest.

use std::f64::consts::TAU;
use std::ops::Range;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::allocation::{NoMemory, zeros};
use crate::layout::{Init, Layout};

/// Values `range` of the flat space before step 0, for a seed.
///
/// Value number `i` of tensor number `n` is drawn from a fixed place of stream `n` of ChaCha8, so
/// a shard draws its own part and gets the bits that the whole space has there. `seed` is hashed
/// with this purpose: other draws of the same seed share nothing with it.
///
/// # Errors
/// There is no memory for so many values.
///
/// # Panics
/// If the range is not of the layout.
pub fn initialise(layout: &Layout, seed: u64, range: Range<usize>) -> Result<Vec<f32>, NoMemory> {
    assert!(range.end <= layout.len(), "{range:?} of {} parameters", layout.len());
    let key = blake3::derive_key("gradmesh initial parameters, version 1", &seed.to_le_bytes());
    let mut random = ChaCha8Rng::from_seed(key);
    let mut values = zeros(range.len())?;
    for (index, tensor) in layout.tensors().iter().enumerate() {
        let place = layout.range(index);
        let start = range.start.max(place.start);
        let end = range.end.min(place.end);
        if start >= end {
            continue;
        }
        random.set_stream(index as u64);
        let part = &mut values[start - range.start..end - range.start];
        fill(part, tensor.init, start - place.start, &mut random);
    }
    Ok(values)
}

/// Draws the values of a tensor from its value number `first` on.
fn fill(values: &mut [f32], init: Init, first: usize, random: &mut ChaCha8Rng) {
    match init {
        Init::Zeros => {}
        Init::Glorot { fan_in, fan_out } => {
            let limit = (6.0 / fan_in.saturating_add(fan_out).max(1) as f64).sqrt();
            random.set_word_pos(first as u128);
            for value in values {
                *value = (limit * (2.0 * uniform(random) - 1.0)) as f32;
            }
        }
        Init::He { fan_in } => {
            let deviation = (2.0 / fan_in.max(1) as f64).sqrt();
            // Two words a value: Box and Muller's second value is left unused, so that where a
            // value is drawn from depends on its own number only.
            random.set_word_pos(2 * first as u128);
            for value in values {
                let radius = (-2.0 * uniform(random).ln()).sqrt();
                let angle = TAU * uniform(random);
                *value = (deviation * radius * angle.cos()) as f32;
            }
        }
    }
}

/// Uniform over the middles of 2³² even parts of 0 to 1: never 0, never 1, mean exactly ½.
fn uniform(random: &mut ChaCha8Rng) -> f64 {
    (f64::from(random.next_u32()) + 0.5) / 4_294_967_296.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::TensorSpec;

    fn layout() -> Layout {
        Layout::new(vec![
            TensorSpec::new("glorot", vec![100, 50], Init::Glorot { fan_in: 100, fan_out: 50 }),
            TensorSpec::new("zeros", vec![50], Init::Zeros),
            TensorSpec::new("he", vec![7, 1000], Init::He { fan_in: 8 }),
        ])
        .unwrap()
    }

    fn bits(values: &[f32]) -> Vec<u32> {
        values.iter().map(|value| value.to_bits()).collect()
    }

    fn mean_and_deviation(values: &[f32]) -> (f64, f64) {
        let mean = values.iter().map(|&x| f64::from(x)).sum::<f64>() / values.len() as f64;
        let square = values.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>();
        (mean, (square / values.len() as f64).sqrt())
    }

    #[test]
    fn any_range_has_the_bits_of_the_whole() {
        let layout = layout();
        let whole = initialise(&layout, 7, 0..layout.len()).unwrap();
        for range in [0..1, 1..17, 63..4999, 4998..5051, 5050..5052, 5001..12_050, 12_049..12_050] {
            let part = initialise(&layout, 7, range.clone()).unwrap();
            assert_eq!(bits(&part), bits(&whole[range.clone()]), "{range:?}");
        }
    }

    #[test]
    fn glorot_is_uniform_within_its_limit() {
        let values = initialise(&layout(), 1, 0..5000).unwrap();
        let limit = (6.0f64 / 150.0).sqrt();
        let (mean, deviation) = mean_and_deviation(&values);
        // Five standard errors of 5,000 draws.
        assert!(mean.abs() < 5.0 * limit / (3.0f64 * 5000.0).sqrt(), "{mean}");
        assert!((deviation / (limit / 3.0f64.sqrt()) - 1.0).abs() < 0.04, "{deviation}");
        let largest = values.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
        assert!(f64::from(largest) <= limit && f64::from(largest) > 0.99 * limit, "{largest}");
    }

    #[test]
    fn he_is_normal_with_its_deviation() {
        let values = initialise(&layout(), 1, 5050..12_050).unwrap();
        let (mean, deviation) = mean_and_deviation(&values);
        assert!(mean.abs() < 5.0 * 0.5 / 7000f64.sqrt(), "{mean}");
        assert!((deviation / 0.5 - 1.0).abs() < 0.05, "{deviation}");
        let within = values.iter().filter(|x| x.abs() < 0.5).count() as f64 / 7000.0;
        assert!((within - 0.6827).abs() < 0.03, "{within} of a normal lie within one deviation");
    }

    #[test]
    fn seeds_and_tensors_differ() {
        let layout = layout();
        assert_ne!(initialise(&layout, 1, 0..9).unwrap(), initialise(&layout, 2, 0..9).unwrap());
        let same = TensorSpec::new("a", vec![9], Init::He { fan_in: 1 });
        let twins =
            Layout::new(vec![same.clone(), TensorSpec { name: "b".into(), ..same }]).unwrap();
        let values = initialise(&twins, 1, 0..18).unwrap();
        assert_ne!(values[..9], values[9..]);
    }

    /// What a seed means must never change: a published run would no longer be repeatable.
    #[test]
    fn seed_zero_draws_these_values_for_ever() {
        let layout = layout();
        let glorot = bits(&initialise(&layout, 0, 0..2).unwrap());
        let he = bits(&initialise(&layout, 0, 5050..5052).unwrap());
        assert_eq!(
            (glorot, he),
            (vec![1_038_376_828, 980_105_527], vec![1_057_344_779, 1_029_669_545])
        );
    }
}
