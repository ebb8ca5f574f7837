//! Looks for values that are no numbers any more.

use crate::vector::wide;

/// Index of the first value that is infinite or NaN.
pub(crate) fn first_not_finite(values: &[f32]) -> Option<usize> {
    // `&` instead of `all`: without a branch an element it becomes vector code.
    if wide(|| values.iter().fold(true, |finite, x| finite & x.is_finite())) {
        return None;
    }
    values.iter().position(|x| !x.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_several_is_found_wherever_it_lies() {
        assert_eq!(first_not_finite(&[]), None);
        assert_eq!(first_not_finite(&[f32::MAX, f32::MIN, -0.0, 1e-45]), None);
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for index in [0, 7, 8, 98] {
                let mut values = [1.0; 99];
                values[index] = bad;
                values[98] = bad;
                assert_eq!(first_not_finite(&values), Some(index), "{bad}");
            }
        }
    }
}
