//! The multilayer perceptron; without hidden layers, softmax regression or least squares.

mod backpropagation;
mod layer;

use std::sync::Arc;

use ndarray::{Array2, ArrayView2};
use serde::{Deserialize, Serialize};

use super::kinds::ModelError;
use super::loss::best_class;
use super::{Backward, Batch, Model, ModelDescription, Score, Targets};
use crate::job::{Activation, Loss};
use crate::layout::{Init, PARAMETERS_MAX, TensorSpec};

use backpropagation::Backpropagation;
use layer::Layer;

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

    /// Raw outputs only, so that a layer's memory is free before the one after the next.
    fn outputs_of(&self, parameters: &[f32], inputs: ArrayView2<'_, f32>) -> Array2<f32> {
        let (first, rest) = (&self.layers[0], &self.layers[1..]);
        let mut z = first.apply(parameters, inputs);
        for layer in rest {
            self.settings.activation.apply(z.view_mut());
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

    fn gradient(&self, parameters: &[f32], batch: Batch<'_>, gradient: &mut [f32]) -> f64 {
        let mut backpropagation = Backpropagation::new(Arc::new(self.clone()));
        backpropagation.run(parameters, batch);
        let rows = 0..batch.inputs.nrows();
        backpropagation.gradient(parameters, batch, rows.clone(), 0..gradient.len(), gradient);
        backpropagation.loss(rows)
    }

    fn backward(&self) -> Option<Box<dyn Backward>> {
        Some(Box::new(Backpropagation::new(Arc::new(self.clone()))))
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
        let mut losses = Vec::new();
        self.settings.loss.differentiate(outputs.view_mut(), batch.targets, &mut losses);
        let loss = losses.iter().sum();
        Score { rows: batch.inputs.nrows() as u64, loss, correct }
    }

    fn describe(&self) -> ModelDescription {
        // Numbers, strings and a list of numbers always become JSON.
        let settings = serde_json::to_value(&self.settings).unwrap_or_default();
        ModelDescription { kind: self.kind.to_owned(), settings }
    }
}

#[cfg(test)]
mod tests;
