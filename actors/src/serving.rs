//! A version that is ready to answer: the model, and the checks around it.

mod pipeline;
mod rows;
mod tensors;

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::messages::{FetchedModel, Predict, PredictError, Prediction, Resolved, Run};
use crate::model::ModelKinds;
use crate::pipeline::PIPELINE;
use crate::tensor::NamedTensor;
use crate::tensor_model::TensorModel;
use crate::version::VersionDescription;
pub use pipeline::signature_of;
use rows::RowModel;

/// One published version in memory.
#[derive(Debug)]
pub struct ServedModel {
    description: VersionDescription,
    model: Answering,
    /// Nanoseconds a row, by the last runs; 0 before the first one.
    row_ns: AtomicU64,
    /// Nanoseconds of the shortest of the last runs: what a run takes however few rows it has.
    least_ns: AtomicU64,
    panicked: AtomicBool,
    /// What it is made of.
    members: Vec<Arc<ServedModel>>,
}

/// What answers.
#[derive(Debug)]
enum Answering {
    /// A model of rows of numbers, as gradmesh trains them.
    Rows(RowModel),
    /// Any other, which was imported.
    Tensors(Arc<dyn TensorModel>),
}

impl ServedModel {
    /// Makes a version ready. `members`: what it is made of, in the order in which it says so.
    ///
    /// # Errors
    /// [`PredictError::Load`]: the kind is not known, its factory refuses the settings or the file, or
    /// panics, or the model takes or answers something else than the version says.
    pub fn new(
        kinds: &ModelKinds,
        fetched: FetchedModel,
        members: Vec<Arc<Self>>,
    ) -> Result<Self, PredictError> {
        let FetchedModel { description, tensors, file } = fetched;
        let build = || match file {
            None => RowModel::build(kinds, &description, &tensors).map(Answering::Rows),
            Some(file) if description.architecture.kind == PIPELINE => {
                pipeline::load(&description, &file, &members).map(Answering::Tensors)
            }
            Some(file) => tensors::load(kinds, &description, &file).map(Answering::Tensors),
        };
        let built = catch_unwind(AssertUnwindSafe(build));
        let built = built.unwrap_or_else(|panic| Err(panic_text(panic.as_ref())));
        let model = built.map_err(|cause| PredictError::Load {
            model: description.model.clone(),
            version: description.served(),
            cause,
        })?;
        Ok(Self {
            description,
            model,
            row_ns: AtomicU64::new(0),
            least_ns: AtomicU64::new(0),
            panicked: AtomicBool::new(false),
            members,
        })
    }

    pub fn model(&self) -> &str {
        &self.description.model
    }

    pub fn description(&self) -> &VersionDescription {
        &self.description
    }

    pub fn version(&self) -> u64 {
        self.description.version
    }

    /// Digest of the state that it was published from.
    pub fn digest(&self) -> &str {
        &self.description.digest
    }

    /// Whether the model, or one that it is made of, has ever panicked.
    pub fn has_panicked(&self) -> bool {
        self.panicked.load(Ordering::Relaxed)
            || self.members.iter().any(|member| member.has_panicked())
    }

    /// A run over zeros, whatever the model says to that: what it makes ready for its first run is
    /// ready then.
    pub fn try_out(&self) {
        match &self.model {
            Answering::Rows(model) => {
                let _ = self.together(model, vec![0.0; self.description.features], &[1]);
            }
            Answering::Tensors(model) => {
                if let Some(zeros) = model.signature().zeros() {
                    let _ = self.run(&**model, zeros);
                }
            }
        }
    }

    /// A run of so many rows took so long: what runs are expected to take follows the last ones.
    pub fn ran(&self, rows: usize, took: Duration) {
        let took = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let least = match self.least_ns.load(Ordering::Relaxed) {
            0 => took,
            // It is forgotten within a few dozen runs, should the model have become slower.
            before => took.min(before.saturating_add(before / 8 + 1)),
        };
        self.least_ns.store(least, Ordering::Relaxed);
        let row = (took / (rows.max(1) as u64)).max(1);
        let before = match self.row_ns.load(Ordering::Relaxed) {
            0 => row,
            before => before,
        };
        // Two runs that end at once may lose one of the two; the next one tells.
        self.row_ns.store(before - before / 4 + row / 4 + 1, Ordering::Relaxed);
    }

    /// What a run of so many rows takes, once there was one.
    pub fn expected(&self, rows: usize) -> Option<Duration> {
        let row = self.row_ns.load(Ordering::Relaxed);
        let run = row.saturating_mul(rows as u64).max(self.least_ns.load(Ordering::Relaxed));
        (row > 0).then(|| Duration::from_nanos(run))
    }

