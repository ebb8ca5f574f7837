//! Bugs that somebody could have written, to see whether the failure simulation finds them.
//!
//! Only a build with the feature `planted-bugs` has them, and there each is off until it is planted
//! on its thread. In any other build [`is`] is the constant `false`, and nothing of a hook is left.

/// A bug, at the one place where it would be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Bug {
    /// A part whose slots are all there is added again.
    DoubleApply,
    /// A push of the step before counts as one of the step in flight.
    StaleStep,
    /// Parts are added as they come, not by the tree.
    ArrivalOrder,
    /// A repeated push is answered before the step is applied.
    EarlyReply,
    /// The rows of a repeated push are counted again.
    RowsTwice,
    /// A shard goes on with an empty ledger.
    LedgerLost,
    /// A shard goes on with new optimizer state.
    OptimizerLost,
    /// A shard that gets no answer clips by its own norm.
    OwnNorm,
    /// A shard takes an order to restore of a view that is over.
    StaleRestore,
    /// A worker takes each lease that comes: a copy, or one of a view that is over.
    StaleLease,
    /// A worker computes a step again that was not answered, residuals included.
    ComputesAgain,
    /// A worker pulls whatever version each shard has.
    MixedVersions,
    /// A worker keeps its residuals over a rollback to the start.
    ResidualsKept,
    /// Slots move to another worker without their residuals, and nobody looks which those are of.
    ResidualsLost,
    /// Where slots don't divide by the workers, two of them get the one in between.
    LeaseTwice,
    /// The shuffle goes by the epochs that this process has seen.
    LocalShuffle,
    /// What is published is the newest checkpoint when all shards are done, not the last one.
    PublishedEarly,
    /// A manifest is written before the residuals that belong to it.
    ManifestFirst,
    /// A shard reports a part before it is written.
    ReportFirst,
    /// A new view is not written down.
    ViewForgotten,
    /// Old checkpoints are removed before the new one counts.
    RemovedFirst,
    /// A part is read without a look at its digest.
    DamageUnseen,
    /// The store acknowledges what is not on the disk yet.
    NoSync,
    /// A run that is published again gets a new version.
    PublishedTwice,
    /// Nobody hears that an actor was restarted.
    RestartUnheard,
    /// A copy that is still being filled is made the primary.
    LearnerPromoted,
    /// A primary commits what its replica has not got.
    ReplicaNotAwaited,
    /// Whoever lacks the last step when it becomes the primary's replica is taken to have it.
    LastStepUnsent,
    /// A copy that is being filled is called in sync before commits wait for it.
    SyncedTooEarly,
    /// A copy is filled without the optimizer's state.
    FilledWithoutState,
    /// Replicas don't hear what the first shard has counted.
    ReportsUnreplicated,
    /// A new first shard waits for norms that the others have forgotten.
    NormForgotten,
    /// What comes late of an old step displaces the sums of squares of the newest.
    NormDisplaced,
    /// A shard that is two steps ahead of another one sends workers back that push to both.
    SentBack,
    /// A worker goes on from residuals of another version than its parameters.
    ResidualsUnchecked,
    /// A step is applied before its replica has the one before.
    TwoAhead,
    /// A copy goes on with the state that it had before a rollback of which it has not heard.
    LineageUnchecked,
    /// An entry of the registry's log is put whether there is one or not.
    EntryOverwritten,
    /// A publication that lost its entry is tried again without a look for its run.
    RunUnseen,
    /// An entry that was checked against an older log is appended to the newer one.
    StaleCatalog,
}

impl Bug {
    pub const ALL: [Self; 40] = [
        Self::DoubleApply,
        Self::StaleStep,
        Self::ArrivalOrder,
        Self::EarlyReply,
        Self::RowsTwice,
        Self::LedgerLost,
        Self::OptimizerLost,
        Self::OwnNorm,
        Self::StaleRestore,
        Self::StaleLease,
        Self::ComputesAgain,
        Self::MixedVersions,
        Self::ResidualsKept,
        Self::ResidualsLost,
        Self::LeaseTwice,
        Self::LocalShuffle,
        Self::PublishedEarly,
        Self::ManifestFirst,
        Self::ReportFirst,
        Self::ViewForgotten,
        Self::RemovedFirst,
        Self::DamageUnseen,
        Self::NoSync,
        Self::PublishedTwice,
        Self::RestartUnheard,
        Self::LearnerPromoted,
        Self::ReplicaNotAwaited,
        Self::LastStepUnsent,
        Self::SyncedTooEarly,
        Self::FilledWithoutState,
        Self::ReportsUnreplicated,
        Self::NormForgotten,
        Self::NormDisplaced,
        Self::SentBack,
        Self::ResidualsUnchecked,
        Self::TwoAhead,
        Self::LineageUnchecked,
        Self::EntryOverwritten,
        Self::RunUnseen,
        Self::StaleCatalog,
    ];
    /// Those of two registries over one store, which training alone does not show.
    pub const OF_REGISTRIES: [Self; 3] =
        [Self::EntryOverwritten, Self::RunUnseen, Self::StaleCatalog];
}

#[cfg(feature = "planted-bugs")]
mod thread {
    use std::cell::Cell;

    use super::Bug;

    thread_local! {
        static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
    }

    /// Plants a bug on this thread, for good; none takes it away.
    pub fn plant(bug: Option<Bug>) {
        PLANTED.set(bug);
    }

    /// Whether this bug is planted on this thread.
    pub fn is(bug: Bug) -> bool {
        PLANTED.get() == Some(bug)
    }
}

#[cfg(feature = "planted-bugs")]
pub use thread::{is, plant};

/// Whether this bug is planted: never.
#[cfg(not(feature = "planted-bugs"))]
#[inline(always)]
pub const fn is(_: Bug) -> bool {
    false
}
