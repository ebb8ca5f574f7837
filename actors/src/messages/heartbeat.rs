//! Node → Coordinator: these actors are alive here; what they run, if asked.

use serde::{Deserialize, Serialize};

use super::link::{LinkError, WireMessage, WirePart};
use crate::ids::{Incarnation, ShardCopy, View, WorkerId};
use crate::plan::JobOffer;

/// An actor that the coordinator has an eye on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Member {
    Copy(ShardCopy),
    Worker(WorkerId),
}

impl std::fmt::Display for Member {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Copy(copy) => copy.fmt(f),
            Self::Worker(worker) => worker.fmt(f),
        }
    }
}

/// Sent by each node, for all its actors, until it is answered and when it has changed: a beat of the
/// connection stands for it in between, every `detector.heartbeat_ms`. To its own coordinator, a node
/// sends it that often.
#[derive(Clone, Debug, PartialEq, actix::Message, Serialize, Deserialize)]
#[rtype(result = "Result<HeartbeatAck, HeartbeatError>")]
pub struct Heartbeat {
    pub node: String,
    /// Which life of the node's process.
    pub life: Incarnation,
    /// Another one for each word of this life that says something else.
    pub number: u32,
    /// Actors that run here, and which life of each. One that gave up is left out.
    pub members: Vec<(Member, Incarnation)>,
    /// What the node's workers would train, if the coordinator asked for it.
    pub offer: Option<Box<JobOffer>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeartbeatAck {
    pub view: View,
    /// The coordinator doesn't know what this node's workers train: tell it with the next one.
    pub offer_wanted: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum HeartbeatError {
    /// The node's workers must not take part.
    #[error(
        "{node} would train something else: {what} is {got} there, {expected} elsewhere; give every node the same {what}"
    )]
    OtherJob { node: String, what: String, expected: String, got: String },
    /// Another coordinator has to know, or this one will soon.
    #[error("this coordinator doesn't lead")]
    NotLeading,
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The node counts more of them than the coordinator does.
    #[error(
        "{node} runs {member}, but {key} is {limit} at the coordinator; give every node the same {key}"
    )]
    NoSuchMember { node: String, member: Member, key: String, limit: u32 },
}

impl WireMessage for Heartbeat {
    const KIND: u16 = 0x0107;
    type Reply = HeartbeatAck;
    type Refusal = HeartbeatError;
}

impl WirePart for Heartbeat {}
impl WirePart for HeartbeatAck {}
impl WirePart for HeartbeatError {}
