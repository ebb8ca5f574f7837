//! A model of one's own: trained, published and served like those that come with gradmesh.
//!
//! What it shows: a [`Model`] with a gradient written by hand, registered in [`ModelKinds`] under a
//! name that the configuration then uses, with keys of its own in `[job.model.settings]`.
//!
//! ```sh
//! cargo run --example custom_model
//! ```
//!
//! It prints:
//!
//! ```text
//! prototypes: 30 of them, 230 steps, test accuracy 95.82 %
//! version 1 serves: 344 of 359 test rows right
//! ```
#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use gradmesh::actors::dataset::{RowTargets, Split};
use gradmesh::actors::job::Loss;
use gradmesh::actors::layout::{Init, TensorSpec};
use gradmesh::actors::messages::{Predict, ask};
use gradmesh::actors::model::{
    Batch, Model, ModelDescription, ModelError, ModelKinds, Score, Targets,
};
use gradmesh::actors::version::VersionRef;
use gradmesh::config::Config;
use gradmesh::node::{Node, NodeBuilder};
use ndarray::{Array2, ArrayView1, ArrayView2, ArrayViewMut2, Axis};
use serde::{Deserialize, Serialize};

/// What `job.model.kind` says.
const KIND: &str = "prototypes";

/// What the kind is built from. Each kind is told features, outputs and loss; also `hidden` and
/// `activation`, which prototypes have no use for.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Settings {
    features: usize,
    outputs: usize,
    loss: Loss,
    #[serde(default)]
    settings: Own,
}

/// `[job.model.settings]`: what this kind alone knows. A misspelt key is refused.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Own {
    /// Prototypes of a class, 1 to 64.
    per_class: usize,
    /// γ > 0: how fast a prototype's say falls with the squared distance from it.
    sharpness: f32,
}

impl Default for Own {
    fn default() -> Self {
        Self { per_class: 1, sharpness: 1.0 }
    }
}

/// A mixture of prototypes. Each class has some rows of its own, the prototypes `c`; a row belongs
/// to a class as far as it is near to them: `p(class | x) = Σ qⱼ` over the class's prototypes, with
/// `q = softmax(s)`, `sⱼ = -½ γ ‖x - cⱼ‖²`. The loss is `-ln p` of the right class.
#[derive(Clone, Debug)]
struct Prototypes {
    settings: Settings,
}

impl Prototypes {
    fn new(settings: Settings) -> Result<Self, ModelError> {
        let refused = |cause: String| ModelError::Settings { kind: KIND.to_owned(), cause };
        if settings.loss != Loss::Softmax {
            return Err(refused("they tell classes apart, set job.model.loss to softmax".into()));
        }
        let Own { per_class, sharpness } = settings.settings;
        if !(1..=64).contains(&per_class) {
            let key = "job.model.settings.per_class";
            return Err(refused(format!("set {key} to 1 to 64, not {per_class}")));
        }
        if !(sharpness > 0.0 && sharpness.is_finite()) {
            let key = "job.model.settings.sharpness";
            return Err(refused(format!("set {key} to a number above 0, not {sharpness}")));
        }
        // A stored version may be damaged: nobody shall allocate what it says, unchecked.
        for (width, limit) in [(settings.features, 1 << 16), (settings.outputs, 1 << 10)] {
            if !(1..=limit).contains(&width) {
                return Err(ModelError::Width { width, limit });
            }
        }
        Ok(Self { settings })
    }

    fn per_class(&self) -> usize {
        self.settings.settings.per_class
    }

    fn sharpness(&self) -> f32 {
        self.settings.settings.sharpness
    }

    fn shape(&self) -> (usize, usize) {
        (self.settings.outputs * self.per_class(), self.settings.features)
    }

    /// Shape `[prototypes, features]`.
    #[allow(clippy::expect_used, reason = "gradmesh passes the space that `tensors` lays out")]
    fn prototypes<'a>(&self, parameters: &'a [f32]) -> ArrayView2<'a, f32> {
        ArrayView2::from_shape(self.shape(), parameters).expect("one tensor")
    }

    /// `s`, shape `[rows, prototypes]`, without `-½ γ ‖x‖²`, which softmax takes out again.
    fn scores(&self, parameters: &[f32], inputs: ArrayView2<'_, f32>) -> Array2<f32> {
        let prototypes = self.prototypes(parameters);
        let half_squares = prototypes.map_axis(Axis(1), |c| 0.5 * c.dot(&c));
        self.sharpness() * (inputs.dot(&prototypes.t()) - half_squares)
    }

    /// The scores of a class's prototypes.
    fn of_class<'a>(&self, mut scores: ArrayView1<'a, f32>, class: usize) -> ArrayView1<'a, f32> {
        let first = class * self.per_class();
        scores.slice_axis_inplace(Axis(0), (first..first + self.per_class()).into());
        scores
    }

    /// Turns scores into the gradient of the rows' losses by them, and returns the sum of the
    /// losses. With `r` the softmax over the prototypes of the right class alone: `q - r`.
    fn differentiate(&self, scores: &mut Array2<f32>, targets: Targets<'_>) -> f64 {
        let mut loss = 0.0;
        for (row, mut scores) in scores.rows_mut().into_iter().enumerate() {
            let all = log_sum_exp(scores.view());
            let mut delta = scores.mapv(|score| share(score, all));
            for class in 0..self.settings.outputs {
                let part = match targets {
                    Targets::Classes(classes) => {
                        f32::from(u8::from(classes[row] as usize == class))
                    }
                    Targets::Values(parts) => parts[[row, class]],
                };
                if part > 0.0 {
                    let own = self.of_class(scores.view(), class);
                    let whole = log_sum_exp(own);
                    loss += f64::from(part) * (all - whole);
                    for (index, &score) in own.iter().enumerate() {
                        delta[class * self.per_class() + index] -= part * share(score, whole);
                    }
                }
            }
            scores.assign(&delta);
        }
        loss
    }
}

