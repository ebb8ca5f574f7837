//! One dense layer: where its tensors lie, and its three matrix products.

use std::ops::Range;

use ndarray::{Array2, ArrayView1, ArrayView2, ArrayViewMut1, ArrayViewMut2, Zip};

use crate::job::Activation;
use crate::product::{Onto, multiply};

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

    /// Writes `∂W` and `∂b` to their places in the flat gradient.
    pub(super) fn write_gradient(
        &self,
        inputs: ArrayView2<'_, f32>,
        delta: ArrayView2<'_, f32>,
        flat: &mut [f32],
    ) {
        multiply(inputs.t(), delta, Onto::Nothing, self.weight_mut(flat));
        let mut bias = ArrayViewMut1::from(&mut flat[self.bias.clone()]);
        bias.fill(0.0);
        for row in delta.rows() {
            bias += &row;
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

    #[expect(clippy::expect_used, reason = "the range was made from this shape")]
    fn weight_mut<'a>(&self, flat: &'a mut [f32]) -> ArrayViewMut2<'a, f32> {
        let shape = (self.inputs, self.outputs);
        ArrayViewMut2::from_shape(shape, &mut flat[self.weight.clone()])
            .expect("range of this shape")
    }
}

impl Activation {
    pub(super) fn apply(self, mut values: ArrayViewMut2<'_, f32>) {
        match self {
            // Not `max(0.0)`, which would turn NaN into 0 and hide it from the guard.
            Self::Relu => values.mapv_inplace(|x| if x < 0.0 { 0.0 } else { x }),
            Self::Tanh => values.mapv_inplace(f32::tanh),
            Self::Sigmoid => values.mapv_inplace(|x| 1.0 / (1.0 + (-x).exp())),
        }
    }

    /// Multiplies `delta` by the derivative, which each activation has as a function of its output.
    pub(super) fn differentiate(self, outputs: ArrayView2<'_, f32>, delta: ArrayViewMut2<'_, f32>) {
        let elements = Zip::from(delta).and(outputs);
        match self {
            Self::Relu => elements.for_each(|d, &y| *d = if y > 0.0 { *d } else { 0.0 }),
            Self::Tanh => elements.for_each(|d, &y| *d *= 1.0 - y * y),
            Self::Sigmoid => elements.for_each(|d, &y| *d *= y * (1.0 - y)),
        }
    }
}
