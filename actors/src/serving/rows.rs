//! Models of rows of numbers, as gradmesh trains them.

use std::sync::Arc;

use ndarray::Array2;

use super::ServedModel;
use crate::layout::Layout;
use crate::messages::{INPUT, OUTPUT, Predict, PredictError, Prediction, Run, Values};
use crate::model::{Model, ModelKinds};
use crate::tensor::{NamedTensor, Tensor};
use crate::version::VersionDescription;

#[derive(Debug)]
pub(super) struct RowModel {
    model: Arc<dyn Model>,
    /// The whole flat space.
    parameters: Vec<f32>,
}

/// Rows of a request, which fit the model.
struct Rows {
    count: usize,
    values: Vec<f32>,
}

impl RowModel {
    /// Builds the model of a version and lays its tensors out.
    pub(super) fn build(
        kinds: &ModelKinds,
        description: &VersionDescription,
        tensors: &[Values],
    ) -> Result<Self, String> {
        let model = kinds.build(&description.architecture).map_err(|error| error.to_string())?;
        let layout = Layout::new(model.tensors()).map_err(|error| error.to_string())?;
        let described = description.tensors.iter().map(|tensor| (&tensor.name, &tensor.shape));
        if !described.eq(layout.tensors().iter().map(|spec| (&spec.name, &spec.shape))) {
            let kind = &description.architecture.kind;
            return Err(format!("a {kind} of these settings has other tensors"));
        }
        for (what, model, version) in [
            ("features", model.features(), description.features),
            ("outputs", model.outputs(), description.outputs),
        ] {
            if model != version {
                return Err(format!("the model has {model} {what}, the version {version}"));
            }
        }
        let parameters: Vec<f32> =
            tensors.iter().flat_map(|tensor| tensor.iter().copied()).collect();
        if parameters.len() != layout.len() {
            let (expected, got) = (layout.len(), parameters.len());
            return Err(format!("it has {got} parameters, the model {expected}"));
        }
        Ok(Self { model, parameters })
    }
}

impl ServedModel {
    /// Checks the rows of each request, scales them, and asks the model for all of them at once.
    pub(super) fn answer_rows(
        &self,
        model: &RowModel,
        requests: Vec<Predict>,
    ) -> Vec<Result<Prediction, PredictError>> {
        let rows = requests.into_iter().map(|request| self.rows(&request));
        let mut fit = Vec::new();
        let refused: Vec<Option<PredictError>> = rows
            .map(|rows| match rows {
                Ok(rows) => {
                    fit.push(rows);
                    None
                }
                Err(error) => Some(error),
            })
            .collect();
        let mut answers = self.each(model, fit).into_iter();
        let missing = || Err(self.failed("no answer".to_owned()));
        let answer = |refused: Option<PredictError>| match refused {
            Some(error) => Err(error),
            None => answers.next().unwrap_or_else(missing),
        };
        refused.into_iter().map(answer).collect()
    }

    fn each(
        &self,
        model: &RowModel,
        mut requests: Vec<Rows>,
    ) -> Vec<Result<Prediction, PredictError>> {
        if requests.len() <= 1 {
            let one = requests.pop().map(|one| self.together(model, one.values, &[one.count]));
            return one.map_or_else(Vec::new, |one| one.unwrap_or_else(|error| vec![Err(error)]));
        }
        let mut all = Vec::with_capacity(requests.iter().map(|one| one.values.len()).sum());
        requests.iter().for_each(|one| all.extend_from_slice(&one.values));
        let counts: Vec<usize> = requests.iter().map(|one| one.count).collect();
        self.together(model, all, &counts).unwrap_or_else(|_| {
            // One of them is to blame, and only alone does each show whether it is that one.
            requests.into_iter().flat_map(|one| self.each(model, vec![one])).collect()
        })
    }

    /// One run of the model. `rows`: of each request.
    pub(super) fn together(
        &self,
        model: &RowModel,
        inputs: Vec<f32>,
        rows: &[usize],
    ) -> Result<Vec<Result<Prediction, PredictError>>, PredictError> {
        let all = rows.iter().sum();
        let inputs = Array2::from_shape_vec((all, self.description.features), inputs);
        let inputs = inputs.map_err(|error| self.failed(error.to_string()))?;
        let values = self.values(model, inputs)?;
        let mut rest = &values[..];
        let answers = rows.iter().enumerate().map(|(at, &rows)| {
            let (part, others) = rest.split_at(rows * self.description.outputs);
            rest = others;
            self.of_values(rows, part, Run { rows: all, first: at == 0 })
        });
        Ok(answers.collect())
    }

    /// What the model says, row-major.
    fn values(&self, model: &RowModel, mut inputs: Array2<f32>) -> Result<Vec<f32>, PredictError> {
        let expected = (inputs.nrows(), self.description.outputs);
        let values = self.guarded(|| {
            self.description.scaling.apply(&mut inputs);
            model.model.predict(&model.parameters, inputs.view())
        })?;
        if values.dim() != expected {
            let got = values.dim();
            return Err(self.failed(format!("its answer has shape {got:?}, not {expected:?}")));
        }
        // Row-major, whatever order the model left its answer in.
        Ok(values.as_slice().map_or_else(|| values.iter().copied().collect(), <[f32]>::to_vec))
    }

    fn of_values(&self, rows: usize, values: &[f32], run: Run) -> Result<Prediction, PredictError> {
        let width = self.description.outputs;
        if let Some(index) = values.iter().position(|value| !value.is_finite()) {
            let (row, output) = (index / width, index % width);
            // What was published is finite, and so is the row: they are too large for each other.
            let (model, version) = (&self.description.model, self.description.served());
            let value = values[index];
            return Err(self.refused(format!(
                "version {version} of {model} makes {value} of row {row} (output {output}); send smaller values"
            )));
        }
        let tensor = Tensor::of_values(values.to_vec().into(), rows, width);
        let tensor = tensor.map_err(|error| self.failed(error.to_string()))?;
        let outputs = vec![NamedTensor { name: OUTPUT.to_owned(), tensor }];
        Ok(self.prediction(rows, run, outputs))
    }

    fn rows(&self, request: &Predict) -> Result<Rows, PredictError> {
        let [input] = request.inputs.as_slice() else {
            let got = request.inputs.len();
            let cause = format!("expected one input, named {INPUT:?}, got {got}");
            return Err(self.refused(cause));
        };
        if input.name != INPUT {
            return Err(self.refused(format!("no input {:?}; send {INPUT:?}", input.name)));
        }
        let refuse = |cause: String| self.refused(format!("input {INPUT:?}: {cause}"));
        let &[count, features] = input.tensor.shape() else {
            let shape = input.tensor.shape();
            return Err(refuse(format!("shape {shape:?} is not [rows, features]")));
        };
        if count == 0 {
            return Err(PredictError::NoRows);
        }
        if features != self.description.features {
            let (model, expected) = (self.description.model.clone(), self.description.features);
            return Err(PredictError::Features { model, expected, got: features });
        }
        let values = input.tensor.to_f32().map_err(|error| refuse(error.to_string()))?;
        if let Some(index) = values.iter().position(|value| !value.is_finite()) {
            let (row, feature) = (index / features, index % features);
            return Err(PredictError::NotFinite { row, feature });
        }
        Ok(Rows { count, values })
    }
}
