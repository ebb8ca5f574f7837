//! Where a run is, and what it asks of the world.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{ClusterState, Leaving, Published};
use crate::checkpoint::{Finished, Manifest};
use crate::ids::{ShardCopy, View, WorkerId};
use crate::membership::Patience;
use crate::messages::checkpoint_store::OpenCheckpoints;
use crate::messages::{AdoptView, LeaseSlots, RestoreShard};
use crate::placement::Holders;
use crate::reduction::Span;

/// What a run needs to know of its cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrainingConfig {
    /// Shards that the parameters are cut into.
    pub shards: u32,
    /// Servers that are waited for, at most `gather_for`.
    pub servers: u32,
    /// Copies of each shard beside its primary, where there are servers for them.
    pub replicas: u32,
    /// Workers that are waited for, at most `gather_for`.
    pub workers: u32,
    /// Whether slots move from slow workers to fast ones.
    pub rebalance: bool,
    pub checkpoint_every: u64,
    pub patience: Patience,
    /// How long to wait for missing servers and workers before the run starts without them.
    pub gather_for: Duration,
    /// The same when it has to start again from a checkpoint.
    pub gather_again_for: Duration,
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
    /// Append this to the log of views, as the entry after that of `above`
    /// → [`super::Training::view_raised`].
    RaiseView { above: View, state: Box<ClusterState> },
    /// → [`super::Training::copy_answered`].
    Restore(Box<RestoreShard>),
    /// → [`super::Training::copy_answered`].
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
    /// Shards go on with what they have; copies and slots move.
    Continue,
    /// Everyone goes to the last whole checkpoint, or to version 0.
    Rollback,
}

/// Who is to do what in the next view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Assignment {
    pub(super) recovery: Recovery,
    /// By shard.
    pub(super) holders: Vec<Holders>,
    /// Workers that are not named stand by.
    pub(super) leases: BTreeMap<WorkerId, Span>,
    /// As it was when the view was raised: what is sent again to the store is the same.
    pub(super) leaving: Leaving,
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
        /// When a server and a worker were first there.
        since: Option<Duration>,
    },
    Opening,
    /// The store says that the job is finished.
    Confirming {
        finished: Box<Finished>,
        newest: Option<Box<Manifest>>,
    },
    Raising(Assignment),
    /// Copies are told what they are. Leases follow when all have answered that have state.
    Assigning {
        copies: BTreeMap<ShardCopy, Asked>,
    },
    Running {
        /// Those that are still to be told that they learn, or hold nothing any more.
        copies: BTreeMap<ShardCopy, Asked>,
        workers: BTreeMap<WorkerId, Asked>,
    },
    Publishing,
    Done(Published),
    Failed {
        cause: String,
    },
}
