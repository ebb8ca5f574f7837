//! Service → Predictor: serve a model, or don't.

use serde::{Deserialize, Serialize};

use crate::messages::{PredictError, WireMessage, WirePart};

/// Asks to serve all versions of a model, also where it was unloaded, and to have its newest one in
/// memory. A model that can't be loaded stays what it was.
#[derive(Clone, Debug, actix::Message, Serialize, Deserialize)]
#[rtype(result = "Result<ModelLoaded, PredictError>")]
pub struct LoadModel {
    pub model: String,
}

/// The model is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelLoaded {
    /// The newest one, which is in memory.
    pub version: u64,
}

/// Asks to forget all versions of a model, and to refuse requests for it until it is loaded.
#[derive(Clone, Debug, actix::Message, Serialize, Deserialize)]
#[rtype(result = "Result<ModelUnloaded, PredictError>")]
pub struct UnloadModel {
    pub model: String,
}

/// The model is not served. Requests that were under way are still answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelUnloaded {
    /// How many of its versions were in memory.
    pub versions: usize,
}

impl WirePart for LoadModel {}
impl WirePart for ModelLoaded {}
impl WirePart for UnloadModel {}
impl WirePart for ModelUnloaded {}

impl WireMessage for LoadModel {
    const KIND: u16 = 0x0301;
    type Reply = ModelLoaded;
    type Refusal = PredictError;
}

impl WireMessage for UnloadModel {
    const KIND: u16 = 0x0302;
    type Reply = ModelUnloaded;
    type Refusal = PredictError;
}
