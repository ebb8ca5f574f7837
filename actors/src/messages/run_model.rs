//! Predictor → Runner, local: what takes long, on a thread of its own.

use std::sync::Arc;
use std::time::Duration;

use crate::messages::{FetchedModel, Predict, PredictError, Prediction};
use crate::model::ModelKinds;
use crate::serving::ServedModel;

/// Asks for the answers to requests that go together.
#[derive(Clone, Debug, actix::Message)]
#[rtype(result = "Ran")]
pub struct RunModel {
    pub served: Arc<ServedModel>,
    pub requests: Vec<Predict>,
}

/// What the model said.
#[derive(Debug)]
pub struct Ran {
    /// In the order of the requests.
    pub answers: Vec<Result<Prediction, PredictError>>,
    /// The time of the run alone.
    pub took: Duration,
}

/// Asks for a version that is ready to answer. Its first runs are behind it.
#[derive(Clone, Debug, actix::Message)]
#[rtype(result = "Result<ServedModel, PredictError>")]
pub struct BuildModel {
    pub kinds: ModelKinds,
    pub fetched: FetchedModel,
    /// What the version is made of.
    pub members: Vec<Arc<ServedModel>>,
}
