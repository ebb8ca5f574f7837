//! How a slot's gradient is written to the wire: fewer bytes, the same training.

mod bf16;
mod fp16;
mod int8;
mod top_k;

use std::fmt;

use crate::finite::first_not_finite;
use crate::job::{CodecKind, GradientSpec};
use crate::layout::ShardMap;

/// Writes the gradient of one slot and reads it again. Adding one is a file beside this one and a
/// line in [`codec`].
///
/// What it treats as a unit is a block of [`crate::layout::BLOCK`] parameters or the whole
/// gradient, never a shard: bytes depend on the cut into shards, decoded values don't.
///
/// A gradient that isn't finite must not look finite on the other side: what `encode` writes for
/// one, `decode` refuses. All numbers on the wire are little-endian.
pub trait Codec: Send + Sync + fmt::Debug {
    fn kind(&self) -> CodecKind;

    /// Whether what an encoding lost is added to the slot's next gradient (error feedback).
    fn keeps_residual(&self) -> bool;

    /// Encodes a slot's gradient (the whole flat space) into one piece a shard.
    ///
    /// `residual` has the gradient's length where [`Codec::keeps_residual`], else none. It is
    /// added to the gradient first, and holds afterwards what the encoding lost:
    /// `decoded + residual_after = gradient + residual_before`.
    fn encode(&self, gradient: &[f32], residual: &mut [f32], shards: &ShardMap) -> Vec<Vec<u8>>;

    /// Writes the decoded values of one shard's piece into `out`, all of them.
    ///
    /// # Errors
    /// The bytes are not what `encode` writes for a shard of this length, or a value isn't finite.
    /// `out` then holds anything.
    fn decode(&self, bytes: &[u8], out: &mut [f32]) -> Result<(), DecodeError>;
}

