//! An inference request, and the answer to it.

use std::time::Duration;

use bytes::Bytes;
use gradmesh_actors::messages::Prediction;
use gradmesh_actors::request_queue::Priority;
use gradmesh_actors::version::ServedVersion;

use super::classification::classify;
use super::{CLASS, Datatype, INPUT, NamedTensor, OUTPUT, Tensor};
use crate::service::api_error::ApiError;

/// What is asked of a model. Its form is right; whether it fits the model is not known yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::service) struct InferRequest {
    /// Echoed.
    pub(in crate::service) id: Option<String>,
    pub(in crate::service) inputs: Vec<NamedTensor>,
    /// All outputs where there are none.
    pub(in crate::service) outputs: Vec<RequestedOutput>,
    pub(in crate::service) turn: Turn,
}

/// When a request is to be answered, and until when.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::service) struct Turn {
    pub(in crate::service) priority: Priority,
    /// How long its sender waits, where it has said so.
    pub(in crate::service) timeout: Option<Duration>,
    /// Requests of one key get the same version, where no version is named. Empty for any.
    pub(in crate::service) routing_key: String,
}

impl Turn {
    /// From the protocol's parameters. `priority`: 1 goes first, 3 and more last, 0 stands for 2.
    /// `timeout_us`: microseconds, 0 for none.
    pub(in crate::service) fn new(
        priority: Option<u64>,
        timeout_us: Option<u64>,
        routing_key: Option<String>,
    ) -> Self {
        let priority = match priority {
            Some(1) => Priority::First,
            None | Some(0 | 2) => Priority::Normal,
            Some(3..) => Priority::Last,
        };
        let timeout = timeout_us.filter(|&limit| limit > 0).map(Duration::from_micros);
        Self { priority, timeout, routing_key: routing_key.unwrap_or_default() }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::service) struct RequestedOutput {
    pub(in crate::service) name: String,
    /// The largest so many values of a row as text, in place of all of them as numbers; ≥ 1.
    pub(in crate::service) classification: Option<usize>,
}

/// What a version answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::service) struct InferResponse {
    pub(in crate::service) model: String,
    pub(in crate::service) version: ServedVersion,
    pub(in crate::service) id: Option<String>,
    /// Of the training state that it is, or was published from.
    pub(in crate::service) digest: String,
    /// In the order in which they were asked for.
    pub(in crate::service) outputs: Vec<NamedTensor>,
}

impl InferRequest {
    /// The request that is nothing but the values of one row, FP32.
    ///
    /// # Errors
    /// The bytes are no FP32 values.
    pub(in crate::service) fn of_row(bytes: Bytes) -> Result<Self, ApiError> {
        let shape = vec![1, bytes.len() / size_of::<f32>()];
        let tensor = Tensor::new(Datatype::Fp32, shape, bytes)?;
        let inputs = vec![NamedTensor { name: INPUT.to_owned(), tensor }];
        Ok(Self { id: None, inputs, outputs: Vec::new(), turn: Turn::default() })
    }
}

impl InferResponse {
    /// The answer to a request, with the outputs that it asks for.
    ///
    /// # Errors
    /// The model has no such output, or not in that form.
    pub(super) fn new(
        id: Option<String>,
        requested: &[RequestedOutput],
        prediction: &Prediction,
    ) -> Result<Self, ApiError> {
        let own = prediction.outputs.iter().map(|output| output.name.as_str());
        let known: Vec<&str> = own.chain(prediction.classes.map(|_| CLASS)).collect();
        let all = known.iter().map(|&name| (name, None));
        let asked: Vec<(&str, Option<usize>)> = match requested {
            [] => all.collect(),
            asked => asked.iter().map(|one| (one.name.as_str(), one.classification)).collect(),
        };
        let mut outputs: Vec<NamedTensor> = Vec::with_capacity(asked.len());
        for (name, classification) in asked {
            if outputs.iter().any(|output| output.name == name) {
                return Err(ApiError::bad(format!("output {name:?} is requested twice")));
            }
            let output = prediction.outputs.iter().find(|output| output.name == name);
            if !known.contains(&name) {
                let (model, known) = (&prediction.model, known.join(", "));
                let text = format!("{model} has no output {name:?}; it has {known}");
                return Err(ApiError::bad(text));
            }
            let tensor = match output {
                Some(output) => shown(output, classification)?,
                None if classification.is_some() => {
                    let text =
                        format!("{CLASS:?} has no classification; ask for that of {OUTPUT:?}");
                    return Err(ApiError::bad(text));
                }
                None => classes(prediction)?,
            };
            outputs.push(NamedTensor { name: name.to_owned(), tensor });
        }
        let Prediction { model, version, digest, .. } = prediction;
        Ok(Self { model: model.clone(), version: *version, id, digest: digest.clone(), outputs })
    }
}

/// An output of the model, or the largest so many values of each of its rows as text.
fn shown(output: &NamedTensor, classification: Option<usize>) -> Result<Tensor, ApiError> {
    let NamedTensor { name, tensor } = output;
    let Some(largest) = classification else { return Ok(tensor.clone()) };
    match tensor.shape() {
        &[_, width] if tensor.datatype() == Datatype::Fp32 => {
            Ok(classify(&tensor.f32s(), width, largest)?)
        }
        shape => {
            let datatype = tensor.datatype();
            let text = format!(
                "output {name:?} is {datatype} of shape {shape:?}; only FP32 of shape [rows, classes] has a classification"
            );
            Err(ApiError::bad(text))
        }
    }
}

/// The first of the largest outputs of each row.
fn classes(prediction: &Prediction) -> Result<Tensor, super::TensorError> {
    let largest = |row: &[f32]| {
        let better = |best: usize, at: usize| if row[at] > row[best] { at } else { best };
        (0..row.len()).fold(0, better)
    };
    let (values, width) = prediction.values();
    // A row of a classifier has at least one output; `max` keeps a broken one from a panic here.
    let rows = values.chunks_exact(width.max(1));
    let bytes: Vec<u8> = rows.flat_map(|row| (largest(row) as i64).to_le_bytes()).collect();
    Tensor::new(Datatype::Int64, vec![prediction.rows], bytes.into())
}
