//! What a worker trains where values don't matter.

use std::sync::Arc;

use gradmesh_actors::dataset::{
    Dataset, DatasetError, DatasetShape, RowTargets, Rows, Scaling, Split,
};
use gradmesh_actors::layout::TensorSpec;
use gradmesh_actors::model::{Batch, Model, ModelDescription, Score};
use gradmesh_actors::plan::JobOffer;
use gradmesh_actors::worker::Task;
use ndarray::{Array2, ArrayView2};

use super::offer;

pub(crate) fn task(offer: JobOffer) -> Task {
    let data = Arc::new(Zeros(offer.data.clone()));
    Task { offer, model: Arc::new(Ones), data }
}

/// The gradient of a row is one, whatever the row.
#[derive(Debug)]
struct Ones;

impl Model for Ones {
    fn tensors(&self) -> Vec<TensorSpec> {
        offer().tensors
    }

    fn features(&self) -> usize {
        2
    }

    fn outputs(&self) -> usize {
        1
    }

    fn gradient(&self, _: &[f32], batch: Batch<'_>, gradient: &mut [f32]) -> f64 {
        gradient.fill(batch.inputs.nrows() as f32);
        1.0
    }

    fn predict(&self, _: &[f32], inputs: ArrayView2<'_, f32>) -> Array2<f32> {
        Array2::zeros((inputs.nrows(), 1))
    }

    fn evaluate(&self, _: &[f32], batch: Batch<'_>) -> Score {
        Score { rows: batch.inputs.nrows() as u64, loss: 1.0, correct: None }
    }

    fn describe(&self) -> ModelDescription {
        offer().architecture
    }
}

#[derive(Debug)]
struct Zeros(DatasetShape);

impl Dataset for Zeros {
    fn shape(&self) -> &DatasetShape {
        &self.0
    }

    fn scaling(&self) -> &Scaling {
        &Scaling::None
    }

    fn load(&self, _: Split, range: std::ops::Range<usize>) -> Result<Rows, DatasetError> {
        let targets = RowTargets::Values(Array2::zeros((range.len(), 1)));
        Ok(Rows { inputs: Array2::zeros((range.len(), 2)), targets })
    }
}
