//! Where a run is, and what it asks of the world.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Published;
use crate::checkpoint::{Finished, Manifest};
use crate::ids::{ShardId, View, WorkerId};
use crate::messages::checkpoint_store::OpenCheckpoints;
use crate::messages::{AdoptView, LeaseSlots, RestoreShard};
use crate::reduction::Span;

/// What a run needs to know of its cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrainingConfig {
    /// Shards that the parameters are cut into; each is waited for.
    pub shards: u32,
    /// Workers that are waited for, at most `gather_for`.
    pub workers: u32,
    pub checkpoint_every: u64,
    pub dead_after: Duration,
    /// How long to wait for missing workers before the run starts without them.
    pub gather_for: Duration,
}

/// Something to carry out; the answer comes back as a call.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Find the newest whole checkpoint of this job, or the sign that it is finished
    /// → [`super::Training::opened`].
    Open(OpenCheckpoints),
    /// See whether the registry still has what this finished run published
    /// → [`super::Training::confirmed`].
    Confirm(Box<Finished>),
    /// → [`super::Training::view_raised`].
    RaiseView { above: View },
    /// → [`super::Training::shard_answered`].
    Restore(Box<RestoreShard>),
    /// → [`super::Training::shard_answered`].
    Adopt(AdoptView),
    /// → [`super::Training::worker_answered`].
    Lease(LeaseSlots),
    /// → [`super::Training::committed`].
    Commit(Box<Manifest>),
    /// Digest and publish the state of this checkpoint → [`super::Training::published`].
    Publish(Box<Manifest>),
}

/// How a new view begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Recovery {
    /// Shards keep what they have; slots move.
    NewLeases,
    /// Everyone goes to the last whole checkpoint, or to version 0.
    Rollback,
}

/// A request to one member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    UnderWay,
    /// No answer, or "not now": to be sent again at the next tick.
    Again,
}

#[derive(Debug)]
pub(super) enum Phase {
    /// Not everyone who is needed is there.
    Gathering {
        /// When all shards and a worker were first there.
        since: Option<Duration>,
    },
    Opening,
    /// The store says that the job is finished.
    Confirming {
        finished: Box<Finished>,
        newest: Option<Box<Manifest>>,
    },
    Raising(Recovery),
    /// Shards are told their version or view. Leases follow when all have answered.
    Assigning {
        recovery: Recovery,
        waiting: BTreeMap<ShardId, Asked>,
    },
    Running {
        leases: BTreeMap<WorkerId, Span>,
        recovery: Recovery,
        waiting: BTreeMap<WorkerId, Asked>,
    },
    Publishing,
    Done(Published),
    Failed {
        cause: String,
    },
}
