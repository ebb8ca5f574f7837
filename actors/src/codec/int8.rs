//! 8-bit integers with one scale a block: a quarter of the bytes.

use half::bf16;

use super::{Codec, DecodeError, check_finite, check_length, pieces};
use crate::job::CodecKind;
use crate::layout::{BLOCK, ShardMap};

const NAME: &str = "int8";

/// Bytes of the scale before a block's levels.
const SCALE: usize = 2;

/// A block is its scale `s`, then a level `q = round(x / s)` a parameter, -127 to 127; `x ≈ q·s`.
///
/// `s` is the block's largest magnitude over 127 as bfloat16, rounded **up**: two bytes instead of
/// four, the range of `f32` (half precision would lose blocks under 10⁻⁵), and no level can
/// pass 127. That costs at most 0.8 % of resolution: `|x - q·s| ≤ max|x| / 252`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Int8;

impl Codec for Int8 {
    fn kind(&self) -> CodecKind {
        CodecKind::Int8
    }

    fn keeps_residual(&self) -> bool {
        false
    }

    fn encode(&self, gradient: &[f32], _residual: &mut [f32], shards: &ShardMap) -> Vec<Vec<u8>> {
        pieces(gradient, shards, |values| {
            let mut bytes = vec![0; encoded_len(values.len())];
            for (bytes, values) in bytes.chunks_mut(SCALE + BLOCK).zip(values.chunks(BLOCK)) {
                encode_block(values, bytes);
            }
            bytes
        })
    }

    fn decode(&self, bytes: &[u8], out: &mut [f32]) -> Result<(), DecodeError> {
        check_length(NAME, encoded_len(out.len()), bytes.len())?;
        for (out, bytes) in out.chunks_mut(BLOCK).zip(bytes.chunks(SCALE + BLOCK)) {
            let (scale, levels) = bytes.split_at(SCALE);
            let scale = bf16::from_le_bytes([scale[0], scale[1]]).to_f32();
            for (out, &level) in out.iter_mut().zip(levels) {
                *out = f32::from(level.cast_signed()) * scale;
            }
        }
        check_finite(NAME, out)
    }
}

fn encoded_len(values: usize) -> usize {
    values + SCALE * values.div_ceil(BLOCK)
}

fn encode_block(values: &[f32], bytes: &mut [u8]) {
    let (head, levels) = bytes.split_at_mut(SCALE);
    let scale = scale(values);
    head.copy_from_slice(&scale.to_le_bytes());
    let scale = scale.to_f32();
    if scale == 0.0 {
        return;
    }
    for (level, value) in levels.iter_mut().zip(values) {
        *level = nearest(value / scale);
    }
}

/// The smallest bfloat16 not under max|x| / 127; NaN where a value isn't finite, which the decoder
/// refuses.
fn scale(values: &[f32]) -> bf16 {
    // Magnitudes order as their bits do, and integers give vector code that misses no NaN.
    let largest = values.iter().fold(0, |largest, x| largest.max(x.abs().to_bits()));
    let largest = f32::from_bits(largest);
    if !largest.is_finite() {
        return bf16::NAN;
    }
    let bits = (largest / 127.0).to_bits();
    // The upper half of the bits, plus one if anything is cut off. `bits` is far under the top.
    bf16::from_bits(((bits + 0xffff) >> 16) as u16)
}

/// The nearest integer, ties to even, of a level within ±127.
///
/// Adding 1.5·2²³ leaves no bits for a fraction, so the sum's low byte is the integer in two's
/// complement; plain x86-64 has no vector instruction for rounding.
fn nearest(level: f32) -> u8 {
    (level + 12_582_912.0).to_bits() as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(values: &[f32]) -> Result<Vec<f32>, DecodeError> {
        let mut bytes = vec![0; encoded_len(values.len())];
        encode_block(values, &mut bytes);
        let mut out = vec![9.0; values.len()];
        Int8.decode(&bytes, &mut out).map(|()| out)
    }

    #[test]
    fn levels_round_to_nearest_even_in_twos_complement() {
        for (level, expected) in
            [(0.5, 0), (1.5, 2), (-0.5, 0), (-1.5, -2), (-126.6, -127), (127.0, 127)]
        {
            assert_eq!(nearest(level).cast_signed(), expected, "{level}");
        }
    }

    #[test]
    fn an_error_is_at_most_half_a_level_at_any_magnitude() {
        for exponent in -120..=126 {
            let values: Vec<f32> =
                (0..99).map(|i| (i as f32).sin() * 2f32.powi(exponent)).collect();
            let largest = values.iter().fold(0f32, |largest, x| largest.max(x.abs()));
            for (value, back) in values.iter().zip(round_trip(&values).unwrap()) {
                assert!((value - back).abs() <= largest / 252.0, "{value} became {back}");
            }
        }
    }

    #[test]
    fn the_extremes_of_f32_stay_finite() {
        for bits in (f32::MAX.to_bits() - (1 << 23)..=f32::MAX.to_bits()).step_by(97) {
            let largest = f32::from_bits(bits);
            let back = round_trip(&[largest, -largest, 1.0]).unwrap();
            assert!((largest - back[0]).abs() <= largest / 252.0, "{largest} became {back:?}");
        }
        for bits in [1, 60, 71, 190, 1 << 16, 1 << 23] {
            let tiny = f32::from_bits(bits);
            let back = round_trip(&[tiny, -tiny]).unwrap();
            assert!(back[0].abs() <= 2.0 * tiny && back[1] == -back[0], "{tiny:e}: {back:?}");
        }
    }

    #[test]
    fn a_block_with_an_infinity_or_nan_is_refused() {
        for bad in [f32::INFINITY, f32::NEG_INFINITY, f32::NAN] {
            let refused = round_trip(&[1.0, bad, 2.0]);
            assert_eq!(refused, Err(DecodeError::NotFinite { codec: "int8", index: 0 }));
        }
    }

    #[test]
    fn a_push_is_a_quarter_and_the_scales() {
        assert_eq!(encoded_len(2 * BLOCK), 2 * (BLOCK + 2));
        assert_eq!(encoded_len(BLOCK + 1), BLOCK + 1 + 4);
    }
}
