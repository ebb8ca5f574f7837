//! What every message that may cross the wire has in common, and how to ask for a reply.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use actix::Recipient;
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Values of a tensor or of a part of one. Shared, so that nothing is copied inside a process.
pub type Values = Arc<Vec<f32>>;

/// Bulk data of a message. It travels as raw little-endian bytes beside the MessagePack part, so
/// that it is neither encoded nor copied.
#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    F32(Values),
    Bytes(Bytes),
}

impl Body {
    /// Size on the wire, in bytes.
    pub fn byte_len(&self) -> usize {
        match self {
            Self::F32(values) => values.len() * size_of::<f32>(),
            Self::Bytes(bytes) => bytes.len(),
        }
    }
}

/// The bodies of a frame are not the ones that its message announces.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("message announces {expected}, the frame carries {got}")]
pub struct BodyError {
    pub expected: String,
    pub got: String,
}

/// A request or a reply: a typed part, and bulk data beside it.
pub trait WirePart: Serialize + DeserializeOwned + Send + 'static {
    /// Whether fields travel in their order, without their names: for what is sent in each step or for
    /// each request of a client. Where the fields of such a type change, so does the version of the protocol.
    const POSITIONAL: bool = false;

    /// The bulk data, in the order in which [`WirePart::attach`] takes it. Fields that it comes
    /// from are skipped by serde.
    fn bodies(&self) -> Vec<Body> {
        Vec::new()
    }

    /// Puts the bulk data of a received frame back.
    ///
    /// # Errors
    /// The bodies are more, fewer or of another kind than the typed part announces.
    fn attach(&mut self, bodies: Vec<Body>) -> Result<(), BodyError> {
        if bodies.is_empty() {
            return Ok(());
        }
        Err(BodyError { expected: "no body".to_owned(), got: format!("{} bodies", bodies.len()) })
    }
}

impl WirePart for () {}

/// A message that means the same in a mailbox and on the wire.
///
/// Every one of them is safe to repeat: a timeout cancels nothing, so a sender that got no answer
/// sends the same again.
pub trait WireMessage:
    actix::Message<Result = Result<Self::Reply, Self::Refusal>> + WirePart
{
    /// Names the type in a frame; each type has its own.
    const KIND: u16;
    type Reply: WirePart;
    type Refusal: WirePart + From<LinkError> + fmt::Display;
}

/// No answer came: whether the receiver acted is unknown.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum LinkError {
    #[error("no answer within {limit_ms} ms")]
    Timeout { limit_ms: u64 },
    #[error("the receiver is gone")]
    Closed,
    #[error("the connection to {node} broke or can't be made: {cause}")]
    Disconnected { node: String, cause: String },
    /// Not sent: `waiting` requests to this node are already under way.
    #[error("{waiting} requests to {node} are already waiting")]
    Busy { node: String, waiting: usize },
    /// The peer couldn't read the request, or its reply couldn't be read.
    #[error("{node} and this node don't understand each other: {cause}")]
    Protocol { node: String, cause: String },
}

/// Sends a message and waits for the answer, at most `limit`.
///
/// # Errors
/// The receiver's refusal; or [`LinkError`] in the refusal's own form where no answer came.
pub async fn ask<M>(
    receiver: &Recipient<M>,
    message: M,
    limit: Duration,
) -> Result<M::Reply, M::Refusal>
where
    M: WireMessage,
    Result<M::Reply, M::Refusal>: Send,
{
    let answer = tokio::time::timeout(limit, receiver.send(message)).await;
    answered::<M>(answer.ok(), limit)
}

/// `None`: nothing came within the limit.
pub(crate) fn answered<M: WireMessage>(
    answer: Option<Result<M::Result, actix::MailboxError>>,
    limit: Duration,
) -> Result<M::Reply, M::Refusal> {
    match answer {
        Some(Ok(answer)) => answer,
        Some(Err(actix::MailboxError::Closed)) => Err(LinkError::Closed.into()),
        Some(Err(actix::MailboxError::Timeout)) | None => {
            let limit_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
            Err(LinkError::Timeout { limit_ms }.into())
        }
    }
}
