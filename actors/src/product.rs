//! Matrix products, with the same bits whichever kernel computes them.
//!
//! Each element is one running sum over `k`, in blocks of 256 terms, each block fused and added as a
//! whole: so do the kernels of ndarray, and so do those of faer that use AVX-512 and are up to twice
//! as fast, if they are given one block at a time. So it does not matter to the bits which of them a
//! machine has, nor how many rows or columns lie beside an element.

#[cfg(target_arch = "x86_64")]
mod few;

use std::ops::Range;

use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};
use ndarray::linalg::general_mat_mul;
use ndarray::{ArrayView2, ArrayViewMut2, Axis};

/// Terms that ndarray's kernels add up in registers before they go to memory.
const BLOCK: usize = 256;

/// Columns of `c` that are multiplied together: twice as many as faer's AVX-512 kernels have in
/// registers at once, for whatever is left over goes to narrower ones. Given more columns it cuts them
/// by the size of caches, with much left over: 1.1 to 1.2 times the time at the sizes of wide layers;
/// with half as many it packs the other side twice as often, 1.04 times.
const PANEL: usize = 192;
/// Rows of a panel that stay in the second-level cache with their terms, 512 KiB a block.
const ROWS: usize = 512;

/// Shorter sides gain nothing, and are nearest to a vector.
const SIDE_MIN: usize = 8;
/// faer's own threshold, of multiplications.
const OPERATIONS_MIN: usize = 16 * 16 * 16;

/// What becomes of the values that are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Onto {
    /// `c ← a b`.
    Nothing,
    /// `c ← c + a b`.
    Them,
}

/// Multiplies `a`, shape `[m, k]`, and `b`, shape `[k, n]`, into `c`, shape `[m, n]`.
///
/// # Panics
/// If the shapes don't fit.
pub fn multiply(
    a: ArrayView2<'_, f32>,
    b: ArrayView2<'_, f32>,
    onto: Onto,
    c: ArrayViewMut2<'_, f32>,
) {
    multiply_rows(a, 0..a.nrows(), b, onto, c);
}

/// The same of some rows of `a`; `c` has as many.
///
/// # Panics
/// If the shapes don't fit.
pub fn multiply_rows(
    a: ArrayView2<'_, f32>,
    rows: Range<usize>,
    b: ArrayView2<'_, f32>,
    onto: Onto,
    mut c: ArrayViewMut2<'_, f32>,
) {
    let (height, columns) = c.dim();
    let fits = (height, columns) == (rows.len(), b.ncols()) && a.ncols() == b.nrows();
    if fits
        && rows.end <= a.nrows()
        && has_avx512()
        && is_large(height, a.ncols(), columns)
        && let (Some(a), Some(b)) = (borrow(&a), borrow(&b))
        && let Some(values) = c.as_slice_mut()
    {
        let (a, c) = (a.subrows(rows.start, height), &mut *values);
        by_blocks(a, b, onto, MatMut::from_row_major_slice_mut(c, height, columns));
        return clear_upper_halves();
    }
    #[cfg(target_arch = "x86_64")]
    if fits
        && rows.end <= a.nrows()
        && (1..=OPERATIONS_MIN).contains(&height.saturating_mul(columns).saturating_mul(a.ncols()))
        && let (Some(a), Some(b)) = (few::Strided::of(&a), b.as_slice())
        && let Some(c) = c.as_slice_mut()
        // A multiplication and an addition are one instruction, as they are in ndarray's kernels then.
        && let Some(vectors) = pulp::x86::V3::try_new()
    {
        let (first_row, width) = (rows.start, columns);
        return vectors.vectorize(few::Few { vectors, a, first_row, b, width, onto, c });
    }
    let keep = if onto == Onto::Them { 1.0 } else { 0.0 };
    general_mat_mul(1.0, &a.slice_axis(Axis(0), rows.into()), &b, keep, &mut c);
}

/// Whether each block is past what faer has loops of its own for, which add up in another order:
/// vectors, one or two terms, and matrices of few elements.
fn is_large(rows: usize, terms: usize, columns: usize) -> bool {
    let last = terms.saturating_sub(1) % BLOCK + 1;
    let elements = rows.saturating_mul(columns);
    rows.min(columns) >= SIDE_MIN && last > 2 && elements.saturating_mul(last) > OPERATIONS_MIN
}