    /// Answers requests that came together, in their order. A model of rows is asked for all rows at
    /// once, which gives each the bits that it has alone; of any other nobody knows that, and it is asked
    /// one after the other.
    ///
    /// # Errors
    /// Of each request: its inputs don't fit the model; or the model's answer isn't one, or it panics
    /// ([`PredictError::Model`]). Those beside it don't suffer.
    pub fn predict(&self, requests: Vec<Predict>) -> Vec<Result<Prediction, PredictError>> {
        match &self.model {
            Answering::Rows(model) => self.answer_rows(model, requests),
            Answering::Tensors(model) => {
                requests.into_iter().map(|request| self.answer_tensors(&**model, request)).collect()
            }
        }
    }

    fn prediction(&self, rows: usize, run: Run, outputs: Vec<NamedTensor>) -> Prediction {
        Prediction {
            model: self.description.model.clone(),
            version: self.description.served(),
            digest: self.description.digest.clone(),
            classes: self.description.classes,
            rows,
            resolved: Resolved::Now,
            compute_ns: 0,
            run,
            outputs,
        }
    }

    /// What the model says; that it panics is its failure.
    fn guarded<R>(&self, run: impl FnOnce() -> R) -> Result<R, PredictError> {
        catch_unwind(AssertUnwindSafe(run)).map_err(|panic| {
            self.panicked.store(true, Ordering::Relaxed);
            self.failed(panic_text(panic.as_ref()))
        })
    }

    fn refused(&self, cause: String) -> PredictError {
        PredictError::Input { model: self.description.model.clone(), cause }
    }

    fn failed(&self, cause: String) -> PredictError {
        let (model, version) = (self.description.model.clone(), self.description.served());
        PredictError::Model { model, version, cause }
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("it panicked: {}", text.unwrap_or("without a text"))
}

#[cfg(test)]
pub(crate) mod tests {
    use ndarray::{Array2, ArrayView2};

    use super::*;
    use crate::dataset::Scaling;
    use crate::layout::{Init, TensorSpec};
    use crate::messages::Values;
    use crate::model::{Batch, Model, ModelDescription, Score};
    use crate::new_version::NewVersion;
    use crate::new_version::tests::{artifact, new_version};
    use crate::version::ServedVersion::Published;
    use crate::version::VersionRef;

    /// Multiplies by its weights and sums up. It panics at 13 and answers NaN at 14.
    #[derive(Debug)]
    struct Toy;

    impl Model for Toy {
        fn tensors(&self) -> Vec<TensorSpec> {
            vec![TensorSpec::new("w", vec![2], Init::Zeros)]
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
            let sum =
                |row: usize| inputs[[row, 0]] * parameters[0] + inputs[[row, 1]] * parameters[1];
            assert!(inputs.column(0).iter().all(|x| *x != 13.0), "thirteen");
            Array2::from_shape_fn((inputs.nrows(), 1), |(row, _)| {
                if inputs[[row, 0]] == 14.0 { f32::NAN } else { sum(row) }
            })
        }
        fn evaluate(&self, _: &[f32], _: Batch<'_>) -> Score {
            Score::default()
        }
        fn describe(&self) -> ModelDescription {
            ModelDescription { kind: "toy".into(), settings: serde_json::Value::Null }
        }
    }

    pub(crate) fn toy_kinds() -> ModelKinds {
        let mut kinds = ModelKinds::builtin();
        kinds.register("toy", |_| Ok(Arc::new(Toy)));
        kinds
    }

    fn load(change: impl FnOnce(&mut NewVersion)) -> Result<ServedModel, PredictError> {
        let mut new = new_version("m", "run");
        change(&mut new);
        let description = new.numbered(3, artifact());
        ServedModel::new(
            &toy_kinds(),
            FetchedModel { description, tensors: vec![vec![1.0, 10.0].into()], file: None },
            Vec::new(),
        )
    }

    fn rows(features: usize, inputs: &[f32]) -> Predict {
        let count = inputs.len() / features;
        let inputs = Values::new(inputs.to_vec());
        Predict::of_rows("m", VersionRef::Latest, count, features, inputs).unwrap()
    }

    fn one(served: &ServedModel, request: Predict) -> Result<Prediction, PredictError> {
        served.predict(vec![request]).pop().unwrap()
    }

