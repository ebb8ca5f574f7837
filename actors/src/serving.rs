//! A version that is ready to answer: the model, its parameters, and the checks around them.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use ndarray::Array2;

use crate::layout::Layout;
use crate::messages::{FetchedModel, Predict, PredictError, Prediction, Resolved, Run, Values};
use crate::model::Model;
use crate::model::ModelKinds;
use crate::version::VersionDescription;

/// One published version in memory.
#[derive(Debug)]
pub struct ServedModel {
    description: VersionDescription,
    model: Arc<dyn Model>,
    /// The whole flat space.
    parameters: Vec<f32>,
    /// Nanoseconds a row, by the last runs; 0 before the first one.
    row_ns: AtomicU64,
    /// Nanoseconds of the shortest of the last runs: what a run takes however few rows it has.
    least_ns: AtomicU64,
    panicked: AtomicBool,
}

impl ServedModel {
    /// Builds the model of a version and lays its tensors out.
    ///
    /// # Errors
    /// [`PredictError::Load`]: the kind is not known, its factory refuses the settings or panics,
    /// or the model has other tensors, features or outputs than the version.
    pub fn new(kinds: &ModelKinds, fetched: FetchedModel) -> Result<Self, PredictError> {
        let FetchedModel { description, tensors } = fetched;
        let refuse = |cause: String| PredictError::Load {
            model: description.model.clone(),
            version: description.version,
            cause,
        };
        let build = || -> Result<_, String> {
            let model = kinds.build(&description.architecture).map_err(|e| e.to_string())?;
            let specs = model.tensors();
            Ok((model.features(), model.outputs(), specs, model))
        };
        let built = catch_unwind(AssertUnwindSafe(build));
        let built = built.unwrap_or_else(|panic| Err(panic_text(panic.as_ref())));
        let (features, outputs, specs, model) = built.map_err(&refuse)?;
        let layout = Layout::new(specs).map_err(|cause| refuse(cause.to_string()))?;
        let described = description.tensors.iter().map(|tensor| (&tensor.name, &tensor.shape));
        if !described.eq(layout.tensors().iter().map(|spec| (&spec.name, &spec.shape))) {
            let kind = &description.architecture.kind;
            return Err(refuse(format!("a {kind} of these settings has other tensors")));
        }
        for (what, model, version) in [
            ("features", features, description.features),
            ("outputs", outputs, description.outputs),
        ] {
            if model != version {
                return Err(refuse(format!("the model has {model} {what}, the version {version}")));
            }
        }
        let parameters: Vec<f32> =
            tensors.iter().flat_map(|tensor| tensor.iter().copied()).collect();
        if parameters.len() != layout.len() {
            let (expected, got) = (layout.len(), parameters.len());
            return Err(refuse(format!("it has {got} parameters, the model {expected}")));
        }
        Ok(Self {
            description,
            model,
            parameters,
            row_ns: AtomicU64::new(0),
            least_ns: AtomicU64::new(0),
            panicked: AtomicBool::new(false),
        })
    }

    pub fn version(&self) -> u64 {
        self.description.version
    }

    /// Whether the model has ever panicked.
    pub fn has_panicked(&self) -> bool {
        self.panicked.load(Ordering::Relaxed)
    }

