//! Loops over values with the widest vectors that this processor has.

/// Runs `body` as compiled for AVX-512, or AVX2, where the processor has it; the program itself is
/// compiled for any processor of its kind.
///
/// Only for loops in which each element is computed alone: then the width of the vectors changes
/// no bit, for nothing is fused or added up in another order. What `body` calls must be inlined
/// into it, or stays as narrow as it was.
#[inline]
pub(crate) fn wide<R>(body: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wide_loops_give_the_bits_of_narrow_ones() {
        let values: Vec<f32> = (0..1003).map(|i| (i as f32 * 0.7).sin() * 1e3).collect();
        let narrow: Vec<f32> = values.iter().map(|x| x * 0.3 + x / 7.0 - x.abs().sqrt()).collect();
        let mut out = vec![0.0; values.len()];
        wide(|| {
            out.iter_mut()
                .zip(&values)
                .for_each(|(out, x)| *out = x * 0.3 + x / 7.0 - x.abs().sqrt());
        });
        assert_eq!(out, narrow);
    }
}
