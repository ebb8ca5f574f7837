//! What a node says instead of an answer.

use gradmesh_actors::messages::{LinkError, WirePart};
use serde::{Deserialize, Serialize};

use super::message::{decode, encode};
use super::{Class, Frame, Target};

/// Why a request didn't reach an actor, or why the connection ends; the typed part of a frame of
/// [`Class::Error`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum Fault {
    /// No such actor runs on the node: not yet, or no longer.
    #[error("there is no {target} here")]
    NoTarget { target: Target },
    #[error("{target} takes no message of kind {kind}")]
    UnknownKind { target: Target, kind: u16 },
    /// The actor stopped before it answered.
    #[error("{target} is gone")]
    Gone { target: Target },
    #[error("{waiting} requests of this connection are already waiting")]
    Busy { waiting: usize },
    /// The connection closes after this one.
    #[error("message of kind {kind}: {cause}")]
    Undecodable { kind: u16, cause: String },
    #[error("the reply to kind {kind} can't be sent: {cause}")]
    Unsendable { kind: u16, cause: String },
    /// The connection closes after this one.
    #[error("{cause}")]
    Connection { cause: String },
}

impl WirePart for Fault {}

impl Fault {
    /// What the sender of the request makes of it.
    #[must_use]
    pub fn into_link_error(self, node: &str) -> LinkError {
        match self {
            Self::NoTarget { .. } | Self::Gone { .. } => LinkError::Closed,
            Self::Busy { waiting } => LinkError::Busy { node: node.to_owned(), waiting },
            Self::UnknownKind { .. }
            | Self::Undecodable { .. }
            | Self::Unsendable { .. }
            | Self::Connection { .. } => {
                LinkError::Protocol { node: node.to_owned(), cause: self.to_string() }
            }
        }
    }

    /// The frame that carries it, in answer to `request` (0: the connection itself).
    #[must_use]
    pub fn to_frame(&self, kind: u16, request: u64, target: Target) -> Frame {
        // A plain enum of numbers and texts always has a MessagePack form; without one the frame
        // still says that there was an error.
        let meta = encode(self).map(|(meta, _)| meta).unwrap_or_default();
        Frame { class: Class::Error, kind, request, target, meta, bodies: Vec::new() }
    }

    /// Reads an error frame.
    #[must_use]
    pub fn from_frame(frame: Frame) -> Self {
        decode(&frame.meta, frame.bodies).unwrap_or_else(|error| Self::Connection {
            cause: format!("an error frame that can't be read: {error}"),
        })
    }
}
