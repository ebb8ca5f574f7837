//! A version that is ready to answer: the model, its parameters, and the checks around them.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use ndarray::Array2;

use crate::layout::Layout;
use crate::messages::{FetchedModel, Predict, PredictError, Prediction, Resolved};
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
        Ok(Self { description, model, parameters })
    }

    /// Answers a request: checks its rows, scales them, and asks the model.
    ///
    /// # Errors
    /// The rows don't fit the model or aren't finite; or the model's answer isn't, or it panics
    /// ([`PredictError::Model`]).
    pub fn predict(&self, request: &Predict) -> Result<Prediction, PredictError> {
        let mut inputs = self.inputs(request)?;
        let values = catch_unwind(AssertUnwindSafe(|| {
            self.description.scaling.apply(&mut inputs);
            self.model.predict(&self.parameters, inputs.view())
        }))
        .map_err(|panic| self.failed(panic_text(panic.as_ref())))?;
        let expected = (request.rows, self.description.outputs);
        if values.dim() != expected {
            let got = values.dim();
            return Err(self.failed(format!("its answer has shape {got:?}, not {expected:?}")));
        }
        if let Some(((row, output), value)) = values.indexed_iter().find(|(_, v)| !v.is_finite()) {
            return Err(self.failed(format!("output {output} of row {row} is {value}")));
        }
        Ok(Prediction {
            model: self.description.model.clone(),
            version: self.description.version,
            digest: self.description.digest.clone(),
            classes: self.description.classes,
            rows: request.rows,
            outputs: self.description.outputs,
            resolved: Resolved::Now,
            compute_ns: 0,
            // `iter` goes in row-major order, whatever order the model left its answer in.
            values: Arc::new(values.iter().copied().collect()),
        })
    }

    fn inputs(&self, request: &Predict) -> Result<Array2<f32>, PredictError> {
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
        Array2::from_shape_vec((rows, features), request.inputs.to_vec())
            .map_err(|_| PredictError::Length { rows, features, got })
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
            assert!(inputs[[0, 0]] != 13.0, "thirteen");
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
        Predict {
            model: "m".into(),
            version: VersionRef::Latest,
            rows: inputs.len() / features,
            features,
            inputs: Values::new(inputs.to_vec()),
        }
    }

    fn refused(features: usize, inputs: &[f32]) -> String {
        load(|_| {}).unwrap().predict(&rows(features, inputs)).unwrap_err().to_string()
    }

    #[test]
    fn rows_are_scaled_before_the_model_sees_them() {
        let scaled = load(|new| {
            new.scaling = Scaling::Standard { mean: vec![1.0, 0.0], deviation: vec![2.0, 1.0] };
        });
        let answer = scaled.unwrap().predict(&rows(2, &[3.0, 4.0, 1.0, 0.5])).unwrap();
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