impl Model for Prototypes {
    fn tensors(&self) -> Vec<TensorSpec> {
        let (prototypes, features) = self.shape();
        let init = Init::He { fan_in: features };
        vec![TensorSpec::new("prototypes", vec![prototypes, features], init)]
    }

    fn features(&self) -> usize {
        self.settings.features
    }

    fn outputs(&self) -> usize {
        self.settings.outputs
    }

    /// `∂l/∂cⱼ = γ Σ dⱼ (x - cⱼ)` over the rows, `d` the gradient by the scores.
    fn gradient(&self, parameters: &[f32], batch: Batch<'_>, gradient: &mut [f32]) -> f64 {
        let mut delta = self.scores(parameters, batch.inputs);
        let loss = self.differentiate(&mut delta, batch.targets);
        let pulled = delta.sum_axis(Axis(0)).insert_axis(Axis(1));
        let by_prototype = self.sharpness()
            * (delta.t().dot(&batch.inputs) - &pulled * &self.prototypes(parameters));
        if let Ok(mut gradient) = ArrayViewMut2::from_shape(self.shape(), gradient) {
            gradient.assign(&by_prototype);
        }
        loss
    }

    fn predict(&self, parameters: &[f32], inputs: ArrayView2<'_, f32>) -> Array2<f32> {
        let scores = self.scores(parameters, inputs);
        let mut outputs = Array2::zeros((inputs.nrows(), self.outputs()));
        for (scores, mut outputs) in scores.rows().into_iter().zip(outputs.rows_mut()) {
            let all = log_sum_exp(scores);
            for (class, output) in outputs.iter_mut().enumerate() {
                *output = self.of_class(scores, class).iter().map(|&s| share(s, all)).sum();
            }
        }
        outputs
    }

    fn evaluate(&self, parameters: &[f32], batch: Batch<'_>) -> Score {
        let outputs = self.predict(parameters, batch.inputs);
        let correct = match batch.targets {
            Targets::Classes(classes) => Some(right(outputs.view(), classes)),
            Targets::Values(_) => None,
        };
        let loss = self.differentiate(&mut self.scores(parameters, batch.inputs), batch.targets);
        Score { rows: batch.inputs.nrows() as u64, loss, correct }
    }

    fn describe(&self) -> ModelDescription {
        let settings = serde_json::to_value(&self.settings).unwrap_or_default();
        ModelDescription { kind: KIND.to_owned(), settings }
    }
}

/// `ln Σ exp(sⱼ)`; the largest is taken out first, so that nothing overflows.
fn log_sum_exp(scores: ArrayView1<'_, f32>) -> f64 {
    let largest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = scores.iter().map(|&score| f64::from(score - largest).exp()).sum();
    f64::from(largest) + sum.ln()
}

fn share(score: f32, whole: f64) -> f32 {
    (f64::from(score) - whole).exp() as f32
}

/// Rows whose largest output is that of their class.
fn right(outputs: ArrayView2<'_, f32>, classes: &[u32]) -> u64 {
    let best = |row: ArrayView1<'_, f32>| {
        let best = row.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
        best.map_or(0, |(class, _)| class)
    };
    let rows = outputs.rows().into_iter().zip(classes);
    rows.filter(|(row, class)| best(*row) == **class as usize).count() as u64
}

/// What gradmesh knows, and ours.
fn kinds() -> ModelKinds {
    let mut kinds = ModelKinds::builtin();
    kinds.register(KIND, |settings| {
        let settings = serde_json::from_value(settings.clone());
        let settings = settings.map_err(|error| ModelError::Settings {
            kind: KIND.to_owned(),
            cause: error.to_string(),
        })?;
        Ok(Arc::new(Prototypes::new(settings)?))
    });
    kinds
}

