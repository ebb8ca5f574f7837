//! Service → Predictor: what does a model say to these tensors?

use std::borrow::Cow;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::messages::{Body, BodyError, FindError, LinkError, Values, WireMessage, WirePart};
use crate::request_queue::Priority;
use crate::tensor::{NamedTensor, Tensor, TensorError};
use crate::version::{ServedVersion, VersionRef};

/// The one input of a model of rows.
pub const INPUT: &str = "input";

/// The values that it computes.
pub const OUTPUT: &str = "output";

/// How long a request waits whose sender says nothing of it: past what callers wait for.
const LIMIT: Duration = Duration::from_secs(10);

/// Asks a model. Safe to repeat: it changes nothing.
#[derive(Clone, Debug, actix::Message, Serialize, Deserialize)]
#[rtype(result = "Result<Prediction, PredictError>")]
pub struct Predict {
    pub model: String,
    pub version: VersionRef,
    /// What a model of rows takes is one tensor, [`INPUT`], of shape `[rows, features]`, raw: the
    /// scaling of the version is applied to it.
    pub inputs: Vec<NamedTensor>,
    /// Before or after others that wait for the same model.
    pub priority: Priority,
    /// How long its sender waits. One that is still in the queue then is not computed.
    pub limit: Duration,
    /// Where the model has a route, it chooses the version by this key, and where it has none,
    /// `version` counts. An empty key stands for any. `None`: `version` counts in any case.
    pub routed: Option<String>,
    /// What its sender calls it, for the logs of all that it passes; may be empty.
    pub request_id: String,
}

impl Predict {
    /// A request like most: of normal priority, whose sender waits 10 s.
    pub fn new(model: impl Into<String>, version: VersionRef, inputs: Vec<NamedTensor>) -> Self {
        let (model, priority) = (model.into(), Priority::Normal);
        let (routed, request_id) = (None, String::new());
        Self { model, version, inputs, priority, limit: LIMIT, routed, request_id }
    }

    /// The same for a model of rows: `inputs` has shape `[rows, features]`, row-major.
    ///
    /// # Errors
    /// `inputs` are not `rows` times `features`.
    pub fn of_rows(
        model: impl Into<String>,
        version: VersionRef,
        rows: usize,
        features: usize,
        inputs: Values,
    ) -> Result<Self, TensorError> {
        let tensor = Tensor::of_values(inputs, rows, features)?;
        let inputs = vec![NamedTensor { name: INPUT.to_owned(), tensor }];
        Ok(Self::new(model, version, inputs))
    }

    /// Rows of the first input; a tensor without dimensions is one.
    pub fn rows(&self) -> usize {
        let shape = self.inputs.first().map_or(&[][..], |input| input.tensor.shape());
        shape.first().copied().unwrap_or(1)
    }

    /// Of all inputs.
    pub fn bytes(&self) -> usize {
        self.inputs.iter().map(|input| input.tensor.bytes().len()).sum()
    }
}

impl WirePart for Predict {
    const POSITIONAL: bool = true;

    fn bodies(&self) -> Vec<Body> {
        bodies_of(&self.inputs)
    }

    fn attach(&mut self, bodies: Vec<Body>) -> Result<(), BodyError> {
        take_tensors(&mut self.inputs, bodies)
    }
}

impl WireMessage for Predict {
    const KIND: u16 = 0x0300;
    type Reply = Prediction;
    type Refusal = PredictError;
}

/// The outputs, and who computed them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Prediction {
    pub model: String,
    pub version: ServedVersion,
    /// Digest of the training state that it is, or was published from.
    pub digest: String,
    /// Set for a classifier: the outputs of a row are the probabilities of its classes.
    pub classes: Option<usize>,
    pub rows: usize,
    pub resolved: Resolved,
    /// Nanoseconds that the model took for it and for those that it was asked together with.
    pub compute_ns: u64,
    pub run: Run,
    /// Of a model of rows one, [`OUTPUT`]: FP32 of shape `[rows, outputs]`, finite.
    pub outputs: Vec<NamedTensor>,
}

impl Prediction {
    /// The values of the first output, row-major, and how many of them belong to a row; none where
    /// it is not FP32.
    pub fn values(&self) -> (Cow<'_, [f32]>, usize) {
        let Some(NamedTensor { tensor, .. }) = self.outputs.first() else {
            return (Cow::Borrowed(&[]), 0);
        };
        let values = tensor.f32s();
        let width = values.len() / self.rows.max(1);
        (values, width)
    }
}

/// The run of the model that an answer comes from: requests that wait together share one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// Of all its requests.
    pub rows: usize,
    /// Of each run one answer is the first: whoever counts runs counts those.
    pub first: bool,
}

