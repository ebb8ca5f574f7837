//! Operator → Coordinator: these servers and workers are to leave, or to come back.

use serde::{Deserialize, Serialize};

use super::link::{LinkError, WireMessage, WirePart};
use crate::ids::{ServerId, View, WorkerId};
use crate::training::Leaver;

/// Takes these out of the run without a loss, or lets them in again. Sent again, it changes nothing
/// and says how far it is: an operator does so until it is settled.
#[derive(Clone, Debug, Default, PartialEq, Eq, actix::Message, Serialize, Deserialize)]
#[rtype(result = "Result<Draining, DrainError>")]
pub struct Drain {
    pub servers: Vec<ServerId>,
    pub workers: Vec<WorkerId>,
    /// They are to stay after all.
    pub back: bool,
}

/// How far it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Draining {
    pub view: View,
    /// Those of the request that are to leave, and what they still have.
    pub leaving: Vec<Leaver>,
    /// The log of views has it, and those who leave hold nothing and compute nothing any more.
    pub settled: bool,
    /// Copies beside each primary for which enough servers stay, and how many are wanted.
    pub replicas: u32,
    pub wanted: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum DrainError {
    /// Another coordinator has to know, or this one will soon.
    #[error("this coordinator doesn't lead")]
    NotLeading,
    #[error(
        "{got} can't leave, the cluster has {servers} servers; give every node the same [[nodes]]"
    )]
    NoSuchServer { got: ServerId, servers: u32 },
    #[error(
        "{got} can't leave, workers.count is {workers} at the coordinator; give every node the same workers.count"
    )]
    NoSuchWorker { got: WorkerId, workers: u32 },
    #[error(
        "no server would stay that is alive: {leaving} of {servers} would be leaving; start another one, or call one back with --back"
    )]
    NoServerStays { servers: u32, leaving: usize },
    #[error(
        "no worker would stay that is alive: {leaving} of {workers} would be leaving; start another one, or call one back with --back"
    )]
    NoWorkerStays { workers: u32, leaving: usize },
    /// There is nothing to go on without them.
    #[error("training failed: {cause}")]
    Failed { cause: String },
    #[error(transparent)]
    Link(#[from] LinkError),
}

impl DrainError {
    /// Whether another coordinator, or the same one later, may answer otherwise.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::NotLeading | Self::Link(_))
    }
}

impl WireMessage for Drain {
    const KIND: u16 = 0x011a;
    type Reply = Draining;
    type Refusal = DrainError;
}

impl WirePart for Drain {}
impl WirePart for Draining {}
impl WirePart for DrainError {}