/// Bytes of a peer are not an encoded gradient.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("{codec} needs {expected} bytes for this shard, got {got}")]
    Length { codec: &'static str, expected: usize, got: usize },
    #[error("{codec} holds a value at {index} that is not finite")]
    NotFinite { codec: &'static str, index: usize },
    #[error("{codec} names parameter {index} of a shard of {len}")]
    Index { codec: &'static str, index: u64, len: usize },
    #[error("{codec} announces {count} values for a shard of {len}")]
    Count { codec: &'static str, count: u64, len: usize },
    #[error("{codec} is cut off at byte {at}")]
    Truncated { codec: &'static str, at: usize },
    #[error("{codec} writes a number at byte {at} in more bytes than it needs")]
    Overlong { codec: &'static str, at: usize },
}

/// The codec of a job; `None` for codec `none`, which sends sums of slots as they are.
pub fn codec(spec: &GradientSpec) -> Option<Box<dyn Codec>> {
    match spec.codec {
        CodecKind::None => None,
        CodecKind::Fp16 => Some(Box::new(fp16::Fp16)),
        CodecKind::Bf16 => Some(Box::new(bf16::Bf16)),
        CodecKind::Int8 => Some(Box::new(int8::Int8)),
        CodecKind::TopK => Some(Box::new(top_k::TopK::new(spec.top_k))),
    }
}

/// Encodes each shard's part of a gradient on its own.
fn pieces(gradient: &[f32], shards: &ShardMap, encode: impl Fn(&[f32]) -> Vec<u8>) -> Vec<Vec<u8>> {
    shards.iter().map(|(_, range)| encode(&gradient[range])).collect()
}

fn check_length(codec: &'static str, expected: usize, got: usize) -> Result<(), DecodeError> {
    if got == expected { Ok(()) } else { Err(DecodeError::Length { codec, expected, got }) }
}

fn check_finite(codec: &'static str, values: &[f32]) -> Result<(), DecodeError> {
    match first_not_finite(values) {
        None => Ok(()),
        Some(index) => Err(DecodeError::NotFinite { codec, index }),
    }
}

/// Limits what is finite to `±largest`, so that rounding to a narrower type can't make it
/// infinite; what isn't finite stays so.
fn limited(x: f32, largest: f32) -> f32 {
    if x.is_finite() { x.clamp(-largest, largest) } else { x }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::layout::{BLOCK, Init, Layout, TensorSpec};

    /// Large enough for five shards, with a short last block.
    const LEN: usize = 5 * BLOCK + 77;

    const KINDS: [CodecKind; 4] =
        [CodecKind::Fp16, CodecKind::Bf16, CodecKind::Int8, CodecKind::TopK];

    fn codecs() -> impl Iterator<Item = Box<dyn Codec>> {
        KINDS.into_iter().filter_map(|kind| codec(&spec(kind)))
    }

    fn spec(codec: CodecKind) -> GradientSpec {
        GradientSpec { clip_value: 0.0, clip_norm: 0.0, codec, top_k: 0.05 }
    }

    fn shards(count: usize) -> ShardMap {
        let tensor = TensorSpec::new("w", vec![LEN], Init::Zeros);
        ShardMap::new(&Layout::new(vec![tensor]).unwrap(), count).unwrap()
    }

    fn new_residual(codec: &dyn Codec) -> Vec<f32> {
        if codec.keeps_residual() { vec![0.0; LEN] } else { Vec::new() }
    }

    /// Encodes, decodes piece by piece, and puts the pieces together.
    fn round_trip(
        codec: &dyn Codec,
        gradient: &[f32],
        residual: &mut [f32],
        shards: &ShardMap,
    ) -> Result<Vec<f32>, DecodeError> {
        let pieces = codec.encode(gradient, residual, shards);
        assert_eq!(pieces.len(), shards.len());
        let mut out = vec![f32::NAN; gradient.len()];
        for ((_, range), piece) in shards.iter().zip(&pieces) {
            codec.decode(piece, &mut out[range])?;
        }
        Ok(out)
    }

    fn bits(values: &[f32]) -> Vec<u32> {
        values.iter().map(|value| value.to_bits()).collect()
    }

    /// Finite values over many magnitudes, zeros of both signs among them.
    fn value() -> impl Strategy<Value = f32> {
        prop_oneof![
            4 => -1.0f32..1.0,
            1 => Just(0.0f32),
            1 => Just(-0.0f32),
            1 => any::<f32>().prop_filter("finite", |x| x.is_finite() && x.abs() < 1e37),
        ]
    }

    fn gradient() -> impl Strategy<Value = Vec<f32>> {
        prop::collection::vec(value(), LEN)
    }

    #[test]
    fn none_is_no_codec_and_each_other_kind_is_its_own() {
        assert!(codec(&spec(CodecKind::None)).is_none());
        assert!(codecs().map(|codec| codec.kind()).eq(KINDS));
    }

    #[test]
    fn zeros_stay_zeros() {
        for codec in codecs() {
            let mut residual = new_residual(&*codec);
            let out = round_trip(&*codec, &[0.0; LEN], &mut residual, &shards(2)).unwrap();
            assert!(out.iter().chain(&residual).all(|&x| x == 0.0), "{codec:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn the_cut_into_shards_changes_no_decoded_bit_and_no_residual(
            first in gradient(), second in gradient(),
        ) {
            for codec in codecs() {
                let run = |count| {
                    let mut residual = new_residual(&*codec);
                    let shards = shards(count);
                    let first = round_trip(&*codec, &first, &mut residual, &shards).unwrap();
                    let second = round_trip(&*codec, &second, &mut residual, &shards).unwrap();
                    [bits(&first), bits(&second), bits(&residual)]
                };
                let whole = run(1);
                for count in [2, 3, 5] {
                    prop_assert_eq!(&run(count), &whole, "{:?}, {} shards", codec, count);
                }
            }
        }

        #[test]
        fn errors_stay_within_what_the_codec_promises(gradient in gradient()) {
            for codec in codecs().filter(|codec| !codec.keeps_residual()) {
                let out = round_trip(&*codec, &gradient, &mut [], &shards(3)).unwrap();
                let blocks = gradient.chunks(BLOCK).zip(out.chunks(BLOCK));
                for (values, decoded) in blocks {
                    let largest = values.iter().fold(0f32, |largest, x| largest.max(x.abs()));
                    for (value, decoded) in values.iter().zip(decoded) {
                        let bound = match codec.kind() {
                            // Half a unit in the last place; subnormal halves are 2⁻²⁴ apart.
                            CodecKind::Fp16 if value.abs() > 65_504.0 => value.abs() - 65_504.0,
                            CodecKind::Fp16 => (value.abs() / 2048.0).max(2f32.powi(-25)),
                            CodecKind::Bf16 => (value.abs() / 256.0).max(f32::MIN_POSITIVE),
                            _ => (largest / 252.0).max(f32::MIN_POSITIVE),
                        };
                        prop_assert!(
                            (value - decoded).abs() <= bound,
                            "{:?}: {} became {}", codec, value, decoded
                        );
                    }
                }
            }
        }

        #[test]
        fn nothing_is_lost_with_error_feedback(
            steps in prop::collection::vec(gradient(), 1..5),
        ) {
            for codec in codecs().filter(|codec| codec.keeps_residual()) {
                let mut residual = new_residual(&*codec);
                for gradient in &steps {
                    let sums: Vec<f32> =
                        gradient.iter().zip(&residual).map(|(g, r)| r + g).collect();
                    let out =
                        round_trip(&*codec, gradient, &mut residual, &shards(3)).unwrap();
                    let kept = out.iter().zip(&residual).map(|(out, rest)| out + rest);
                    prop_assert!(kept.zip(&sums).all(|(kept, sum)| kept == *sum));
                }
            }
        }

        #[test]
        fn random_bytes_never_panic_and_never_decode_to_what_is_not_finite(
            bytes in prop::collection::vec(any::<u8>(), 0..700),
            len in 1usize..600,
        ) {
            for codec in codecs() {
                let mut out = vec![0.0; len];
                if codec.decode(&bytes, &mut out).is_ok() {
                    prop_assert!(out.iter().all(|x| x.is_finite()));
                }
            }
        }

        #[test]
        fn a_damaged_piece_never_panics_and_a_piece_of_another_length_is_refused(
            gradient in gradient(), at in any::<prop::sample::Index>(), byte in any::<u8>(),
        ) {
            for codec in codecs() {
                let mut residual = new_residual(&*codec);
                let piece = codec.encode(&gradient, &mut residual, &shards(1)).remove(0);
                let mut out = vec![0.0; LEN];

                let mut damaged = piece.clone();
                damaged[at.index(piece.len())] = byte;
                if codec.decode(&damaged, &mut out).is_ok() {
                    prop_assert!(out.iter().all(|x| x.is_finite()));
                }
                prop_assert!(codec.decode(&piece[..at.index(piece.len())], &mut out).is_err());
                let longer = [&piece[..], &[byte]].concat();
                prop_assert!(codec.decode(&longer, &mut out).is_err());
            }
        }

        #[test]
        fn one_value_that_is_not_finite_is_refused_by_the_shard_that_gets_it(
            mut gradient in gradient(),
            at in 0..LEN,
            bad in prop::sample::select(vec![f32::NAN, f32::INFINITY, f32::NEG_INFINITY]),
        ) {
            gradient[at] = bad;
            for codec in codecs() {
                let mut residual = new_residual(&*codec);
                let refused = round_trip(&*codec, &gradient, &mut residual, &shards(3));
                prop_assert!(
                    matches!(refused, Err(DecodeError::NotFinite { .. })), "{:?}", codec
                );
            }
        }
    }
}