    fn refused(features: usize, inputs: &[f32]) -> String {
        one(&load(|_| {}).unwrap(), rows(features, inputs)).unwrap_err().to_string()
    }

    #[test]
    fn rows_are_scaled_before_the_model_sees_them() {
        let scaled = load(|new| {
            new.scaling = Scaling::Standard { mean: vec![1.0, 0.0], deviation: vec![2.0, 1.0] };
        });
        let answer = one(&scaled.unwrap(), rows(2, &[3.0, 4.0, 1.0, 0.5])).unwrap();
        assert_eq!((answer.version, answer.rows, answer.values().1), (Published(3), 2, 1));
        assert_eq!(*answer.values().0, [41.0, 5.0]);
    }

    #[test]
    fn rows_that_do_not_fit_the_model_are_refused_with_the_numbers() {
        assert_eq!(refused(3, &[1.0; 3]), "a row of m has 2 features, the request has 3");
        let infinite = refused(2, &[1.0, 1.0, 1.0, f32::INFINITY]);
        assert_eq!(infinite, "feature 1 of row 1 is not a finite number");
        assert!(refused(2, &[]).starts_with("a request without rows"));
    }

    #[test]
    fn a_model_that_panics_has_failed_and_one_that_answers_nan_refuses_the_row() {
        assert_eq!(refused(2, &[13.0, 1.0]), "version 3 of m failed: it panicked: thirteen");
        let nan = "version 3 of m makes NaN of row 0 (output 0); send smaller values";
        assert_eq!(refused(2, &[14.0, 1.0]), nan);
    }

    #[test]
    fn requests_that_go_together_are_answered_as_they_are_alone() {
        let served = load(|_| {}).unwrap();
        let requests = [
            rows(2, &[1.0, 2.0]),
            rows(3, &[1.0; 3]),
            rows(2, &[3.0, 4.0, 5.0, 6.0]),
            rows(2, &[]),
            rows(2, &[f32::NAN, 1.0]),
        ];
        let together = served.predict(requests.to_vec());
        for (request, answer) in std::iter::zip(requests, &together) {
            let alone = one(&served, request);
            assert_eq!(alone.map(|answer| answer.outputs), answer.clone().map(|a| a.outputs));
        }
        let runs: Vec<_> = together.into_iter().flatten().map(|answer| answer.run).collect();
        let run = |first| Run { rows: 3, first };
        assert_eq!(runs, [run(true), run(false)]);
    }

    #[test]
    fn a_request_that_makes_the_model_fail_fails_alone() {
        let served = load(|_| {}).unwrap();
        for bad in [13.0, 14.0] {
            let requests = [[1.0, 2.0], [bad, 1.0], [2.0, 1.0]].map(|row| rows(2, &row));
            for order in [[0, 1, 2], [1, 0, 2]] {
                let answers = served.predict(order.map(|at| requests[at].clone()).to_vec());
                for (at, answer) in std::iter::zip(order, answers) {
                    assert_eq!(answer.is_err(), at == 1, "{answer:?}");
                }
            }
        }
        assert_eq!(served.predict(Vec::new()), []);
    }

    #[test]
    fn what_a_run_takes_is_expected_from_the_runs_before() {
        let served = load(|_| {}).unwrap();
        assert_eq!(served.expected(8), None);
        served.ran(4, Duration::from_micros(8));
        assert_eq!(served.expected(1000).unwrap().as_micros(), 2001);
        for _ in 0..40 {
            served.ran(1, Duration::from_micros(9));
        }
        let expected = served.expected(1000).unwrap().as_micros();
        assert!((8_900..9_100).contains(&expected), "{expected}");
        // A model that takes long however few rows it is asked for.
        let served = load(|_| {}).unwrap();
        for _ in 0..40 {
            served.ran(64, Duration::from_micros(6400));
        }
        assert_eq!(served.expected(1).unwrap().as_micros(), 6400);
        served.ran(0, Duration::MAX);
        assert!(served.expected(usize::MAX).is_some());
    }

    #[test]
    fn a_version_that_its_model_does_not_fit_is_not_loaded() {
        let cause = |change: fn(&mut NewVersion)| load(change).unwrap_err().to_string();
        let kind = cause(|new| new.architecture.kind = "mpl".into());
        assert!(kind.contains("\"mpl\""), "{kind}");
        let width = cause(|new| new.features = 3);
        assert!(width.ends_with("the model has 2 features, the version 3"), "{width}");
        let tensors = cause(|new| new.tensors[0].name = "v".into());
        assert!(tensors.ends_with("other tensors"), "{tensors}");
    }
}
