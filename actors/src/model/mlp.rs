//! The multilayer perceptron; without hidden layers, softmax regression or least squares.

use std::ops::Range;

use ndarray::linalg::general_mat_mul;
use ndarray::{Array2, ArrayView1, ArrayView2, ArrayViewMut1, ArrayViewMut2, Zip};
use serde::{Deserialize, Serialize};

use super::kinds::ModelError;
use super::loss::best_class;
use super::{Batch, Model, ModelDescription, Score, Targets};
use crate::job::{Activation, Loss};
use crate::layout::{Init, PARAMETERS_MAX, TensorSpec};

/// Widest layer: embeddings aside, published dense layers end at some 10⁵.
const MAX_WIDTH: usize = 1 << 20;

/// Deepest stack: plain perceptrons stop learning well before.
const MAX_HIDDEN: usize = 64;

/// A larger description is a corrupted one, and would be allocated by whoever believes it.
const MAX_PARAMETERS: usize = PARAMETERS_MAX as usize;

/// What a perceptron is built from; in a [`ModelDescription`], as JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MlpSettings {
    /// Width of a row's input, 1 to 2²⁰, as is each width here.
    pub features: usize,
    /// Classes, or values of a target.
    pub outputs: usize,
    /// Widths of the hidden layers, at most 64 of them.
    pub hidden: Vec<usize>,
    /// After each hidden layer.
    pub activation: Activation,
    pub loss: Loss,
}

/// `z₀ = x`, `zᵢ₊₁ = f(zᵢ Wᵢ + bᵢ)`, the last layer without `f`.
///
/// Tensors: `layer{i}.weight` of shape `[in, out]`, `layer{i}.bias` of shape `[out]`. Weights
/// start by He before a ReLU and by Glorot elsewhere, biases at zero.
#[derive(Clone, Debug)]
pub struct Mlp {
    kind: &'static str,
    settings: MlpSettings,
    layers: Vec<Layer>,
}

/// Where one layer's tensors lie in the flat space.
#[derive(Clone, Debug)]
struct Layer {
    inputs: usize,
    outputs: usize,
    weight: Range<usize>,
    bias: Range<usize>,
}

impl Mlp {
    /// `kind` is what the description says: `mlp`, or `linear` for no hidden layers.
    pub(super) fn new(kind: &'static str, settings: MlpSettings) -> Result<Self, ModelError> {
        let depth = settings.hidden.len();
        if depth > MAX_HIDDEN {
            return Err(ModelError::TooDeep { depth, limit: MAX_HIDDEN });
        }
        let mut widths = vec![settings.features];
        widths.extend(&settings.hidden);
        widths.push(settings.outputs);
        if let Some(&width) = widths.iter().find(|width| !(1..=MAX_WIDTH).contains(*width)) {
            return Err(ModelError::Width { width, limit: MAX_WIDTH });
        }
        let mut layers = Vec::with_capacity(depth + 1);
        let mut start = 0;
        for pair in widths.windows(2) {
            let (inputs, outputs) = (pair[0], pair[1]);
            // No overflow: 65 layers of at most 2⁴⁰ + 2²⁰ parameters.
            let weight = start..start + inputs * outputs;
            let bias = weight.end..weight.end + outputs;
            start = bias.end;
            layers.push(Layer { inputs, outputs, weight, bias });
        }
        if start > MAX_PARAMETERS {
            return Err(ModelError::TooLarge { parameters: start, limit: MAX_PARAMETERS });
        }
        Ok(Self { kind, settings, layers })
    }

    /// Outputs of each layer; the last ones raw.
    fn forward(&self, parameters: &[f32], inputs: ArrayView2<'_, f32>) -> Vec<Array2<f32>> {
        let mut outputs: Vec<Array2<f32>> = Vec::with_capacity(self.layers.len());
        for (index, layer) in self.layers.iter().enumerate() {
            let below = outputs.last().map_or(inputs, |z| z.view());
            let mut z = layer.apply(parameters, below);
            if index + 1 < self.layers.len() {
                self.settings.activation.apply(&mut z);
            }
            outputs.push(z);
        }
        outputs
    }

