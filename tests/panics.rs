//! A model that panics in the middle of training costs a restart, never a bit.

#![allow(clippy::unwrap_used, reason = "the helpers of a test fail with it")]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use gradmesh::config::Config;
use gradmesh::node::NodeBuilder;
use gradmesh_actors::dataset::{
    Dataset, DatasetError, DatasetShape, RowTargets, Rows, Scaling, Split,
};
use gradmesh_actors::layout::TensorSpec;
use gradmesh_actors::model::{Batch, Model, ModelDescription, ModelKinds, Score};
use gradmesh_actors::training::TrainingStatus;
use ndarray::{Array2, ArrayView2};
use tempfile::TempDir;

const ROWS: usize = 96;

/// A line with some noise, by row number.
#[derive(Debug)]
struct Line(DatasetShape);

impl Dataset for Line {
    fn shape(&self) -> &DatasetShape {
        &self.0
    }

    fn scaling(&self) -> &Scaling {
        &Scaling::None
    }

    fn load(&self, _: Split, range: std::ops::Range<usize>) -> Result<Rows, DatasetError> {
        let len = range.len();
        let value = |row: usize, i: usize| ((range.start + row) * 37 + i * 11) as f32;
        let inputs = Array2::from_shape_fn((len, 8), |(row, i)| value(row, i).sin());
        let targets = RowTargets::Values(Array2::from_shape_fn((len, 1), |(row, _)| {
            inputs.row(row).sum() + value(row, 9).cos() * 0.1
        }));
        Ok(Rows { inputs, targets })
    }
}

/// The linear model, but call number `panics_at` of its gradient panics: once in its life.
#[derive(Debug)]
struct Shaky {
    model: Arc<dyn Model>,
    calls: Arc<AtomicU64>,
    panics_at: u64,
}

impl Model for Shaky {
    fn tensors(&self) -> Vec<TensorSpec> {
        self.model.tensors()
    }

    fn features(&self) -> usize {
        self.model.features()
    }

    fn outputs(&self) -> usize {
        self.model.outputs()
    }

    fn gradient(&self, parameters: &[f32], batch: Batch<'_>, gradient: &mut [f32]) -> f64 {
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        assert_ne!(call, self.panics_at, "the panic that this test is about");
        self.model.gradient(parameters, batch, gradient)
    }

    fn predict(&self, parameters: &[f32], inputs: ArrayView2<'_, f32>) -> Array2<f32> {
        self.model.predict(parameters, inputs)
    }

    fn evaluate(&self, parameters: &[f32], batch: Batch<'_>) -> Score {
        self.model.evaluate(parameters, batch)
    }

    fn describe(&self) -> ModelDescription {
        self.model.describe()
    }
}

/// `linear`, with the panic.
fn kinds(panics_at: u64) -> ModelKinds {
    let calls = Arc::new(AtomicU64::new(0));
    let mut kinds = ModelKinds::builtin();
    kinds.register("linear", move |settings| {
        let description = ModelDescription { kind: "linear".into(), settings: settings.clone() };
        let model = ModelKinds::builtin().build(&description)?;
        Ok(Arc::new(Shaky { model, calls: Arc::clone(&calls), panics_at }))
    });
    kinds
}

fn config(codec: &str, folder: &Path) -> Config {
    let text = format!(
        "job.epochs = 4\n\
         job.batch_size = 16\n\
         job.virtual_workers = 4\n\
         job.model.kind = 'linear'\n\
         job.model.loss = 'squared'\n\
         job.data.format = 'csv'\n\
         job.data.train = 'not-read.csv'\n\
         job.gradient.codec = '{codec}'\n\
         job.gradient.top_k = 0.5\n\
         job.gradient.clip_norm = 1.0\n\
         servers.shards = 1\n\
         workers.count = 2\n\
         checkpoint.every_steps = 3\n\
         checkpoint.store = 'checkpoints'\n\
         registry.store = 'registry'\n\
         detector.heartbeat_ms = 20\n"
    );
    Config::from_toml(&text, folder).unwrap()
}

/// The digest of a run of 24 steps by two workers, 4 gradients a step.
async fn train(codec: &str, panics_at: u64) -> (String, TrainingStatus) {
    let folder = TempDir::new().unwrap();
    let data = Line(DatasetShape {
        train_rows: ROWS,
        test_rows: 0,
        features: 8,
        classes: None,
        target_width: 1,
        digest: "line".into(),
    });
    let builder = NodeBuilder::new(config(codec, folder.path()));
    let node = builder.kinds(kinds(panics_at)).data(Arc::new(data)).start().await.unwrap();
    let (published, status) = node.trained().await.unwrap();
    node.stop().await;
    (published.digest, status)
}

#[actix_rt::test]
async fn a_worker_that_panics_does_not_change_a_bit() {
    for codec in ["none", "top-k"] {
        let (calm, status) = train(codec, u64::MAX).await;
        assert_eq!(status.lost, 0);
        // In the first step, before the first checkpoint; in the middle; in the last step.
        for panics_at in [1, 45, 94] {
            let (digest, status) = train(codec, panics_at).await;
            assert!(status.lost > 0, "{codec}, call {panics_at}: nobody was lost");
            assert_eq!(digest, calm, "{codec}, call {panics_at}");
            let rows: Vec<u64> = status.ledger.finished.iter().map(|epoch| epoch.rows).collect();
            assert_eq!(rows, [ROWS as u64; 4], "{codec}, call {panics_at}");
        }
    }
}
