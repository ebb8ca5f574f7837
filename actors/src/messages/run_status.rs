//! Service, operator → Coordinator: how far the run is.

use serde::{Deserialize, Serialize};

use super::link::{LinkError, WireMessage, WirePart};
use crate::training::TrainingStatus;

/// Asks for the run's state at this moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, actix::Message, Serialize, Deserialize)]
#[rtype(result = "Result<TrainingStatus, StatusError>")]
pub struct GetStatus {}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum StatusError {
    #[error(transparent)]
    Link(#[from] LinkError),
}

impl WireMessage for GetStatus {
    const KIND: u16 = 0x010b;
    type Reply = TrainingStatus;
    type Refusal = StatusError;
}

impl WirePart for GetStatus {}
impl WirePart for TrainingStatus {}
impl WirePart for StatusError {}