    /// Raw outputs only, so that a layer's memory is free before the one after the next.
    fn outputs_of(&self, parameters: &[f32], inputs: ArrayView2<'_, f32>) -> Array2<f32> {
        let (first, rest) = (&self.layers[0], &self.layers[1..]);
        let mut z = first.apply(parameters, inputs);
        for layer in rest {
            self.settings.activation.apply(&mut z);
            z = layer.apply(parameters, z.view());
        }
        z
    }
}

impl Model for Mlp {
    fn tensors(&self) -> Vec<TensorSpec> {
        let last = self.layers.len() - 1;
        let tensors = self.layers.iter().enumerate().flat_map(|(index, layer)| {
            let (fan_in, fan_out) = (layer.inputs, layer.outputs);
            let init = match self.settings.activation {
                Activation::Relu if index < last => Init::He { fan_in },
                _ => Init::Glorot { fan_in, fan_out },
            };
            [
                TensorSpec::new(format!("layer{index}.weight"), vec![fan_in, fan_out], init),
                TensorSpec::new(format!("layer{index}.bias"), vec![fan_out], Init::Zeros),
            ]
        });
        tensors.collect()
    }

    fn features(&self) -> usize {
        self.settings.features
    }

    fn outputs(&self) -> usize {
        self.settings.outputs
    }

    /// Backpropagation. With `dᵢ` the gradient by layer `i`'s raw outputs:
    /// `∂W = zᵢᵀ dᵢ`, `∂b = Σ dᵢ` over rows, `dᵢ₋₁ = (dᵢ Wᵀ) ⊙ f′`.
    fn gradient(&self, parameters: &[f32], batch: Batch<'_>, gradient: &mut [f32]) -> f64 {
        let mut outputs = self.forward(parameters, batch.inputs);
        let mut delta = outputs.pop().unwrap_or_default();
        let loss = self.settings.loss.differentiate(&mut delta, batch.targets);
        for layer in self.layers.iter().rev() {
            let below = outputs.pop();
            let inputs = below.as_ref().map_or(batch.inputs, |z| z.view());
            layer.write_gradient(inputs, &delta, gradient);
            if let Some(below) = below {
                delta = layer.propagate(parameters, &delta);
                self.settings.activation.differentiate(&below, &mut delta);
            }
        }
        loss
    }

    fn predict(&self, parameters: &[f32], inputs: ArrayView2<'_, f32>) -> Array2<f32> {
        let mut outputs = self.outputs_of(parameters, inputs);
        self.settings.loss.answer(&mut outputs);
        outputs
    }

    fn evaluate(&self, parameters: &[f32], batch: Batch<'_>) -> Score {
        let mut outputs = self.outputs_of(parameters, batch.inputs);
        let correct = match batch.targets {
            Targets::Classes(classes) => {
                let rows = outputs.rows().into_iter().zip(classes);
                Some(rows.filter(|(row, class)| best_class(*row) == **class as usize).count() as u64)
            }
            Targets::Values(_) => None,
        };
        let loss = self.settings.loss.differentiate(&mut outputs, batch.targets);
        Score { rows: batch.inputs.nrows() as u64, loss, correct }
    }

    fn describe(&self) -> ModelDescription {
        // Numbers, strings and a list of numbers always become JSON.
        let settings = serde_json::to_value(&self.settings).unwrap_or_default();
        ModelDescription { kind: self.kind.to_owned(), settings }
    }
}

impl Layer {
    /// `x W + b`.
    fn apply(&self, parameters: &[f32], inputs: ArrayView2<'_, f32>) -> Array2<f32> {
        let mut outputs = Array2::zeros((inputs.nrows(), self.outputs));
        outputs.assign(&ArrayView1::from(&parameters[self.bias.clone()]));
        general_mat_mul(1.0, &inputs, &self.weight(parameters), 1.0, &mut outputs);
        outputs
    }