    /// A run over a row of zeros, whatever the model says to that: what it makes ready for its first
    /// run is ready then.
    pub fn try_out(&self) {
        let _ = self.together(vec![0.0; self.description.features], &[1]);
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

    /// Answers requests that came together, in their order: checks the rows of each, scales them, and
    /// asks the model for all of them at once.
    ///
    /// # Errors
    /// Of each request: its rows don't fit the model or aren't finite; or the model's answer to them
    /// isn't, or it panics at them ([`PredictError::Model`]). Those beside it don't suffer.
    pub fn predict(&self, requests: Vec<Predict>) -> Vec<Result<Prediction, PredictError>> {
        let fits: Vec<_> = requests.iter().map(|request| self.check(request)).collect();
        let (fit, rows): (Vec<Values>, Vec<usize>) = std::iter::zip(requests, &fits)
            .filter(|(_, fits)| fits.is_ok())
            .map(|(request, _)| (request.inputs, request.rows))
            .unzip();
        let mut answers = self.each(fit, &rows).into_iter();
        let answers = fits.into_iter().map(|fits| {
            fits.and_then(|()| answers.next().unwrap_or(Err(self.failed("no answer".to_owned()))))
        });
        answers.collect()
    }

    fn each(
        &self,
        mut inputs: Vec<Values>,
        rows: &[usize],
    ) -> Vec<Result<Prediction, PredictError>> {
        if inputs.len() <= 1 {
            // Nobody else has it, as a rule.
            let one = inputs.pop().map(|one| self.together(Arc::unwrap_or_clone(one), rows));
            return one.map_or_else(Vec::new, |one| one.unwrap_or_else(|error| vec![Err(error)]));
        }
        let mut all = Vec::with_capacity(inputs.iter().map(|one| one.len()).sum());
        inputs.iter().for_each(|one| all.extend_from_slice(one));
        self.together(all, rows).unwrap_or_else(|_| {
            // One of them is to blame, and only alone does each show whether it is that one.
            let one = |(inputs, rows)| self.each(vec![inputs], std::slice::from_ref(rows));
            std::iter::zip(inputs, rows).flat_map(one).collect()
        })
    }

    /// One run of the model.
    fn together(
        &self,
        inputs: Vec<f32>,
        rows: &[usize],
    ) -> Result<Vec<Result<Prediction, PredictError>>, PredictError> {
        let all = rows.iter().sum();
        let inputs = Array2::from_shape_vec((all, self.description.features), inputs);
        let inputs = inputs.map_err(|error| self.failed(error.to_string()))?;
        let values = self.values(inputs)?;
        let mut rest = &values[..];
        let answers = rows.iter().enumerate().map(|(at, &rows)| {
            let (part, others) = rest.split_at(rows * self.description.outputs);
            rest = others;
            self.prediction(rows, part, Run { rows: all, first: at == 0 })
        });
        Ok(answers.collect())
    }

    /// What the model says, row-major.
    fn values(&self, mut inputs: Array2<f32>) -> Result<Vec<f32>, PredictError> {
        let expected = (inputs.nrows(), self.description.outputs);
        let values = catch_unwind(AssertUnwindSafe(|| {
            self.description.scaling.apply(&mut inputs);
            self.model.predict(&self.parameters, inputs.view())
        }))
        .map_err(|panic| {
            self.panicked.store(true, Ordering::Relaxed);
            self.failed(panic_text(panic.as_ref()))
        })?;
        if values.dim() != expected {
            let got = values.dim();
            return Err(self.failed(format!("its answer has shape {got:?}, not {expected:?}")));
        }
        // Row-major, whatever order the model left its answer in.
        Ok(values.as_slice().map_or_else(|| values.iter().copied().collect(), <[f32]>::to_vec))
    }

    fn prediction(
        &self,
        rows: usize,
        values: &[f32],
        run: Run,
    ) -> Result<Prediction, PredictError> {
        if let Some(index) = values.iter().position(|value| !value.is_finite()) {
            let (row, output) =
                (index / self.description.outputs, index % self.description.outputs);
            return Err(self.failed(format!("output {output} of row {row} is {}", values[index])));
        }
        Ok(Prediction {
            model: self.description.model.clone(),
            version: self.description.version,
            digest: self.description.digest.clone(),
            classes: self.description.classes,
            rows,
            outputs: self.description.outputs,
            resolved: Resolved::Now,
            compute_ns: 0,
            run,
            values: Arc::new(values.to_vec()),
        })
    }

    fn check(&self, request: &Predict) -> Result<(), PredictError> {
        let (rows, features) = (request.rows, request.features);
        if rows == 0 {
            return Err(PredictError::NoRows);
        }
        if features != self.description.features {
            let (model, expected) = (self.description.model.clone(), self.description.features);
            return Err(PredictError::Features { model, expected, got: features });
        }
        let got = request.inputs.len();
        if rows.checked_mul(features) != Some(got) {
            return Err(PredictError::Length { rows, features, got });
        }
        if let Some(index) = request.inputs.iter().position(|value| !value.is_finite()) {
            let (row, feature) = (index / features, index % features);
            return Err(PredictError::NotFinite { row, feature });
        }
        Ok(())
    }

    fn failed(&self, cause: String) -> PredictError {
        let (model, version) = (self.description.model.clone(), self.description.version);
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
    use ndarray::ArrayView2;

    use super::*;
    use crate::dataset::Scaling;
    use crate::layout::{Init, TensorSpec};
    use crate::messages::Values;
    use crate::model::{Batch, ModelDescription, Score};
    use crate::new_version::NewVersion;
    use crate::new_version::tests::{artifact, new_version};
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
            FetchedModel { description, tensors: vec![vec![1.0, 10.0].into()] },
        )
    }

    fn rows(features: usize, inputs: &[f32]) -> Predict {
        let count = inputs.len() / features;
        Predict::new("m", VersionRef::Latest, count, features, Values::new(inputs.to_vec()))
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
        assert_eq!((answer.version, answer.rows, answer.outputs), (3, 2, 1));
        assert_eq!(*answer.values, [41.0, 5.0]);
    }

    #[test]
    fn rows_that_do_not_fit_the_model_are_refused_with_the_numbers() {
        assert_eq!(refused(3, &[1.0; 3]), "a row of m has 2 features, the request has 3");
        assert_eq!(refused(2, &[1.0, 1.0, 1.0]), "inputs of shape [1, 2] can't have 3 values");
        let infinite = refused(2, &[1.0, 1.0, 1.0, f32::INFINITY]);
        assert_eq!(infinite, "feature 1 of row 1 is not a finite number");
        assert!(refused(2, &[]).starts_with("a request without rows"));
    }

    #[test]
    fn a_model_that_panics_or_answers_nan_is_an_error_of_that_version() {
        assert_eq!(refused(2, &[13.0, 1.0]), "version 3 of m failed: it panicked: thirteen");
        assert_eq!(refused(2, &[14.0, 1.0]), "version 3 of m failed: output 0 of row 0 is NaN");
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
            assert_eq!(alone.map(|answer| answer.values), answer.clone().map(|a| a.values));
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
