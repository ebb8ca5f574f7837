//! Service → Predictor: what does a model say to these rows?

use serde::{Deserialize, Serialize};

use super::tensors::take_f32;
use crate::messages::{Body, BodyError, FindError, LinkError, Values, WireMessage, WirePart};
use crate::version::VersionRef;

/// Asks for the outputs of some rows.
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
    /// Nanoseconds that the model took for it.
    pub compute_ns: u64,
    /// Shape `[rows, outputs]`, row-major, finite.
    #[serde(skip)]
    pub values: Values,
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
    #[error("{limit} predictions are under way already")]
    Busy { limit: usize },
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
        Predict {
            model: "m".into(),
            version: VersionRef::Latest,
            rows: 2,
            features: 2,
            inputs: Values::default(),
        }
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
