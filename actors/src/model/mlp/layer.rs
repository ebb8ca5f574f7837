//! One dense layer: where its tensors lie, and its three matrix products.

use std::ops::Range;

use ndarray::{Array2, ArrayView1, ArrayView2, ArrayViewMut1, ArrayViewMut2, Axis, Zip};

use crate::job::Activation;
use crate::product::{Onto, multiply, multiply_rows};
use crate::vector::wide;

/// Where one layer's tensors lie in the flat space.
#[derive(Clone, Debug)]
pub(super) struct Layer {
    pub(super) inputs: usize,
    pub(super) outputs: usize,
    pub(super) weight: Range<usize>,
    pub(super) bias: Range<usize>,
}

impl Layer {
    /// `x W + b`.
    pub(super) fn apply(&self, parameters: &[f32], inputs: ArrayView2<'_, f32>) -> Array2<f32> {
        let mut outputs = Array2::zeros((inputs.nrows(), self.outputs));
        self.apply_into(parameters, inputs, &mut outputs.view_mut());
        outputs
    }

    /// The same, in memory that is there.
    pub(super) fn apply_into(
        &self,
        parameters: &[f32],
        inputs: ArrayView2<'_, f32>,
        outputs: &mut ArrayViewMut2<'_, f32>,
    ) {
        outputs.assign(&ArrayView1::from(&parameters[self.bias.clone()]));
        multiply(inputs, self.weight(parameters), Onto::Them, outputs.view_mut());
    }

    /// Writes what `∂W` and `∂b` have in `range` of the flat space to `out`, which is as long. Nothing
    /// where they have nothing there.
    pub(super) fn write_gradient(
        &self,
        inputs: ArrayView2<'_, f32>,
        delta: ArrayView2<'_, f32>,
        range: &Range<usize>,
        out: &mut [f32],
    ) {
        let within = |tensor: &Range<usize>| {
            let start = range.start.clamp(tensor.start, tensor.end);
            let end = range.end.clamp(start, tensor.end);
            (start - tensor.start..end - tensor.start, start.wrapping_sub(range.start))
        };
        let (weight, at) = within(&self.weight);
        if !weight.is_empty() {
            let len = weight.len();
            self.write_weight(inputs, delta, weight, &mut out[at..at + len]);
        }
        let (bias, at) = within(&self.bias);
        if !bias.is_empty() {
            sum_rows(delta.slice_axis(Axis(1), bias.clone().into()), &mut out[at..at + bias.len()]);
        }
    }

    /// Elements `part` of `∂W`, row by row. A row of which only some are asked for is computed whole.
    fn write_weight(
        &self,
        inputs: ArrayView2<'_, f32>,
        delta: ArrayView2<'_, f32>,
        part: Range<usize>,
        out: &mut [f32],
    ) {
        let width = self.outputs;
        let mut at = part.start;
        while at < part.end {
            let (row, column) = (at / width, at % width);
            let is_whole = column == 0 && part.end - at >= width;
            let rows = if is_whole { (part.end - at) / width } else { 1 };
            let end = if is_whole { at + rows * width } else { part.end.min((row + 1) * width) };
            let to = &mut out[at - part.start..end - part.start];
            let product = |to: ArrayViewMut2<'_, f32>| {
                multiply_rows(inputs.t(), row..row + rows, delta, Onto::Nothing, to);
            };
            match ArrayViewMut2::from_shape((rows, width), to) {
                Ok(to) => product(to),
                Err(_) => {
                    let mut whole = Array2::zeros((1, width));
                    product(whole.view_mut());
                    let columns = column..column + (end - at);
                    let to = &mut out[at - part.start..end - part.start];
                    ArrayViewMut1::from(to)
                        .assign(&whole.row(0).slice_axis(Axis(0), columns.into()));
                }
            }
            at = end;
        }
    }

    /// `d Wᵀ`.
    pub(super) fn propagate_into(
        &self,
        parameters: &[f32],
        delta: ArrayView2<'_, f32>,
        below: &mut ArrayViewMut2<'_, f32>,
    ) {
        multiply(delta, self.weight(parameters).t(), Onto::Nothing, below.view_mut());
    }

    #[expect(clippy::expect_used, reason = "the range was made from this shape")]
    fn weight<'a>(&self, flat: &'a [f32]) -> ArrayView2<'a, f32> {
        let shape = (self.inputs, self.outputs);
        ArrayView2::from_shape(shape, &flat[self.weight.clone()]).expect("range of this shape")
    }
}

/// Sums over rows, one row after the other.
fn sum_rows(rows: ArrayView2<'_, f32>, sum: &mut [f32]) {
    sum.fill(0.0);
    if let Some(values) = rows.as_slice() {
        let width = sum.len().max(1);
        wide(|| {
            for row in values.chunks_exact(width) {
                sum.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
            }
        });
    } else {
        let mut sum = ArrayViewMut1::from(sum);
        rows.rows().into_iter().for_each(|row| sum += &row);
    }
}

impl Activation {
    pub(super) fn apply(self, mut values: ArrayViewMut2<'_, f32>) {
        // Not `max(0.0)`, which would turn NaN into 0 and hide it from the guard. Signs are as good as
        // random: a branch for each would be guessed wrong half of the time.
        let relu = |x: f32| if x < 0.0 { 0.0 } else { x };
        match (self, values.as_slice_mut()) {
            (Self::Relu, Some(values)) => wide(|| values.iter_mut().for_each(|x| *x = relu(*x))),
            (Self::Relu, None) => values.mapv_inplace(relu),
            (Self::Tanh, _) => values.mapv_inplace(f32::tanh),
            (Self::Sigmoid, _) => values.mapv_inplace(|x| 1.0 / (1.0 + (-x).exp())),
        }
    }

    /// Multiplies `delta` by the derivative, which each activation has as a function of its output.
    pub(super) fn differentiate(
        self,
        outputs: ArrayView2<'_, f32>,
        mut delta: ArrayViewMut2<'_, f32>,
    ) {
        match (delta.as_slice_mut(), outputs.as_slice()) {
            (Some(delta), Some(outputs)) => {
                let elements = delta.iter_mut().zip(outputs);
                wide(|| elements.for_each(|(d, y)| *d = self.derived(*d, *y)));
            }
            _ => Zip::from(delta).and(outputs).for_each(|d, y| *d = self.derived(*d, *y)),
        }
    }

    #[inline(always)]
    fn derived(self, delta: f32, output: f32) -> f32 {
        match self {
            Self::Relu if output > 0.0 => delta,
            Self::Relu => 0.0,
            Self::Tanh => delta * (1.0 - output * output),
            Self::Sigmoid => delta * (output * (1.0 - output)),
        }
    }
}