fn by_blocks(a: MatRef<'_, f32>, b: MatRef<'_, f32>, onto: Onto, mut c: MatMut<'_, f32>) {
    let (terms, (rows, columns)) = (a.ncols(), steps(c.nrows(), c.ncols(), a.ncols()));
    for row in pieces(c.nrows(), rows) {
        let a = a.subrows(row.start, row.len());
        for column in pieces(c.ncols(), columns) {
            let (height, width) = (row.len(), column.len());
            let mut panel = c.as_mut().submatrix_mut(row.start, column.start, height, width);
            let mut onto = if onto == Onto::Them { Accum::Add } else { Accum::Replace };
            for first in (0..terms).step_by(BLOCK) {
                let len = BLOCK.min(terms - first);
                let b = b.submatrix(first, column.start, len, width);
                matmul(panel.as_mut(), onto, a.subcols(first, len), b, 1.0, Par::Seq);
                onto = Accum::Add;
            }
        }
    }
}

/// Rows and columns of a panel; all of them where a panel alone would get one of faer's other loops.
fn steps(rows: usize, columns: usize, terms: usize) -> (usize, usize) {
    let shortest = |all, step| pieces(all, step).map(|piece| piece.len()).min().unwrap_or(0);
    if is_large(shortest(rows, ROWS), terms, shortest(columns, PANEL)) {
        (ROWS, PANEL)
    } else {
        (rows.max(1), columns.max(1))
    }
}

/// Cuts `0..all` at multiples of `step`; what is left over is at least half a step, or joins the
/// piece before.
fn pieces(all: usize, step: usize) -> impl Iterator<Item = Range<usize>> {
    let count = ((all + step / 2) / step).max(1);
    (0..count).map(move |at| at * step..if at + 1 == count { all } else { (at + 1) * step })
}

/// The same matrix there, if it lies in rows without gaps, or is the transpose of one that does.
fn borrow<'a>(matrix: &'a ArrayView2<'_, f32>) -> Option<MatRef<'a, f32>> {
    let (rows, columns) = matrix.dim();
    if let Some(values) = matrix.as_slice() {
        return Some(MatRef::from_row_major_slice(values, rows, columns));
    }
    // In the order of memory, which for a transpose is that of its columns.
    let values = matrix.as_slice_memory_order()?;
    (matrix.strides() == [1, rows as isize])
        .then(|| MatRef::from_column_major_slice(values, rows, columns))
}

/// Whether faer's kernels are the faster ones. Where the processor has them, ndarray's multiply and
/// add in one rounding too.
fn has_avx512() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::is_x86_feature_detected!("avx512f") && std::is_x86_feature_detected!("fma");
    #[cfg(not(target_arch = "x86_64"))]
    return false;
}

