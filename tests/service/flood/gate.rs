//! A model that takes as long as a test wants it to.

use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use gradmesh_actors::layout::{Init, TensorSpec};
use gradmesh_actors::messages::PublishModel;
use gradmesh_actors::model::{Batch, Model, ModelDescription, ModelKinds, Score};
use ndarray::{Array2, ArrayView2};
use tokio::sync::watch;

use super::WAIT_MAX;
use crate::support::{kinds, sum};

/// What the model is published as, and its kind.
pub(super) const GATED: &str = "gated";
/// A row that begins so waits in the model until the gate is opened.
pub(super) const HELD: f32 = 7.0;
/// At a row that begins so the model panics.
pub(super) const PANICS: f32 = 13.0;
/// What the sum of a row is multiplied with.
pub(super) const WEIGHT: f32 = 3.0;

/// Longer than the millisecond from which on a model runs on a thread of its own.
const RUN: Duration = Duration::from_millis(2);

/// Shut until it is opened, again and again.
#[derive(Clone, Debug)]
pub(super) struct Gate {
    /// How many may yet pass.
    passes: Arc<(Mutex<usize>, Condvar)>,
    /// How many have ever come to it.
    came: watch::Sender<usize>,
}

impl Gate {
    pub(super) fn new() -> Self {
        Self { passes: Arc::default(), came: watch::Sender::new(0) }
    }

    pub(super) fn came(&self) -> watch::Receiver<usize> {
        self.came.subscribe()
    }

    /// Lets through whoever is there, or comes first.
    pub(super) fn open(&self) {
        *self.passes.0.lock().unwrap() += 1;
        self.passes.1.notify_one();
    }

    fn pass(&self) {
        self.came.send_modify(|came| *came += 1);
        let (passes, changed) = &*self.passes;
        let shut = |passes: &mut usize| *passes == 0;
        let waited = changed.wait_timeout_while(passes.lock().unwrap(), WAIT_MAX, shut);
        // Also where the test has failed: its service is to end.
        let (mut passes, _) = waited.unwrap();
        *passes = passes.saturating_sub(1);
    }
}

#[derive(Debug)]
struct Gated {
    gate: Gate,
}

impl Model for Gated {
    fn tensors(&self) -> Vec<TensorSpec> {
        vec![TensorSpec::new("w", vec![1], Init::Zeros)]
    }

    fn features(&self) -> usize {
        2
    }

    fn outputs(&self) -> usize {
        1
    }

    fn gradient(&self, _: &[f32], _: Batch<'_>, _: &mut [f32]) -> f64 {
        0.0
    }

    fn predict(&self, parameters: &[f32], inputs: ArrayView2<'_, f32>) -> Array2<f32> {
        let began = Instant::now();
        let first = |row: f32| inputs.column(0).iter().any(|value| *value == row);
        assert!(!first(PANICS), "thirteen");
        if first(HELD) {
            self.gate.pass();
        }
        while began.elapsed() < RUN {
            std::hint::spin_loop();
        }
        Array2::from_shape_fn((inputs.nrows(), 1), |(row, _)| parameters[0] * inputs.row(row).sum())
    }

    fn evaluate(&self, _: &[f32], _: Batch<'_>) -> Score {
        Score::default()
    }

    fn describe(&self) -> ModelDescription {
        ModelDescription { kind: GATED.into(), settings: serde_json::Value::Null }
    }
}

pub(super) fn gated_kinds(gate: Gate) -> ModelKinds {
    let mut kinds = kinds();
    kinds.register(GATED, move |_| Ok(Arc::new(Gated { gate: gate.clone() })));
    kinds
}

pub(super) fn publication() -> PublishModel {
    let mut publish = sum("gated", WEIGHT);
    publish.description.model = GATED.into();
    publish.description.architecture.kind = GATED.into();
    publish
}
