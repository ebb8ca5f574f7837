//! A failure test of a model of one's own: is its gradient as pure as gradmesh needs it?
//!
//! What it shows: a [`Model`] trained by a whole simulated cluster under a swarm of faults. A
//! worker that dies loses gradients, which another one computes again: they must be the same to the
//! last bit. `Margins` keeps that promise. With `warm_up` it grows its steps by a counter of its
//! own, which a restart forgets: no test without failures would notice, this one names a seed, and
//! shrinks its faults to the one that is enough.
//!
//! ```sh
//! cargo run --example simulate_model
//! ```
//!
//! It prints, with other numbers on other processors:
//!
//! ```text
//! as promised: 40 seeds, 237 faults, one digest
//! with a counter: seed 0 has another digest, 1 of 9 faults is enough:
//!   kill("worker-1").at("0.1s").for_("0.2s")
//! ```
#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use gradmesh::actors::layout::{Init, TensorSpec};
use gradmesh::actors::model::{
    Batch, Model, ModelDescription, ModelError, ModelKinds, Score, Targets,
};
use gradmesh::config::Config;
use gradmesh::data;
use gradmesh::sim::{Broken, CampaignError, Sim, Swarm};
use ndarray::{Array2, ArrayView2, ArrayViewMut2, Axis};
use serde::{Deserialize, Serialize};

const KIND: &str = "margins";

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Settings {
    features: usize,
    outputs: usize,
}

/// A line for each class that should have its rows above 1 and all others below -1: the loss of a
/// row is `Σ max(0, 1 - yₖ sₖ)` with `s = W (x, 1)`, `yₖ` 1 for its class and -1 for others.
#[derive(Debug)]
struct Margins {
    settings: Settings,
    /// Gradients that were asked for, where it warms up: the bug.
    calls: Option<AtomicU32>,
}

impl Margins {
    fn shape(&self) -> (usize, usize) {
        (self.settings.outputs, self.settings.features + 1)
    }

    fn scores(&self, parameters: &[f32], inputs: ArrayView2<'_, f32>) -> Array2<f32> {
        let Ok(lines) = ArrayView2::from_shape(self.shape(), parameters) else {
            return Array2::zeros((inputs.nrows(), self.settings.outputs));
        };
        let (weights, biases) = lines.split_at(Axis(1), self.settings.features);
        inputs.dot(&weights.t()) + biases.t()
    }

    /// The loss, and its gradient by the scores.
    fn differentiate(&self, scores: &Array2<f32>, targets: Targets<'_>) -> (f64, Array2<f32>) {
        let Targets::Classes(classes) = targets else { return (0.0, Array2::zeros(scores.dim())) };
        let mut loss = 0.0;
        let delta = Array2::from_shape_fn(scores.dim(), |(row, class)| {
            let side = if classes[row] as usize == class { 1.0 } else { -1.0 };
            let short = 1.0 - side * scores[[row, class]];
            loss += f64::from(short.max(0.0));
            if short > 0.0 { -side } else { 0.0 }
        });
        (loss, delta)
    }
}

impl Model for Margins {
    fn tensors(&self) -> Vec<TensorSpec> {
        let (lines, width) = self.shape();
        vec![TensorSpec::new("lines", vec![lines, width], Init::He { fan_in: width })]
    }

    fn features(&self) -> usize {
        self.settings.features
    }

    fn outputs(&self) -> usize {
        self.settings.outputs
    }

    fn gradient(&self, parameters: &[f32], batch: Batch<'_>, gradient: &mut [f32]) -> f64 {
        let (loss, mut delta) =
            self.differentiate(&self.scores(parameters, batch.inputs), batch.targets);
        if let Some(calls) = &self.calls {
            let seen = calls.fetch_add(1, Ordering::Relaxed);
            delta *= (seen as f32 / 100.0).min(1.0);
        }
        if let Ok(gradient) = ArrayViewMut2::from_shape(self.shape(), gradient) {
            let (mut weights, mut biases) = gradient.split_at(Axis(1), self.settings.features);
            weights.assign(&delta.t().dot(&batch.inputs));
            biases.column_mut(0).assign(&delta.sum_axis(Axis(0)));
        }
        loss
    }

    fn predict(&self, parameters: &[f32], inputs: ArrayView2<'_, f32>) -> Array2<f32> {
        self.scores(parameters, inputs)
    }

    fn evaluate(&self, parameters: &[f32], batch: Batch<'_>) -> Score {
        let scores = self.scores(parameters, batch.inputs);
        let (loss, _) = self.differentiate(&scores, batch.targets);
        let Targets::Classes(classes) = batch.targets else { return Score::default() };
        let right = scores
            .rows()
            .into_iter()
            .zip(classes)
            .filter(|(row, class)| row.iter().all(|&score| score <= row[**class as usize]));
        Score { rows: batch.inputs.nrows() as u64, loss, correct: Some(right.count() as u64) }
    }

    fn describe(&self) -> ModelDescription {
        let settings = serde_json::to_value(&self.settings).unwrap_or_default();
        ModelDescription { kind: KIND.to_owned(), settings }
    }
}

fn kinds(warm_up: bool) -> ModelKinds {
    let mut kinds = ModelKinds::builtin();
    kinds.register(KIND, move |settings| {
        let refused = |cause: String| ModelError::Settings { kind: KIND.to_owned(), cause };
        let settings: Settings =
            serde_json::from_value(settings.clone()).map_err(|e| refused(e.to_string()))?;
        if !(1..=1024).contains(&settings.features) || !(1..=64).contains(&settings.outputs) {
            return Err(refused(format!("too wide: {settings:?}")));
        }
        Ok(Arc::new(Margins { settings, calls: warm_up.then(AtomicU32::default) }))
    });
    kinds
}

/// Two servers and two workers that train it on the digits.
fn cluster(warm_up: bool) -> anyhow::Result<Sim> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/digits.toml");
    let sets = [
        "job.model.kind=margins",
        "job.epochs=3",
        "job.optimizer.learning_rate=0.01",
        "checkpoint.every_steps=10",
        "servers.shards=2",
        "workers.count=2",
    ];
    let config = Config::load(&file, &sets.map(str::to_owned), std::iter::empty())?;
    let rows = data::open(&config.job.data, config.job.model.loss, 1, &config.folder)?;
    Ok(Sim::cluster_with(config, &*rows, kinds(warm_up))?.swarm(Swarm::default()))
}

fn main() -> anyhow::Result<()> {
    let passed = cluster(false)?.seeds(0..40).run()?;
    println!("as promised: {} seeds, {} faults, one digest", passed.seeds, passed.faults);

    let Err(CampaignError::Broken(found)) = cluster(true)?.seeds(0..40).run() else {
        anyhow::bail!("the counter was not found");
    };
    // By its end, or by the two different versions on the way to it, where one is made twice.
    let what = match &found.report.broken {
        Some(Broken::Digest { .. }) => "has another digest".to_owned(),
        Some(Broken::Check(name)) => format!("shows that {name:?} does not hold"),
        _ => anyhow::bail!("{found}"),
    };
    let shrunk = found.shrunk.as_ref().map_or(&found.report, |shrunk| &shrunk.report);
    let (few, all) = (shrunk.plan.faults.len(), found.report.plan.faults.len());
    println!("with a counter: seed {} {what}, {few} of {all} faults is enough:", found.report.seed);
    for fault in &shrunk.plan.faults {
        println!("  {fault}");
    }
    Ok(())
}
