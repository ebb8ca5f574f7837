//! bfloat16: half the bytes, the full range of `f32`, 8 significant bits.

use half::bf16;

use super::{Codec, DecodeError, check_finite, check_length, limited, pieces};
use crate::job::CodecKind;
use crate::layout::ShardMap;

const NAME: &str = "bf16";

/// Two bytes a parameter, rounded to nearest even.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bf16;

impl Codec for Bf16 {
    fn kind(&self) -> CodecKind {
        CodecKind::Bf16
    }

    fn keeps_residual(&self) -> bool {
        false
    }

    fn encode(&self, gradient: &[f32], _residual: &mut [f32], shards: &ShardMap) -> Vec<Vec<u8>> {
        pieces(gradient, shards, |values| {
            let mut bytes = vec![0; 2 * values.len()];
            for (bytes, &value) in bytes.as_chunks_mut().0.iter_mut().zip(values) {
                *bytes = rounded(value).to_le_bytes();
            }
            bytes
        })
    }

    fn decode(&self, bytes: &[u8], out: &mut [f32]) -> Result<(), DecodeError> {
        check_length(NAME, 2 * out.len(), bytes.len())?;
        for (out, bytes) in out.iter_mut().zip(bytes.as_chunks().0) {
            *out = bf16::from_le_bytes(*bytes).to_f32();
        }
        check_finite(NAME, out)
    }
}

/// The nearest finite bfloat16 of what is finite.
pub(super) fn rounded(value: f32) -> bf16 {
    bf16::from_f32(limited(value, bf16::MAX.to_f32_const()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_finite_bfloat_is_its_own_nearest() {
        for bits in 0..=u16::MAX {
            let value = bf16::from_bits(bits);
            if value.is_finite() {
                assert_eq!(rounded(value.to_f32()).to_bits(), bits);
            }
        }
    }

    #[test]
    fn ties_go_to_even() {
        assert_eq!(rounded(f32::from_bits(0x3f80_8000)).to_bits(), 0x3f80);
        assert_eq!(rounded(f32::from_bits(0x3f81_8000)).to_bits(), 0x3f82);
    }

    #[test]
    fn the_largest_float_stays_finite_and_infinity_does_not() {
        assert_eq!(rounded(f32::MAX), bf16::MAX);
        assert_eq!(rounded(f32::NEG_INFINITY), bf16::NEG_INFINITY);
        assert!(rounded(f32::NAN).is_nan());
    }
}
