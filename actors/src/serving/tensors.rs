//! Models of named tensors, which were imported.

use std::sync::Arc;

use bytes::Bytes;

use super::ServedModel;
use crate::messages::{Predict, PredictError, Prediction, Run};
use crate::model::ModelKinds;
use crate::tensor::{NamedTensor, Tensor};
use crate::tensor_model::{RunError, TensorModel};
use crate::version::VersionDescription;

/// The model in the file of a version.
pub(super) fn load(
    kinds: &ModelKinds,
    description: &VersionDescription,
    file: &Bytes,
) -> Result<Arc<dyn TensorModel>, String> {
    let model = kinds.load(&description.architecture, file).map_err(|error| error.to_string())?;
    if description.signature.as_ref() != Some(model.signature()) {
        let kind = &description.architecture.kind;
        return Err(format!(
            "this {kind} has another signature here than where it was published; use the same build on all nodes"
        ));
    }
    Ok(model)
}

impl ServedModel {
    pub(super) fn answer_tensors(
        &self,
        model: &dyn TensorModel,
        request: Predict,
    ) -> Result<Prediction, PredictError> {
        let rows = request.rows();
        let signature = model.signature();
        let inputs =
            signature.arranged(request.inputs).map_err(|error| self.refused(error.to_string()))?;
        let outputs = self.run(model, inputs)?;
        let named = std::iter::zip(&signature.outputs, outputs)
            .map(|(port, tensor)| NamedTensor { name: port.name.clone(), tensor });
        Ok(self.prediction(rows, Run { rows, first: true }, named.collect()))
    }

    /// The outputs in the order of the signature.
    pub(super) fn run(
        &self,
        model: &dyn TensorModel,
        inputs: Vec<Tensor>,
    ) -> Result<Vec<Tensor>, PredictError> {
        let outputs = self.guarded(|| model.run(inputs))?;
        let outputs = outputs.map_err(|error| match error {
            RunError::Input { cause } => self.refused(cause),
            RunError::Failed { cause } => self.failed(cause),
        })?;
        model
            .signature()
            .check_outputs(&outputs)
            .map_err(|error| self.failed(error.to_string()))?;
        Ok(outputs)
    }
}
