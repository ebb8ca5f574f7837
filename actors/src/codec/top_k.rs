//! The largest values only; what is left out waits for the next step (error feedback).

use half::bf16;

use super::bf16::rounded;
use super::{Codec, DecodeError, check_finite};
use crate::job::CodecKind;
use crate::layout::ShardMap;

const NAME: &str = "top-k";

/// Sends the `⌈fraction · len⌉` largest magnitudes of gradient plus residual, over the whole flat
/// space; of equal ones those of lower index. What is not sent, and what rounding a sent value
/// lost, is the residual (Stich et al., 2018).
///
/// A piece is the number of its entries, then the entries: parameters skipped since the last
/// entry, and the value as bfloat16. Numbers are LEB128 in as few bytes as they need: at 1 % an
/// entry is about 3.3 bytes. bfloat16 and not half precision because a gradient of any
/// magnitude survives it, and because the rounding error is exact in `f32`: nothing is ever lost.
#[derive(Clone, Copy, Debug)]
pub(super) struct TopK {
    fraction: f64,
}

impl TopK {
    pub(super) fn new(fraction: f64) -> Self {
        Self { fraction }
    }
}

impl Codec for TopK {
    fn kind(&self) -> CodecKind {
        CodecKind::TopK
    }

    fn keeps_residual(&self) -> bool {
        true
    }

    fn encode(&self, gradient: &[f32], residual: &mut [f32], shards: &ShardMap) -> Vec<Vec<u8>> {
        assert_eq!(gradient.len(), residual.len(), "a residual is as long as its gradient");
        for (residual, gradient) in residual.iter_mut().zip(gradient) {
            *residual += gradient;
        }
        let wanted = (self.fraction * gradient.len() as f64).ceil() as usize;
        let mut cutoff = Cutoff::find(residual, wanted.clamp(1, gradient.len()));
        shards.iter().map(|(_, range)| encode(&mut residual[range], &mut cutoff)).collect()
    }

    fn decode(&self, bytes: &[u8], out: &mut [f32]) -> Result<(), DecodeError> {
        out.fill(0.0);
        let len = out.len();
        let mut reader = Reader { bytes, at: 0 };
        let count = reader.number()?;
        if count > len as u64 {
            return Err(DecodeError::Count { codec: NAME, count, len });
        }
        let mut next = 0u64;
        for _ in 0..count {
            let index = next.saturating_add(reader.number()?);
            let value = reader.value()?;
            let place = usize::try_from(index).ok().and_then(|index| out.get_mut(index));
            let place = place.ok_or(DecodeError::Index { codec: NAME, index, len })?;
            *place = value;
            next = index + 1;
        }
        if reader.at < bytes.len() {
            return Err(DecodeError::Length { codec: NAME, expected: reader.at, got: bytes.len() });
        }
        check_finite(NAME, out)
    }
}

/// Takes what the cutoff lets through out of one shard's sums, and writes it.
fn encode(sums: &mut [f32], cutoff: &mut Cutoff) -> Vec<u8> {
    let mut entries = Vec::new();
    let mut count = 0;
    let mut next = 0;
    for (index, sum) in sums.iter_mut().enumerate() {
        if cutoff.passes(*sum) {
            let value = rounded(*sum);
            write_number(&mut entries, (index - next) as u64);
            entries.extend(value.to_le_bytes());
            *sum -= value.to_f32();
            count += 1;
            next = index + 1;
        }
    }
    let mut bytes = Vec::with_capacity(entries.len() + 4);
    write_number(&mut bytes, count);
    bytes.append(&mut entries);
    bytes
}

/// What is large enough to be sent.
#[derive(Debug)]
struct Cutoff {
    /// Bits of the smallest magnitude that is sent.
    magnitude: u32,
    /// How many of exactly this magnitude are still to be sent.
    ties: usize,
}

impl Cutoff {
    /// Finds the magnitude of rank `wanted` among values, digit by digit from the top (radix
    /// selection): exact, three passes whatever the values are, and no copy of them.
    ///
    /// NaN and infinity rank above all numbers, so that they are sent, and refused.
    fn find(values: &[f32], wanted: usize) -> Self {
        const DIGIT: u32 = 0x7ff;
        let mut magnitude = 0;
        let mut known = 0;
        let mut ties = wanted;
        for shift in [22, 11, 0] {
            let mut counts = [0usize; DIGIT as usize + 1];
            for value in values {
                let bits = value.abs().to_bits();
                if bits & known == magnitude {
                    counts[(bits >> shift & DIGIT) as usize] += 1;
                }
            }
            let mut digit = DIGIT;
            while counts[digit as usize] < ties {
                ties -= counts[digit as usize];
                digit -= 1;
            }
            magnitude |= digit << shift;
            known |= DIGIT << shift;
        }
        Self { magnitude, ties }
    }

    /// Asked once for each value, in index order.
    fn passes(&mut self, value: f32) -> bool {
        let bits = value.abs().to_bits();
        if bits == self.magnitude && self.ties > 0 {
            self.ties -= 1;
            return true;
        }
        bits > self.magnitude
    }
}

fn write_number(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn byte(&mut self) -> Result<u8, DecodeError> {
        let at = self.at;
        let byte = self.bytes.get(at).ok_or(DecodeError::Truncated { codec: NAME, at })?;
        self.at += 1;
        Ok(*byte)
    }

    /// At most 63 bits: nine bytes.
    fn number(&mut self) -> Result<u64, DecodeError> {
        let start = self.at;
        let mut number = 0;
        for shift in (0..63).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                let overlong = byte == 0 && shift > 0;
                return if overlong { Err(overlong_at(start)) } else { Ok(number) };
            }
        }
        Err(overlong_at(start))
    }

    fn value(&mut self) -> Result<f32, DecodeError> {
        Ok(bf16::from_le_bytes([self.byte()?, self.byte()?]).to_f32())
    }
}

