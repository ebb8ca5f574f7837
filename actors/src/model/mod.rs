//! What a model is to gradmesh: named tensors, the gradient of a batch, a prediction.
//!
//! [`Model`] is the one trait that a user implements for a model of their own. `mlp.rs` holds
//! the two that come with gradmesh (`linear` is the perceptron without hidden layers), `kinds.rs`
//! finds a model by the name of its kind, `init.rs` fills its parameters by seed.

mod init;
mod kinds;
mod loss;
mod mlp;

use std::fmt;
use std::ops::Range;

use ndarray::{Array2, ArrayView2, Axis};

use crate::layout::TensorSpec;

pub use init::initialise;
pub use kinds::{ModelError, ModelFactory, ModelKinds, describe};
pub use mlp::{Mlp, MlpSettings};

/// The rows of one batch: what a model sees in training.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    /// Shape `[rows, features]`, scaled.
    pub inputs: ArrayView2<'a, f32>,
    pub targets: Targets<'a>,
}

/// What the model should answer, row by row.
#[derive(Clone, Copy, Debug)]
pub enum Targets<'a> {
    /// Class of each row, `0..classes`.
    Classes(&'a [u32]),
    /// Values of each row, shape `[rows, outputs]`.
    Values(ArrayView2<'a, f32>),
}

impl Batch<'_> {
    /// Some of its rows.
    ///
    /// # Panics
    /// If there are fewer.
    pub fn part(mut self, rows: Range<usize>) -> Self {
        self.inputs.slice_axis_inplace(Axis(0), rows.clone().into());
        match &mut self.targets {
            Targets::Classes(classes) => *classes = &classes[rows],
            Targets::Values(values) => values.slice_axis_inplace(Axis(0), rows.into()),
        }
        self
    }
}

/// How well a model does on some rows. Sums, not means: they add up over parts of a data set.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Score {
    pub rows: u64,
    /// Sum of the rows' losses.
    pub loss: f64,
    /// Rows whose class was predicted right; `None` where there are no classes.
    pub correct: Option<u64>,
}

impl Score {
    /// That of both parts of a data set together.
    pub(crate) fn with(self, more: Self) -> Self {
        Self {
            rows: self.rows + more.rows,
            loss: self.loss + more.loss,
            correct: self.correct.zip(more.correct).map(|(correct, more)| correct + more),
        }
    }
}

/// A function with parameters that gradmesh can train and serve.
///
/// # What an implementation promises
/// `gradient` and `predict` are pure: the same arguments give the same bits, whatever ran before
/// and on whichever thread. That is what lets another worker recompute a lost gradient.
pub trait Model: Send + Sync + fmt::Debug {
    /// The parameters, in the order in which they lie in the flat space. Never changes.
    fn tensors(&self) -> Vec<TensorSpec>;

    /// Number of input features of a row.
    fn features(&self) -> usize;

    /// Number of outputs of a row.
    fn outputs(&self) -> usize;

    /// Adds nothing, replaces all: writes the **sum** over the batch's rows of the gradient of
    /// their losses into `gradient`, and returns the sum of their losses.
    ///
    /// `parameters` and `gradient` are the whole flat space, as [`Model::tensors`] lays it out.
    /// An empty batch gives zeros.
    fn gradient(&self, parameters: &[f32], batch: Batch<'_>, gradient: &mut [f32]) -> f64;

    /// A way to the gradients of parts of a batch that does the work they share once. `None`, as
    /// where it is not given: each part has [`Model::gradient`] called.
    fn backward(&self) -> Option<Box<dyn Backward>> {
        None
    }

    /// Outputs of each row, shape `[rows, outputs]`: class probabilities for a classifier.
    fn predict(&self, parameters: &[f32], inputs: ArrayView2<'_, f32>) -> Array2<f32>;

    /// Loss and right answers on some rows.
    fn evaluate(&self, parameters: &[f32], batch: Batch<'_>) -> Score;

    /// The model's own description, kept with each version: what `kinds.rs` or a user's
    /// factory needs to build the model again for serving.
    fn describe(&self) -> ModelDescription;
}

/// Gradients of parts of a batch. It keeps what it computed, and its memory from batch to batch.
///
/// # What an implementation promises
/// To the bit what [`Model::gradient`] gives for the rows of a part alone, whatever rows lie beside
/// them, and however the parameters are cut: that is what lets a worker take all its slots at once,
/// and another one take them over.
pub trait Backward: Send + fmt::Debug {
    /// Begins with the rows of a batch: whatever their losses need.
    fn run(&mut self, parameters: &[f32], batch: Batch<'_>);

    /// The sum of the losses of `rows` of the batch that ran last.
    fn loss(&self, rows: Range<usize>) -> f64;

    /// What [`Model::gradient`] writes to the parameters in `range`, for `rows` of the batch that ran
    /// last, which is given again with its parameters. `gradient` is as long as `range`.
    ///
    /// Ranges come from the end of the parameters to their beginning, each for all parts of the batch:
    /// what only earlier parameters need can be left for later, while those behind are on their way.
    fn gradient(
        &mut self,
        parameters: &[f32],
        batch: Batch<'_>,
        rows: Range<usize>,
        range: Range<usize>,
        gradient: &mut [f32],
    );
}

/// Names the kind of a model and the values it is built from.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct ModelDescription {
    /// For example `mlp`; what a factory is registered under.
    pub kind: String,
    /// What the factory of this kind reads.
    pub settings: serde_json::Value,
}
