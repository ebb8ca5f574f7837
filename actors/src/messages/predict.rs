//! Service → Predictor: what does a model say to these rows?

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::tensors::take_f32;
use crate::messages::{Body, BodyError, FindError, LinkError, Values, WireMessage, WirePart};
use crate::request_queue::Priority;
use crate::version::VersionRef;

/// How long a request waits whose sender says nothing of it: past what callers wait for.
const LIMIT: Duration = Duration::from_secs(10);

/// Asks for the outputs of some rows. Safe to repeat: it changes nothing.
#[derive(Clone, Debug, actix::Message, Serialize, Deserialize)]
#[rtype(result = "Result<Prediction, PredictError>")]
pub struct Predict {
    pub model: String,
    pub version: VersionRef,
    /// ≥ 1.
    pub rows: usize,
    /// Values of a row: as many as the model has features.
    pub features: usize,
    /// Shape `[rows, features]`, row-major, raw: the scaling of the version is applied to them.
    #[serde(skip)]
    pub inputs: Values,
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
    pub fn new(
        model: impl Into<String>,
        version: VersionRef,
        rows: usize,
        features: usize,
        inputs: Values,
    ) -> Self {
        let (model, priority) = (model.into(), Priority::Normal);
        let (routed, request_id) = (None, String::new());
        Self { model, version, rows, features, inputs, priority, limit: LIMIT, routed, request_id }
    }
}

impl WirePart for Predict {
    fn bodies(&self) -> Vec<Body> {
        vec![Body::F32(self.inputs.clone())]
    }

    fn attach(&mut self, bodies: Vec<Body>) -> Result<(), BodyError> {
        self.inputs = take_one(bodies, self.rows, self.features)?;
        Ok(())
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
    pub version: u64,
    /// Digest of the training state that the version was published from.
    pub digest: String,
    /// Set for a classifier: the outputs of a row are the probabilities of its classes.
    pub classes: Option<usize>,
    pub rows: usize,
    /// Values of a row.
    pub outputs: usize,
    pub resolved: Resolved,
    /// Nanoseconds that the model took for it and for those that it was asked together with.
    pub compute_ns: u64,
    pub run: Run,
    /// Shape `[rows, outputs]`, row-major, finite.
    #[serde(skip)]
    pub values: Values,
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
    fn bodies(&self) -> Vec<Body> {
        vec![Body::F32(self.values.clone())]
    }

    fn attach(&mut self, bodies: Vec<Body>) -> Result<(), BodyError> {
        self.values = take_one(bodies, self.rows, self.outputs)?;
        Ok(())
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
    #[error("inputs of shape [{rows}, {features}] can't have {got} values")]
    Length { rows: usize, features: usize, got: usize },
    #[error("feature {feature} of row {row} is not a finite number")]
    NotFinite { row: usize, feature: usize },
    /// The version can't be served: published wrongly, or its kind isn't known to this program.
    #[error("version {version} of {model} can't be loaded: {cause}")]
    Load { model: String, version: u64, cause: String },
    /// The model's own fault.
    #[error("version {version} of {model} failed: {cause}")]
    Model { model: String, version: u64, cause: String },
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

fn take_one(bodies: Vec<Body>, rows: usize, width: usize) -> Result<Values, BodyError> {
    let values = take_f32(bodies, std::iter::once(rows.checked_mul(width)))?;
    Ok(values.into_iter().next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn predict() -> Predict {
        Predict::new("m", VersionRef::Latest, 2, 2, Values::default())
    }

    fn body(len: usize) -> Body {
        Body::F32(vec![1.0; len].into())
    }

    #[test]
    fn a_body_of_the_announced_length_is_taken() {
        let mut message = predict();
        message.attach(vec![body(4)]).unwrap();
        assert_eq!(message.inputs.len(), 4);
        assert_eq!(message.bodies(), [body(4)]);
    }

    #[test]
    fn bodies_that_are_not_the_announced_ones_are_refused() {
        let plain = Body::Bytes(bytes::Bytes::from_static(&[0; 16]));
        for bodies in [vec![], vec![body(3)], vec![body(4), body(4)], vec![plain]] {
            assert!(predict().attach(bodies.clone()).is_err(), "{bodies:?}");
        }
        let mut huge = predict();
        huge.rows = usize::MAX;
        assert!(huge.attach(vec![body(4)]).is_err());
    }
}