fn main() -> anyhow::Result<()> {
    let stores = tempfile::tempdir()?;
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/digits.toml");
    let sets = [
        format!("job.model.kind={KIND}"),
        "job.model.settings.per_class=3".to_owned(),
        "job.model.settings.sharpness=2".to_owned(),
        format!("checkpoint.store={}", stores.path().join("checkpoints").display()),
        format!("registry.store={}", stores.path().join("registry").display()),
    ];
    let config = Config::load(&file, &sets, std::iter::empty())?;
    actix_rt::System::new().block_on(async {
        let node = NodeBuilder::new(config).kinds(kinds()).start().await?;
        let (published, status) = node.trained().await?;
        let accuracy = status.ledger.finished.last().and_then(|epoch| epoch.test_accuracy);
        println!(
            "{KIND}: 30 of them, {} steps, test accuracy {:.2} %",
            status.version.0,
            100.0 * accuracy.unwrap_or_default()
        );
        let (right, rows) = served(&node, VersionRef::Number(published.version)).await?;
        println!("version {} serves: {right} of {rows} test rows right", published.version);
        node.stop().await;
        Ok(())
    })
}

/// Asks the predictor for all test rows; returns how many it gets right, of how many.
async fn served(node: &Node, version: VersionRef) -> anyhow::Result<(u64, usize)> {
    let Config { job, folder, .. } = node.config();
    let data = gradmesh::data::open(&job.data, job.model.loss, job.seed, folder)?;
    let test = data.load(Split::Test, 0..data.shape().test_rows)?;
    let RowTargets::Classes(classes) = &test.targets else {
        anyhow::bail!("digits have classes");
    };
    // Rows are loaded scaled; a caller sends them raw, and the version scales them.
    let raw = test.inputs.iter().map(|value| value * job.data.divide_by);
    let (rows, features) = (test.len(), data.shape().features);
    let inputs = Arc::new(raw.collect());
    let request = Predict::of_rows(&job.model.name, version, rows, features, inputs)?;
    let answer = ask(&node.serving().predict, request, Duration::from_secs(10)).await?;
    let (values, width) = answer.values();
    let outputs = ArrayView2::from_shape((answer.rows, width), &values)?;
    Ok((right(outputs, classes), answer.rows))
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    fn settings(per_class: usize, sharpness: f32, loss: Loss) -> Settings {
        Settings { features: 3, outputs: 2, loss, settings: Own { per_class, sharpness } }
    }

    #[test]
    fn the_gradient_is_the_slope_of_the_loss() {
        let model = Prototypes::new(settings(2, 2.0, Loss::Softmax)).unwrap();
        let parameters: Vec<f32> = (0..12).map(|i| (i as f32 * 0.7).sin()).collect();
        let inputs = array![[0.2, -0.4, 0.9], [-0.8, 0.5, 0.1], [0.3, 0.3, -0.6]];
        let parts = array![[0.25, 0.75], [1.0, 0.0], [0.5, 0.5]];
        for targets in [Targets::Classes(&[0, 1, 0]), Targets::Values(parts.view())] {
            let batch = Batch { inputs: inputs.view(), targets };
            // Whatever was there is replaced.
            let mut gradient = vec![f32::NAN; 12];
            let loss = model.gradient(&parameters, batch, &mut gradient);
            assert_eq!(loss, model.evaluate(&parameters, batch).loss);
            for index in 0..12 {
                let at = |step: f32| {
                    let mut moved = parameters.clone();
                    moved[index] += step;
                    model.evaluate(&moved, batch).loss
                };
                let slope = (at(1e-2) - at(-1e-2)) / 2e-2;
                let got = f64::from(gradient[index]);
                assert!((got - slope).abs() < 2e-3, "parameter {index}: {got}, slope {slope}");
            }
        }
    }

    #[test]
    fn the_answers_are_probabilities() {
        let model = Prototypes::new(settings(2, 2.0, Loss::Softmax)).unwrap();
        let far = array![[0.0, 0.0, 0.0], [1e3, -1e3, 1e3]];
        let parameters: Vec<f32> = (0..12).map(|i| (i as f32).cos()).collect();
        for row in model.predict(&parameters, far.view()).rows() {
            assert!((row.sum() - 1.0).abs() < 1e-5, "{row}");
        }
    }

    #[test]
    fn settings_that_make_no_prototypes_are_refused() {
        for (refused, end) in [
            (settings(2, 2.0, Loss::Squared), "set job.model.loss to softmax"),
            (settings(0, 2.0, Loss::Softmax), "set job.model.settings.per_class to 1 to 64, not 0"),
            (settings(65, 2.0, Loss::Softmax), "not 65"),
            (settings(2, 0.0, Loss::Softmax), "sharpness to a number above 0, not 0"),
        ] {
            let cause = Prototypes::new(refused).unwrap_err().to_string();
            assert!(cause.ends_with(end), "{cause}");
        }
    }

    #[test]
    fn a_misspelt_setting_is_refused_by_its_kind() {
        let settings = serde_json::json!({
            "features": 3, "outputs": 2, "loss": "softmax", "settings": { "sharpnes": 2 },
        });
        let description = ModelDescription { kind: KIND.to_owned(), settings };
        let refused = kinds().build(&description).unwrap_err().to_string();
        assert!(refused.contains("unknown field `sharpnes`"), "{refused}");
    }
}
