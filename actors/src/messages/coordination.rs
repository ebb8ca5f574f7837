//! Coordinator → the coordination store of its own node. Not on the wire.
//!
//! One log for all candidates of a cluster; the number of an entry is its view. See
//! [`candidacy`](crate::candidacy) for the rule that decides what to send.

use std::time::Duration;

use bytes::Bytes;

use crate::ids::{Term, View};

/// One view of the cluster, for ever. What is in the log was there before anyone acted on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its number in the log: the first is 1, and none is left out.
    pub view: View,
    /// The first entry of a leadership has the term after the last one, later ones keep it.
    pub term: Term,
    /// Name of the candidate that appended it.
    pub leader: String,
    /// What the leader needs to go on, and its successor to take over. The store doesn't read it.
    pub state: Bytes,
}

/// The sign that a leader lives, overwritten with each renewal. It decides nothing about safety.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beat {
    pub term: Term,
    pub leader: String,
    /// Another one with each renewal: whoever sees it change knows that the leader lives.
    pub count: u64,
}

/// Appends an entry, if its number is not taken.
///
/// Safe to repeat: who asks again after [`NoAnswer`](CoordinationError::NoAnswer) and finds this
/// very entry the newest has won. So no two lives of a candidate may append the same state under one name;
/// whatever tells them apart belongs into it.
#[derive(Clone, Debug, PartialEq, Eq, actix::Message)]
#[rtype(result = "Result<Appended, CoordinationError>")]
pub struct AppendView {
    pub entry: Entry,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Appended {
    /// The entry is in the log, durably, and was the newest.
    Won,
    /// This one is the newest: the number was taken, or another entry has followed meanwhile.
    Taken(Entry),
}

/// Reads who leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, actix::Message)]
#[rtype(result = "Result<Observed, CoordinationError>")]
pub struct Observe;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    /// `None` before the first leader.
    pub newest: Option<Entry>,
    pub beat: Option<Beat>,
}

/// Shows that the leader lives, for `ttl`: a store that can tell removes the beat afterwards.
#[derive(Clone, Debug, PartialEq, Eq, actix::Message)]
#[rtype(result = "Result<(), CoordinationError>")]
pub struct RenewLease {
    pub beat: Beat,
    pub ttl: Duration,
}

/// Takes a leader's beat away, so that another candidate stands at once. Only for a leader that
/// has stopped acting.
#[derive(Clone, Debug, PartialEq, Eq, actix::Message)]
#[rtype(result = "Result<(), CoordinationError>")]
pub struct Resign {
    pub term: Term,
    pub leader: String,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CoordinationError {
    /// Another candidate leads: a zombie learns here what has happened meanwhile.
    #[error("{leader} has led since {term}, this node's leadership of {own} is over")]
    Superseded { own: Term, term: Term, leader: String },
    #[error(
        "{got} can't be appended to coordination.store {store}, whose next one is {next}; if its content was deleted while nodes ran, stop all nodes of this cluster and start them again"
    )]
    Gap { store: String, next: View, got: View },
    #[error(
        "the state of {view} has {got} bytes in coordination.store {store}, at most {max} are taken; train with fewer workers.count or servers.shards"
    )]
    TooLarge { store: String, view: View, got: usize, max: usize },
    #[error(
        "{path} in coordination.store {store} is damaged: {cause}; stop all nodes of this cluster and delete it, the view before it counts then, and training goes on from its checkpoint"
    )]
    Damaged { store: String, path: String, cause: String },
    /// Nothing was written.
    #[error("coordination.store {store} can't be used: {cause}")]
    Store { store: String, cause: String },
    /// Whether something was written is unknown: ask again.
    #[error("coordination.store {store} gave no answer: {cause}")]
    NoAnswer { store: String, cause: String },
}

impl CoordinationError {
    /// Whether the same request may succeed later: a full disk gets room, a store comes back.
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Store { .. } | Self::NoAnswer { .. })
    }
}