    /// Writes `∂W` and `∂b` to their places in the flat gradient.
    fn write_gradient(&self, inputs: ArrayView2<'_, f32>, delta: &Array2<f32>, flat: &mut [f32]) {
        let mut weight = self.weight_mut(flat);
        general_mat_mul(1.0, &inputs.t(), delta, 0.0, &mut weight);
        let mut bias = ArrayViewMut1::from(&mut flat[self.bias.clone()]);
        bias.fill(0.0);
        for row in delta.rows() {
            bias += &row;
        }
    }

    /// `d Wᵀ`.
    fn propagate(&self, parameters: &[f32], delta: &Array2<f32>) -> Array2<f32> {
        let mut below = Array2::zeros((delta.nrows(), self.inputs));
        general_mat_mul(1.0, delta, &self.weight(parameters).t(), 0.0, &mut below);
        below
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
    fn apply(self, values: &mut Array2<f32>) {
        match self {
            // Not `max(0.0)`, which would turn NaN into 0 and hide it from the guard.
            Self::Relu => values.mapv_inplace(|x| if x < 0.0 { 0.0 } else { x }),
            Self::Tanh => values.mapv_inplace(f32::tanh),
            Self::Sigmoid => values.mapv_inplace(|x| 1.0 / (1.0 + (-x).exp())),
        }
    }

    /// Multiplies `delta` by the derivative, which each activation has as a function of its output.
    fn differentiate(self, outputs: &Array2<f32>, delta: &mut Array2<f32>) {
        let elements = Zip::from(delta).and(outputs);
        match self {
            Self::Relu => elements.for_each(|d, &y| *d = if y > 0.0 { *d } else { 0.0 }),
            Self::Tanh => elements.for_each(|d, &y| *d *= 1.0 - y * y),
            Self::Sigmoid => elements.for_each(|d, &y| *d *= y * (1.0 - y)),
        }
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array1, Axis, array, concatenate};

    use super::*;
    use crate::layout::Layout;
    use crate::model::initialise;

    const ACTIVATIONS: [Activation; 3] = [Activation::Relu, Activation::Tanh, Activation::Sigmoid];
    const LOSSES: [Loss; 2] = [Loss::Softmax, Loss::Squared];

    fn mlp(hidden: &[usize], activation: Activation, loss: Loss) -> Mlp {
        let hidden = hidden.to_vec();
        Mlp::new("mlp", MlpSettings { features: 5, outputs: 3, hidden, activation, loss }).unwrap()
    }

    /// Parameters by seed, biases moved off zero so that they matter.
    fn parameters(model: &Mlp) -> Vec<f32> {
        let layout = Layout::new(model.tensors()).unwrap();
        let mut values = initialise(&layout, 3, 0..layout.len()).unwrap();
        for (index, value) in values.iter_mut().enumerate() {
            *value += 0.1 * (index as f32).sin();
        }
        values
    }

    fn inputs(rows: usize) -> Array2<f32> {
        Array2::from_shape_fn((rows, 5), |(row, column)| ((row * 7 + column * 3) as f32).sin())
    }

    /// The loss in `f64`, straight from the formulas.
    fn exact_loss(model: &Mlp, parameters: &[f64], inputs: &Array2<f32>, classes: &[u32]) -> f64 {
        let settings = &model.settings;
        let mut z = inputs.mapv(f64::from);
        for (index, layer) in model.layers.iter().enumerate() {
            let shape = (layer.inputs, layer.outputs);
            let weight = &parameters[layer.weight.clone()];
            let weight = ArrayView2::from_shape(shape, weight).unwrap();
            z = z.dot(&weight) + ArrayView1::from(&parameters[layer.bias.clone()]);
            if index + 1 < model.layers.len() {
                z.mapv_inplace(|x| match settings.activation {
                    Activation::Relu => x.max(0.0),
                    Activation::Tanh => x.tanh(),
                    Activation::Sigmoid => 1.0 / (1.0 + (-x).exp()),
                });
            }
        }
        let one = |row: ArrayView1<'_, f64>, class: usize| match settings.loss {
            Loss::Softmax => row.mapv(f64::exp).sum().ln() - row[class],
            Loss::Squared => {
                let target = Array1::from_shape_fn(3, |c| f64::from(u8::from(c == class)));
                0.5 * (&row - &target).mapv(|x| x * x).sum()
            }
        };
        z.rows().into_iter().zip(classes).map(|(row, &class)| one(row, class as usize)).sum()
    }

