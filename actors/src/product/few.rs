//! Products of few elements, where a general kernel spends most of its time on copies of what it multiplies.
//!
//! With the same bits: each element is one running sum over the terms of a block, each step fused, and
//! the block is added as a whole.

use ndarray::ArrayView2;
use pulp::x86::V3;
use pulp::{NullaryFnOnce, f32x8};

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
pub(super) struct Few<'a> {
    pub(super) vectors: V3,
    pub(super) a: Strided<'a>,
    pub(super) first_row: usize,
    pub(super) b: &'a [f32],
    pub(super) width: usize,
    pub(super) onto: Onto,
    pub(super) c: &'a mut [f32],
}

/// Not a closure, which is not always inlined into what `vectorize` compiles for these vectors: then each
/// instruction is a call.
impl NullaryFnOnce for Few<'_> {
    type Output = ();

    #[inline(always)]
    fn call(mut self) {
        let mut column = 0;
        while column < self.width {
            // In registers, with a loop of its own for each width.
            column += match self.width - column {
                16.. => self.columns::<16>(column),
                // As many as there are digits: the sums of 8 and 2 wait for their steps side by side.
                10 | 11 => self.columns::<10>(column),
                8.. => self.columns::<8>(column),
                4.. => self.columns::<4>(column),
                2.. => self.columns::<2>(column),
                _ => self.columns::<1>(column),
            };
        }
    }
}

impl Few<'_> {
    /// `W` columns of all rows.
    #[inline(always)]
    fn columns<const W: usize>(&mut self, column: usize) -> usize {
        let height = self.c.len() / self.width;
        let mut row = 0;
        while row < height {
            // Sums that don't wait for each other, so that each may wait for its next step.
            row += match height - row {
                4.. => self.tile::<4, W>(row, column),
                2.. => self.tile::<2, W>(row, column),
                _ => self.tile::<1, W>(row, column),
            };
        }
        W
    }

    /// `R` rows and `W` columns, up to 16.
    #[inline(always)]
    fn tile<const R: usize, const W: usize>(&mut self, row: usize, column: usize) -> usize {
        let Self { vectors, a, first_row, b, width, onto, c } = self;
        let c = &mut c[row * *width + column..];
        let start = (*first_row + row) * a.rows;
        let (mut of_a, mut onto) = (start, *onto);
        let mut at = column;
        while at < b.len() {
            let end = b.len().min(at + BLOCK * *width);
            let mut sums = [[vectors.splat_f32x8(0.0); 2]; R];
            while at < end {
                let Some(b) = b[at..].first_chunk::<W>() else { return R };
                at += *width;
                let b = [load(b, 0), load(b, 8)];
                let mut r = 0;
                while r < R {
                    let a = vectors.splat_f32x8(a.values[of_a + r * a.rows]);
                    sums[r][0] = vectors.mul_add_f32x8(a, b[0], sums[r][0]);
                    if W > 8 {
                        sums[r][1] = vectors.mul_add_f32x8(a, b[1], sums[r][1]);
                    }
                    r += 1;
                }
                of_a += a.columns;
            }
            let mut r = 0;
            while r < R {
                let Some(c) = c[r * *width..].first_chunk_mut::<W>() else { return R };
                if onto == Onto::Them {
                    sums[r][0] = vectors.add_f32x8(load(c, 0), sums[r][0]);
                    sums[r][1] = vectors.add_f32x8(load(c, 8), sums[r][1]);
                }
                store(sums[r][0], c, 0);
                store(sums[r][1], c, 8);
                r += 1;
            }
            onto = Onto::Them;
        }
        R
    }
}

/// Up to eight values from `first` on, and zeros.
#[inline(always)]
fn load<const W: usize>(values: &[f32; W], first: usize) -> f32x8 {
    let mut vector = [0.0; 8];
    let mut at = 0;
    while at < 8 && first + at < W {
        vector[at] = values[first + at];
        at += 1;
    }
    pulp::cast(vector)
}

#[inline(always)]
fn store<const W: usize>(vector: f32x8, values: &mut [f32; W], first: usize) {
    let vector: [f32; 8] = pulp::cast(vector);
    let mut at = 0;
    while at < 8 && first + at < W {
        values[first + at] = vector[at];
        at += 1;
    }
}