/// faer's kernels leave the upper halves of vector registers in use, and a processor then takes some
/// hundred cycles from each piece of code with the instructions that know of these halves to one
/// without, and back: an exponential took 100 ns, and softmax a third of the time of a small model.
fn clear_upper_halves() {
    #[cfg(target_arch = "x86_64")]
    if let Some(vectors) = pulp::x86::V3::try_new() {
        vectors.avx._mm256_zeroupper();
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array2, Slice};
    use proptest::prelude::*;

    use super::*;

    fn matrix(rows: usize, columns: usize, seed: u64) -> Array2<f32> {
        Array2::from_shape_fn((rows, columns), |(row, column)| {
            let place = (row * columns + column) as u64 + seed;
            // Magnitudes far apart, so that another order gives other bits.
            ((place % 977) as f32 * 0.37).sin() * 10f32.powi((place % 5) as i32)
        })
    }

    fn bits(matrix: &Array2<f32>) -> Vec<u32> {
        matrix.iter().map(|value| value.to_bits()).collect()
    }

    fn side() -> impl Strategy<Value = usize> {
        prop_oneof![3 => 0usize..40, 1 => 60usize..70, 1 => 250usize..260]
    }

    fn terms() -> impl Strategy<Value = usize> {
        prop_oneof![0usize..130, 250usize..262, 500usize..530, 600usize..1030]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        /// Sizes on both sides of what kernels, registers and caches take at once.
        #[test]
        fn the_bits_are_those_of_ndarray_whatever_the_shape(
            (m, k, n) in prop_oneof![
                (side(), terms(), side()),
                (1usize..24, 1usize..24, 1usize..24),
                (1usize..4, 200usize..600, 1usize..4),
            ],
            turned in any::<[bool; 2]>(), onto in prop::sample::select(&[Onto::Nothing, Onto::Them][..]),
        ) {
            let a = if turned[0] { matrix(k, m, 1).reversed_axes() } else { matrix(m, k, 1) };
            let b = if turned[1] { matrix(n, k, 2).reversed_axes() } else { matrix(k, n, 2) };
            let (mut ours, mut theirs) = (matrix(m, n, 3), matrix(m, n, 3));
            multiply(a.view(), b.view(), onto, ours.view_mut());
            let keep = if onto == Onto::Them { 1.0 } else { 0.0 };
            general_mat_mul(1.0, &a, &b, keep, &mut theirs);
            prop_assert_eq!(bits(&ours), bits(&theirs));
        }

        #[test]
        fn a_row_does_not_depend_on_those_beside_it(
            k in terms(), n in side(), first in 0usize..30, rows in 1usize..40,
        ) {
            let (a, b) = (matrix(80, k, 1), matrix(k, n, 2));
            let mut whole = Array2::zeros((80, n));
            multiply(a.view(), b.view(), Onto::Nothing, whole.view_mut());
            let part = Slice::from(first..first + rows);
            let mut alone = Array2::zeros((rows, n));
            multiply(a.slice_axis(Axis(0), part), b.view(), Onto::Nothing, alone.view_mut());
            prop_assert_eq!(bits(&alone), bits(&whole.slice_axis(Axis(0), part).to_owned()));
            let turned = a.t().as_standard_layout().into_owned();
            for a in [a.view(), turned.t()] {
                alone.fill(f32::NAN);
                multiply_rows(a, first..first + rows, b.view(), Onto::Nothing, alone.view_mut());
                prop_assert_eq!(bits(&alone), bits(&whole.slice_axis(Axis(0), part).to_owned()));
            }
        }
    }

    #[test]
    fn pieces_lie_side_by_side_and_none_is_short() {
        let lengths = |all| pieces(all, 96).map(|piece| piece.len()).collect::<Vec<_>>();
        assert_eq!(lengths(0), [0]);
        assert_eq!(lengths(47), [47]);
        assert_eq!(lengths(143), [143]);
        assert_eq!(lengths(144), [96, 48]);
        assert_eq!(lengths(2048).len(), 21);
        assert_eq!(lengths(2048).iter().sum::<usize>(), 2048);
    }

    #[test]
    fn the_bits_are_those_of_ndarray_where_rows_and_columns_are_cut() {
        let edges = [1, 2, 7, 8, 15, 47, 48, 49, 95, 96];
        let wide = edges.map(|left| (9 + left, 3 + left, 2 * PANEL + left));
        let tall = edges.map(|left| (ROWS + 5 * left, 258 + left, PANEL + left));
        for (m, k, n) in wide.into_iter().chain(tall).chain([(2 * ROWS + 300, 300, 1000)]) {
            let (a, b) = (matrix(m, k, 1), matrix(k, n, 2));
            let mut ours = Array2::zeros((m, n));
            multiply(a.view(), b.view(), Onto::Nothing, ours.view_mut());
            assert_eq!(bits(&ours), bits(&a.dot(&b)), "{m} × {k} by {k} × {n}");
        }
    }

    #[test]
    fn matrices_with_gaps_are_multiplied_too() {
        let (a, b) = (matrix(9, 20, 1), matrix(20, 8, 2));
        let every_second = Slice::new(0, None, 2);
        let (gaps, mut ours) = (a.slice_axis(Axis(1), every_second), Array2::zeros((9, 8)));
        let b = b.slice_axis(Axis(0), Slice::from(..10));
        multiply(gaps, b, Onto::Nothing, ours.view_mut());
        assert_eq!(ours, gaps.dot(&b));
        assert!(borrow(&gaps).is_none());
    }
}