    #[test]
    fn loss_and_gradient_agree_with_finite_differences() {
        let (inputs, classes) = (inputs(6), [0, 2, 1, 1, 0, 2]);
        let batch = Batch { inputs: inputs.view(), targets: Targets::Classes(&classes) };
        for hidden in [&[][..], &[4], &[7, 4]] {
            for (activation, loss) in ACTIVATIONS.into_iter().flat_map(|a| LOSSES.map(|l| (a, l))) {
                let model = mlp(hidden, activation, loss);
                let parameters = parameters(&model);
                let mut gradient = vec![f32::NAN; parameters.len()];
                let sum = model.gradient(&parameters, batch, &mut gradient);

                let mut exact: Vec<f64> = parameters.iter().map(|&x| f64::from(x)).collect();
                let expected = exact_loss(&model, &exact, &inputs, &classes);
                assert!((sum - expected).abs() < 1e-5 * expected, "{sum}, expected {expected}");
                for index in 0..exact.len() {
                    let mut at = |shift: f64| {
                        let value = std::mem::replace(
                            &mut exact[index],
                            f64::from(parameters[index]) + shift,
                        );
                        let loss = exact_loss(&model, &exact, &inputs, &classes);
                        exact[index] = value;
                        loss
                    };
                    let slope = (at(1e-5) - at(-1e-5)) / 2e-5;
                    let got = f64::from(gradient[index]);
                    assert!(
                        (got - slope).abs() < 1e-5 * (1.0 + slope.abs()),
                        "{hidden:?} {activation:?} {loss:?}: parameter {index} has {got}, not {slope}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_gradient_is_the_sum_over_its_rows_and_has_the_same_bits_each_time() {
        let model = mlp(&[7], Activation::Tanh, Loss::Softmax);
        let parameters = parameters(&model);
        let (inputs, classes) = (inputs(4), [0, 1, 2, 1]);
        let of = |rows: Range<usize>| {
            let mut gradient = vec![f32::NAN; parameters.len()];
            let inputs = inputs.slice_axis(Axis(0), rows.clone().into());
            let batch = Batch { inputs, targets: Targets::Classes(&classes[rows]) };
            let loss = model.gradient(&parameters, batch, &mut gradient);
            (loss, Array1::from(gradient))
        };
        let whole = of(0..4);
        assert_eq!(whole, of(0..4));
        let (a, b) = (of(0..1), of(1..4));
        assert!((whole.0 - a.0 - b.0).abs() < 1e-6);
        assert!((whole.1 - a.1 - b.1).iter().all(|x| x.abs() < 1e-5));
    }

    #[test]
    fn an_empty_batch_gives_zeros() {
        let model = mlp(&[4], Activation::Relu, Loss::Softmax);
        let parameters = parameters(&model);
        let mut gradient = vec![f32::NAN; parameters.len()];
        let inputs = inputs(0);
        let batch = Batch { inputs: inputs.view(), targets: Targets::Classes(&[]) };
        assert_eq!(model.gradient(&parameters, batch, &mut gradient), 0.0);
        assert!(gradient.iter().all(|&x| x == 0.0));
        assert_eq!(model.predict(&parameters, inputs.view()).dim(), (0, 3));
    }

    #[test]
    fn a_classifier_answers_with_probabilities_and_a_regression_with_values() {
        let rows = inputs(9);
        let classifier = mlp(&[4], Activation::Sigmoid, Loss::Softmax);
        let answer = classifier.predict(&parameters(&classifier), rows.view());
        assert!(answer.sum_axis(Axis(1)).iter().all(|sum| (sum - 1.0).abs() < 1e-6));
        assert!(answer.iter().all(|&p| p > 0.0));

        let regression = mlp(&[], Activation::Relu, Loss::Squared);
        let mut only_bias = vec![0.0; parameters(&regression).len()];
        only_bias[15..].copy_from_slice(&[1.0, -2.0, 30.0]);
        let answer = regression.predict(&only_bias, rows.view());
        assert!(answer.rows().into_iter().all(|row| row == array![1.0, -2.0, 30.0]));
    }

    #[test]
    fn an_answer_does_not_depend_on_the_rows_beside_it() {
        // 300 is more than the matrix product takes at once.
        let model = mlp(&[300, 9], Activation::Relu, Loss::Softmax);
        let (parameters, rows) = (parameters(&model), inputs(20));
        let together = model.predict(&parameters, rows.view());
        let alone: Vec<Array2<f32>> =
            rows.axis_chunks_iter(Axis(0), 1).map(|row| model.predict(&parameters, row)).collect();
        let alone: Vec<ArrayView2<'_, f32>> = alone.iter().map(|row| row.view()).collect();
        assert_eq!(concatenate(Axis(0), &alone).unwrap(), together);
    }

    #[test]
    fn evaluation_counts_right_classes_for_either_loss_and_none_for_values() {
        let rows = inputs(8);
        for loss in LOSSES {
            let model = mlp(&[6], Activation::Relu, loss);
            let parameters = parameters(&model);
            let answers = model.predict(&parameters, rows.view());
            let mut classes: Vec<u32> =
                answers.rows().into_iter().map(|row| best_class(row) as u32).collect();
            classes[3] = (classes[3] + 1) % 3;
            let batch = Batch { inputs: rows.view(), targets: Targets::Classes(&classes) };
            let score = model.evaluate(&parameters, batch);
            let mut gradient = vec![0.0; parameters.len()];
            assert_eq!((score.rows, score.correct), (8, Some(7)));
            assert_eq!(score.loss, model.gradient(&parameters, batch, &mut gradient));

            let values = Batch { targets: Targets::Values(answers.view()), ..batch };
            assert_eq!(model.evaluate(&parameters, values).correct, None);
        }
    }

    #[test]
    fn a_parameter_that_is_not_finite_shows_in_the_gradient() {
        for activation in ACTIVATIONS {
            let model = mlp(&[4], activation, Loss::Softmax);
            let mut parameters = parameters(&model);
            parameters[0] = f32::NAN;
            let mut gradient = vec![0.0; parameters.len()];
            let inputs = inputs(2);
            let batch = Batch { inputs: inputs.view(), targets: Targets::Classes(&[0, 1]) };
            assert!(model.gradient(&parameters, batch, &mut gradient).is_nan(), "{activation:?}");
            assert!(gradient.iter().any(|x| x.is_nan()), "{activation:?}");
        }
    }

    #[test]
    fn hidden_layers_start_by_he_before_a_relu_and_all_else_by_glorot() {
        let inits = |activation| {
            let tensors = mlp(&[4], activation, Loss::Softmax).tensors();
            tensors.into_iter().map(|tensor| tensor.init).collect::<Vec<_>>()
        };
        let glorot = |fan_in, fan_out| Init::Glorot { fan_in, fan_out };
        let relu = [Init::He { fan_in: 5 }, Init::Zeros, glorot(4, 3), Init::Zeros];
        assert_eq!(inits(Activation::Relu), relu);
        let tanh = [glorot(5, 4), Init::Zeros, glorot(4, 3), Init::Zeros];
        assert_eq!(inits(Activation::Tanh), tanh);
    }
}
