//! Forward and backward over a batch, and the gradients of parts of it.

use std::ops::Range;
use std::sync::Arc;

use ndarray::{Array2, ArrayView2, Axis, Slice};

use super::Mlp;
use crate::model::{Backward, Batch};

const ROWS: Axis = Axis(0);

/// What the layers put out for the rows of one batch, and the gradients of the losses by that.
///
/// With `dᵢ` the gradient by layer `i`'s raw outputs: `∂W = zᵢᵀ dᵢ`, `∂b = Σ dᵢ` over rows,
/// `dᵢ₋₁ = (dᵢ Wᵀ) ⊙ f′`. Only the first two take a sum over rows. All else is done for each row
/// alone, so that its bits don't depend on the rows beside it: one product over all rows packs the
/// weights once, where one for each part would do it again.
#[derive(Debug)]
pub(super) struct Backpropagation {
    model: Arc<Mlp>,
    /// Rows that ran last; the arrays may have more.
    rows: usize,
    /// The first layer whose delta is there.
    first_delta: usize,
    /// After the activation, of each layer but the last; shape `[rows, width]`.
    outputs: Vec<Array2<f32>>,
    /// `dᵢ` of each layer; shape `[rows, width]`.
    deltas: Vec<Array2<f32>>,
    /// Of each row.
    losses: Vec<f64>,
}

impl Backpropagation {
    pub(super) fn new(model: Arc<Mlp>) -> Self {
        let empty = |layers: usize| vec![Array2::default((0, 0)); layers];
        let layers = model.layers.len();
        let (outputs, deltas) = (empty(layers - 1), empty(layers));
        Self { model, rows: 0, first_delta: layers, outputs, deltas, losses: Vec::new() }
    }

    /// Memory of larger batches is kept.
    fn make_room(&mut self, rows: usize) {
        self.rows = rows;
        let widths = self.model.layers.iter().map(|layer| layer.outputs);
        let arrays = self.outputs.iter_mut().zip(widths.clone());
        for (array, width) in arrays.chain(self.deltas.iter_mut().zip(widths)) {
            if array.dim().0 < rows || array.dim().1 != width {
                *array = Array2::zeros((rows, width));
            }
        }
    }

    fn forward(&mut self, parameters: &[f32], inputs: ArrayView2<'_, f32>) {
        let (model, rows) = (&self.model, Slice::from(..self.rows));
        let last = self.outputs.len();
        for (at, layer) in model.layers.iter().enumerate() {
            let (below, above) = self.outputs.split_at_mut(at);
            let below = below.last().map_or(inputs, |z| z.slice_axis(ROWS, rows));
            let outputs = if at == last { &mut self.deltas[at] } else { &mut above[0] };
            let mut outputs = outputs.slice_axis_mut(ROWS, rows);
            layer.apply_into(parameters, below, &mut outputs);
            if at < last {
                model.settings.activation.apply(outputs);
            }
        }
    }
}

impl Backpropagation {
    /// Has the deltas of this layer and those behind it.
    fn propagate(&mut self, parameters: &[f32], to: usize) {
        let (model, rows) = (Arc::clone(&self.model), Slice::from(..self.rows));
        while self.first_delta > to {
            let at = self.first_delta;
            let (below, above) = self.deltas.split_at_mut(at);
            let mut below = below[at - 1].slice_axis_mut(ROWS, rows);
            let delta = above[0].slice_axis(ROWS, rows);
            model.layers[at].propagate_into(parameters, delta, &mut below);
            let outputs = self.outputs[at - 1].slice_axis(ROWS, rows);
            model.settings.activation.differentiate(outputs, below);
            self.first_delta -= 1;
        }
    }
}

impl Backward for Backpropagation {
    fn run(&mut self, parameters: &[f32], batch: Batch<'_>) {
        self.make_room(batch.inputs.nrows());
        self.forward(parameters, batch.inputs);
        let last = self.outputs.len();
        let raw = self.deltas[last].slice_axis_mut(ROWS, Slice::from(..self.rows));
        self.model.settings.loss.differentiate(raw, batch.targets, &mut self.losses);
        self.first_delta = last;
    }

    fn loss(&self, rows: Range<usize>) -> f64 {
        self.losses[rows].iter().sum()
    }

    fn gradient(
        &mut self,
        parameters: &[f32],
        batch: Batch<'_>,
        rows: Range<usize>,
        range: Range<usize>,
        gradient: &mut [f32],
    ) {
        let part = Slice::from(rows.clone());
        let batch = batch.part(rows);
        let model = Arc::clone(&self.model);
        // From behind: a layer's own gradient comes before the delta of the one below it.
        for (at, layer) in model.layers.iter().enumerate().rev() {
            if layer.weight.start >= range.end || layer.bias.end <= range.start {
                continue;
            }
            self.propagate(parameters, at);
            let inputs = match at.checked_sub(1) {
                Some(below) => self.outputs[below].slice_axis(ROWS, part),
                None => batch.inputs,
            };
            let delta = self.deltas[at].slice_axis(ROWS, part);
            layer.write_gradient(inputs, delta, &range, gradient);
        }
    }
}
