//! IEEE half precision: half the bytes, 11 significant bits, magnitudes up to 65,504.

use half::f16;
use half::slice::HalfFloatSliceExt;

use super::{Codec, DecodeError, check_finite, check_length, limited, pieces};
use crate::job::CodecKind;
use crate::layout::{BLOCK, ShardMap};

const NAME: &str = "fp16";

/// Two bytes a parameter, rounded to nearest even. Larger magnitudes become ±65,504; those under
/// 6·10⁻⁸ vanish, and under 6·10⁻⁵ precision falls: for such gradients take `bf16`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fp16;

impl Codec for Fp16 {
    fn kind(&self) -> CodecKind {
        CodecKind::Fp16
    }

    fn keeps_residual(&self) -> bool {
        false
    }

    fn encode(&self, gradient: &[f32], _residual: &mut [f32], shards: &ShardMap) -> Vec<Vec<u8>> {
        pieces(gradient, shards, encode)
    }

    fn decode(&self, bytes: &[u8], out: &mut [f32]) -> Result<(), DecodeError> {
        check_length(NAME, 2 * out.len(), bytes.len())?;
        let mut halves = [f16::ZERO; BLOCK];
        for (out, bytes) in out.chunks_mut(BLOCK).zip(bytes.chunks(2 * BLOCK)) {
            let halves = &mut halves[..out.len()];
            for (half, bytes) in halves.iter_mut().zip(bytes.as_chunks().0) {
                *half = f16::from_le_bytes(*bytes);
            }
            halves.convert_to_f32_slice(out);
        }
        check_finite(NAME, out)
    }
}

/// By blocks and not by element, because only slices get the processor's converter.
fn encode(values: &[f32]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(2 * values.len());
    let mut limits = [0.0; BLOCK];
    let mut halves = [f16::ZERO; BLOCK];
    for values in values.chunks(BLOCK) {
        let (limits, halves) = (&mut limits[..values.len()], &mut halves[..values.len()]);
        for (limit, &value) in limits.iter_mut().zip(values) {
            *limit = limited(value, f16::MAX.to_f32_const());
        }
        halves.convert_from_f32_slice(limits);
        bytes.extend(halves.iter().flat_map(|half| half.to_le_bytes()));
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(values: &[f32]) -> Result<Vec<f32>, DecodeError> {
        let mut out = vec![9.0; values.len()];
        Fp16.decode(&encode(values), &mut out).map(|()| out)
    }

    #[test]
    fn every_finite_half_comes_back_as_it_was() {
        let all: Vec<f32> = (0..=u16::MAX)
            .map(|bits| f16::from_bits(bits).to_f32())
            .filter(|x| x.is_finite())
            .collect();
        let back = round_trip(&all).unwrap();
        assert!(all.iter().zip(&back).all(|(a, b)| a.to_bits() == b.to_bits()));
    }

    #[test]
    fn ties_go_to_even() {
        let ulp = 2f32.powi(-10);
        let back = round_trip(&[1.0 + 0.5 * ulp, 1.0 + 1.5 * ulp]).unwrap();
        assert_eq!(back, [1.0, 1.0 + 2.0 * ulp]);
    }

    #[test]
    fn what_is_too_large_becomes_the_largest() {
        assert_eq!(round_trip(&[65_520.0, -1e30]), Ok(vec![65_504.0, -65_504.0]));
    }

    #[test]
    fn an_infinity_is_not_hidden_by_the_limit() {
        let refused = DecodeError::NotFinite { codec: "fp16", index: 1 };
        assert_eq!(round_trip(&[1.0, f32::INFINITY]), Err(refused));
    }
}
