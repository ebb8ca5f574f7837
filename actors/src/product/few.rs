//! Products of few elements, where a general kernel spends most of its time on copies of what it multiplies.
//!
//! With the same bits: each element is one running sum over the terms of a block, each step fused, and
//! the block is added as a whole.

use ndarray::ArrayView2;

use super::{BLOCK, Onto};

/// A matrix that lies anywhere in `values`, by its strides.
pub(super) struct Strided<'a> {
    values: &'a [f32],
    rows: usize,
    columns: usize,
}

impl<'a> Strided<'a> {
    /// `None` where it doesn't lie in one piece of memory.
    pub(super) fn of(matrix: &'a ArrayView2<'_, f32>) -> Option<Self> {
        let values = matrix.as_slice_memory_order()?;
        let [rows, columns] = [0, 1].map(|axis| usize::try_from(matrix.strides()[axis]).ok());
        Some(Self { values, rows: rows?, columns: columns? })
    }
}

/// Rows `first_row..` of `a`, as many as `c` has, by `b` into `c`, both row by row and `width` wide.
///
/// Only where a multiplication and an addition are one instruction: this is for inlining into code
/// that is compiled for it.
#[inline(always)]
pub(super) fn multiply(
    a: &Strided<'_>,
    first_row: usize,
    b: &[f32],
    width: usize,
    onto: Onto,
    c: &mut [f32],
) {
    let height = c.len() / width;
    let (mut row, mut few) = (0, Few { a, first_row, b, width, c });
    while row < height {
        // Sums that don't wait for each other, so that each may wait for its next step.
        row += match height - row {
            4.. => few.rows::<4>(row, onto),
            2.. => few.rows::<2>(row, onto),
            _ => few.rows::<1>(row, onto),
        };
    }
}

struct Few<'a, 'b, 'c> {
    a: &'a Strided<'b>,
    first_row: usize,
    b: &'b [f32],
    width: usize,
    c: &'c mut [f32],
}

impl Few<'_, '_, '_> {
    /// `R` rows from `row` on.
    #[inline(always)]
    fn rows<const R: usize>(&mut self, row: usize, onto: Onto) -> usize {
        let mut column = 0;
        while column < self.width {
            // In registers, with a loop of its own for each width.
            column += match self.width - column {
                16.. => self.tile::<R, 16>(row, column, onto),
                // As many as there are digits: the sums of 8 and 2 wait for their steps side by side.
                10 | 11 => self.tile::<R, 10>(row, column, onto),
                8.. => self.tile::<R, 8>(row, column, onto),
                4.. => self.tile::<R, 4>(row, column, onto),
                2.. => self.tile::<R, 2>(row, column, onto),
                _ => self.tile::<R, 1>(row, column, onto),
            };
        }
        R
    }

    /// `R` rows and `W` columns.
    ///
    /// By plain counting: what an iterator calls is not always inlined, and then compiled for any
    /// processor.
    #[inline(always)]
    fn tile<const R: usize, const W: usize>(
        &mut self,
        row: usize,
        column: usize,
        mut onto: Onto,
    ) -> usize {
        let Self { a, first_row, b, width, c } = self;
        let terms = b.len() / *width;
        let mut begin = 0;
        while begin < terms {
            let end = terms.min(begin + BLOCK);
            let mut sums = [[0.0; W]; R];
            let mut term = begin;
            while term < end {
                let Some(b) = b[term * *width + column..].first_chunk::<W>() else { return W };
                let start = (*first_row + row) * a.rows + term * a.columns;
                let mut r = 0;
                while r < R {
                    let a = a.values[start + r * a.rows];
                    let mut w = 0;
                    while w < W {
                        sums[r][w] = a.mul_add(b[w], sums[r][w]);
                        w += 1;
                    }
                    r += 1;
                }
                term += 1;
            }
            let mut r = 0;
            while r < R {
                let c = &mut c[(row + r) * *width + column..];
                let Some(c) = c.first_chunk_mut::<W>() else { return W };
                let mut w = 0;
                while w < W {
                    c[w] = if onto == Onto::Them { c[w] + sums[r][w] } else { sums[r][w] };
                    w += 1;
                }
                r += 1;
            }
            onto = Onto::Them;
            begin = end;
        }
        W
    }
}