fn overlong_at(at: usize) -> DecodeError {
    DecodeError::Overlong { codec: NAME, at }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::{Init, Layout, TensorSpec};

    fn one_shard(len: usize) -> ShardMap {
        let tensor = TensorSpec::new("w", vec![len], Init::Zeros);
        ShardMap::new(&Layout::new(vec![tensor]).unwrap(), 1).unwrap()
    }

    /// What is decoded of a gradient with nothing left over from before.
    fn sent(fraction: f64, gradient: &[f32]) -> Vec<f32> {
        let codec = TopK::new(fraction);
        let mut residual = vec![0.0; gradient.len()];
        let pieces = codec.encode(gradient, &mut residual, &one_shard(gradient.len()));
        let mut out = vec![9.0; gradient.len()];
        codec.decode(&pieces[0], &mut out).unwrap();
        out
    }

    fn refusal(bytes: &[u8], len: usize) -> DecodeError {
        TopK::new(0.5).decode(bytes, &mut vec![0.0; len]).unwrap_err()
    }

    #[test]
    fn the_largest_magnitudes_are_sent_and_their_number_rounds_up() {
        assert_eq!(sent(0.5, &[1.0, -4.0, 2.0, 0.5, -3.0]), [0.0, -4.0, 2.0, 0.0, -3.0]);
        assert_eq!(sent(1e-9, &[1.0, -4.0, 2.0]), [0.0, -4.0, 0.0]);
        assert_eq!(sent(1.0, &[1.0, -4.0, 2.0]), [1.0, -4.0, 2.0]);
    }

    #[test]
    fn of_equal_magnitudes_the_first_are_sent() {
        assert_eq!(sent(0.5, &[2.0, -2.0, 3.0, 2.0]), [2.0, 0.0, 3.0, 0.0]);
    }

    #[test]
    fn what_was_left_out_is_sent_later() {
        let codec = TopK::new(0.25);
        let (shards, mut residual) = (one_shard(4), vec![0.0; 4]);
        let mut total = [0.0f32; 4];
        for _ in 0..12 {
            let pieces = codec.encode(&[4.0, 3.0, 2.0, 1.0], &mut residual, &shards);
            let mut out = [0.0; 4];
            codec.decode(&pieces[0], &mut out).unwrap();
            total.iter_mut().zip(out).for_each(|(total, out)| *total += out);
        }
        assert!(total.iter().all(|&sum| sum > 0.0), "{total:?}");
        for ((sum, rest), each) in total.iter().zip(&residual).zip([4.0, 3.0, 2.0, 1.0]) {
            assert_eq!(sum + rest, 12.0 * each);
        }
    }

    #[test]
    fn the_cutoff_is_the_one_that_sorting_finds() {
        let values: Vec<f32> = (0..999).map(|i| (i as f32 * 0.7).tan().powi(5)).collect();
        let mut sorted: Vec<u32> = values.iter().map(|x| x.abs().to_bits()).collect();
        sorted.sort_unstable_by(|a, b| b.cmp(a));
        for wanted in [1, 2, 10, 500, 998, 999] {
            assert_eq!(Cutoff::find(&values, wanted).magnitude, sorted[wanted - 1], "{wanted}");
        }
    }

    #[test]
    fn a_value_that_is_not_finite_is_sent_and_refused() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut residual = vec![0.0; 8];
            let mut gradient = [1.0; 8];
            gradient[5] = bad;
            let codec = TopK::new(0.1);
            let pieces = codec.encode(&gradient, &mut residual, &one_shard(8));
            let refused = codec.decode(&pieces[0], &mut [0.0; 8]);
            assert_eq!(refused, Err(DecodeError::NotFinite { codec: "top-k", index: 5 }));
        }
    }

    #[test]
    fn numbers_come_back_and_take_no_more_bytes_than_they_need() {
        for (number, len) in
            [(0, 1), (127, 1), (128, 2), (16_383, 2), (16_384, 3), (u64::MAX >> 1, 9)]
        {
            let mut bytes = Vec::new();
            write_number(&mut bytes, number);
            assert_eq!(bytes.len(), len);
            assert_eq!(Reader { bytes: &bytes, at: 0 }.number(), Ok(number));
        }
    }

    #[test]
    fn hostile_pieces_are_refused_for_what_is_wrong_with_them() {
        let codec = "top-k";
        // One value of 1.0 (0x3f80) at 2 is `[1, 2, 0x80, 0x3f]`.
        assert_eq!(refusal(&[], 4), DecodeError::Truncated { codec, at: 0 });
        assert_eq!(refusal(&[1, 2, 0x80], 4), DecodeError::Truncated { codec, at: 3 });
        assert_eq!(refusal(&[5], 4), DecodeError::Count { codec, count: 5, len: 4 });
        assert_eq!(refusal(&[1, 4, 0, 0], 4), DecodeError::Index { codec, index: 4, len: 4 });
        assert_eq!(refusal(&[0, 7], 4), DecodeError::Length { codec, expected: 1, got: 2 });
        assert_eq!(refusal(&[0x80, 0], 4), DecodeError::Overlong { codec, at: 0 });
        assert_eq!(refusal(&[0xff; 99], 4), DecodeError::Overlong { codec, at: 0 });
        assert_eq!(refusal(&[1, 0, 0x80, 0x7f], 4), DecodeError::NotFinite { codec, index: 0 });
    }
}
