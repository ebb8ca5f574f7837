//! How a sum of gradients is read: as a mean, limited, and with an eye on what is no number.

use crate::vector::wide;

/// The sign's place is the only one that doesn't count to a magnitude. Magnitudes are ordered as
/// their bits are, infinity above all numbers, and what is no number above infinity.
const MAGNITUDE: u32 = 0x7fff_ffff;

/// Sees values go by, without a branch for each: a loop with one stays vector code.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Watch {
    largest: u32,
}

impl Watch {
    #[inline(always)]
    pub(crate) fn see(&mut self, value: f32) {
        self.largest = self.largest.max(value.to_bits() & MAGNITUDE);
    }

    /// Whether all that it saw is.
    #[inline(always)]
    pub(crate) fn is_finite(self) -> bool {
        self.largest < f32::INFINITY.to_bits()
    }
}

/// What is done to each value of a gradient before it counts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reading {
    /// Multiplies it first.
    pub scale: f32,
    /// Then its largest magnitude, at least 0; infinity is no limit.
    pub limit: f32,
}

impl Reading {
    pub const AS_IT_IS: Self = Self { scale: 1.0, limit: f32::INFINITY };

    /// One value. The watch sees it before it is limited, which would make a number of an infinity.
    #[inline(always)]
    pub(crate) fn of(self, value: f32, watch: &mut Watch) -> f32 {
        let scaled = value * self.scale;
        watch.see(scaled);
        if scaled > self.limit {
            self.limit
        } else if scaled < -self.limit {
            -self.limit
        } else {
            scaled
        }
    }

    /// Writes values as they are read; returns whether all were finite before they were limited.
    ///
    /// Of two slices that differ in length the shorter one counts.
    pub(crate) fn read(self, from: &[f32], out: &mut [f32]) -> bool {
        wide(|| {
            let mut watch = Watch::default();
            for (out, &value) in out.iter_mut().zip(from) {
                *out = self.of(value, &mut watch);
            }
            watch.is_finite()
        })
    }

    /// Index of the first value that is not finite once it is scaled.
    pub(crate) fn first_not_finite(self, values: &[f32]) -> Option<usize> {
        values.iter().position(|value| !(value * self.scale).is_finite())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_scaled_then_limited_to_either_side() {
        let mut out = [0.0; 5];
        let reading = Reading { scale: 0.5, limit: 2.0 };
        assert!(reading.read(&[-100.0, -3.0, -0.0, 4.0, 5.0], &mut out));
        assert_eq!(out.map(f32::to_bits), [-2.0, -1.5, -0.0, 2.0, 2.0].map(f32::to_bits));
    }

    #[test]
    fn an_infinity_is_seen_though_it_is_limited_and_so_is_what_is_no_number() {
        for (limit, bad) in
            [(1.0, f32::NAN), (1.0, f32::INFINITY), (f32::INFINITY, f32::NEG_INFINITY)]
        {
            for place in [0, 7, 8, 98] {
                let mut values = [1.0; 99];
                values[place] = bad;
                let reading = Reading { scale: 1.0, limit };
                assert!(!reading.read(&values, &mut [0.0; 99]), "{bad} at {place}");
                assert_eq!(reading.first_not_finite(&values), Some(place));
            }
        }
        // It becomes one only here.
        let reading = Reading { scale: 4.0, limit: 1.0 };
        assert!(!reading.read(&[f32::MAX], &mut [0.0]));
    }

    #[test]
    fn without_scale_and_limit_the_bits_stay() {
        let values = [f32::MAX, f32::MIN, -0.0, 1e-45, 0.1];
        let mut out = [9.0; 5];
        assert!(Reading::AS_IT_IS.read(&values, &mut out));
        assert_eq!(out.map(f32::to_bits), values.map(f32::to_bits));
    }
}