/// How the name of a version became a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Resolved {
    /// A registry said it for this request.
    Now,
    /// No registry answers; it is what the name meant when one did last.
    Before,
}

impl WirePart for Prediction {
    const POSITIONAL: bool = true;

    fn bodies(&self) -> Vec<Body> {
        bodies_of(&self.outputs)
    }

    fn attach(&mut self, bodies: Vec<Body>) -> Result<(), BodyError> {
        take_tensors(&mut self.outputs, bodies)
    }
}

/// Why there is no prediction.
#[derive(Clone, Debug, PartialEq, thiserror::Error, Serialize, Deserialize)]
pub enum PredictError {
    /// The registry names no such version, or does not answer.
    #[error(transparent)]
    Registry(#[from] FindError),
    #[error("{model} was unloaded and is not served until it is loaded again")]
    Unloaded { model: String },
    #[error("a request without rows has no prediction; send at least one row")]
    NoRows,
    #[error("a row of {model} has {expected} features, the request has {got}")]
    Features { model: String, expected: usize, got: usize },
    /// Another number of inputs, or an input of another name, datatype or shape than the model has.
    #[error("{cause}")]
    Input { model: String, cause: String },
    #[error("feature {feature} of row {row} is not a finite number")]
    NotFinite { row: usize, feature: usize },
    /// The version can't be served: published wrongly, or its kind isn't known to this program.
    #[error("version {version} of {model} can't be loaded: {cause}")]
    Load { model: String, version: ServedVersion, cause: String },
    /// The model's own fault.
    #[error("version {version} of {model} failed: {cause}")]
    Model { model: String, version: ServedVersion, cause: String },
    #[error(
        "{limit} requests wait for {model} already; try again, or raise service.queue or \
         service.instances"
    )]
    Full { model: String, limit: usize },
    #[error("{limit} predictions are under way already; try again")]
    Busy { limit: usize },
    #[error("inputs of {limit} bytes wait for predictions already; try again")]
    Bytes { limit: usize },
    /// Its sender's time was over before its turn came.
    #[error("no turn for {model} within {waited_ms} ms; send less, or raise service.instances")]
    Late { model: String, waited_ms: u64 },
    #[error(
        "version {version} of {model} has {bytes} bytes, all models together may have {budget}; \
         raise service.memory_mb"
    )]
    TooLarge { model: String, version: u64, bytes: u64, budget: u64 },
    #[error(transparent)]
    Link(#[from] LinkError),
}

impl WirePart for PredictError {}

fn bodies_of(tensors: &[NamedTensor]) -> Vec<Body> {
    tensors.iter().map(|named| Body::Bytes(named.tensor.bytes().clone())).collect()
}

/// The bytes of tensors of which a message has said all else.
fn take_tensors(tensors: &mut [NamedTensor], bodies: Vec<Body>) -> Result<(), BodyError> {
    if bodies.len() != tensors.len() {
        let (expected, got) = (tensors.len(), bodies.len());
        let (expected, got) = (format!("{expected} bodies"), format!("{got} bodies"));
        return Err(BodyError { expected, got });
    }
    for (named, body) in tensors.iter_mut().zip(bodies) {
        let got = format!("{} bytes", body.byte_len());
        let Body::Bytes(bytes) = body else {
            return Err(BodyError { expected: "plain bytes".to_owned(), got });
        };
        let whole = named.tensor.clone().with_bytes(bytes);
        named.tensor = whole.map_err(|error| BodyError { expected: error.to_string(), got })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn predict() -> Predict {
        Predict::of_rows("m", VersionRef::Latest, 2, 2, vec![1.0; 4].into()).unwrap()
    }

    /// As a message arrives: its tensors have no bytes yet.
    fn arrived() -> Predict {
        serde_json::from_str(&serde_json::to_string(&predict()).unwrap()).unwrap()
    }

    fn body(bytes: usize) -> Body {
        Body::Bytes(bytes::Bytes::from(vec![0; bytes]))
    }

    #[test]
    fn bodies_of_the_announced_tensors_are_taken() {
        let mut message = arrived();
        assert_eq!(message.bytes(), 0);
        message.attach(predict().bodies()).unwrap();
        assert_eq!(message.inputs, predict().inputs);
        assert_eq!((message.rows(), message.bytes()), (2, 16));
    }

    #[test]
    fn bodies_that_are_not_the_announced_ones_are_refused() {
        let values = Body::F32(vec![1.0; 4].into());
        for bodies in [vec![], vec![body(15)], vec![body(16), body(16)], vec![values]] {
            assert!(arrived().attach(bodies.clone()).is_err(), "{bodies:?}");
        }
    }
}
