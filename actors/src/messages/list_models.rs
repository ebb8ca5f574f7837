//! Anyone → ModelRegistry: which models are there?

use serde::{Deserialize, Serialize};

use crate::catalog::ModelSummary;
use crate::messages::{FindError, WireMessage, WirePart};

/// Asks for all models that have a version.
#[derive(Clone, Copy, Debug, actix::Message, Serialize, Deserialize)]
#[rtype(result = "Result<ModelList, FindError>")]
pub struct ListModels {}

impl WirePart for ListModels {}

impl WireMessage for ListModels {
    const KIND: u16 = 0x0203;
    type Reply = ModelList;
    type Refusal = FindError;
}

/// By name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelList {
    pub models: Vec<ModelSummary>,
}

impl WirePart for ModelList {}
