//! What the Coordinator decides: who owns which shard, who computes which slot, from which version.
//!
//! One plain state machine. Each method takes what happened and returns the [`Command`]s to carry
//! out; answers to commands come back as further calls. It survives any loss the same way: a new
//! view, in which either the copies that are left go on, or everyone goes back to the last whole
//! checkpoint because no copy of something is left.
//!
//! ```text
//!   Gathering ──▶ Opening ──▶ Raising ──▶ Assigning ──▶ Running ──▶ Publishing ──▶ Done
//!       ▲                        ▲            │            │
//!       │                        └────────────┴────────────┤ a copy or a worker came or is lost
//!       └── all copies of a shard, or a residual, are lost ┘
//! ```

mod beliefs;
mod events;
mod evidence;
mod healing;
mod leaving;
mod phase;
mod recovery;
mod speeds;
mod status;
mod takeover;
mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

pub use events::{Cause, Event, EventFeed, EventKind, Tally, Who};
pub use leaving::{Leaver, Leaving};
pub use phase::{Command, TrainingConfig};
pub use speeds::Share;
pub use status::{Progress, TrainingStatus};
pub use takeover::ClusterState;
pub use words::Heard;

pub use crate::checkpoint::Published;
use crate::checkpoint::{Manifest, SavedPart, is_whole};
use crate::codec::codec;
use crate::ids::{CoordinatorId, ServerId, ShardCopy, ShardId, Version, View, WorkerId};
use crate::job::JobSpec;
use crate::ledger::Ledger;
use crate::membership::Membership;
use crate::messages::{
    BytesMoved, FailureKind, ReportError, ReportFailure, ReportPart, ReportShard,
};
use crate::placement::Holders;
use crate::plan::JobPlan;
use crate::planted::{self, Bug};
use crate::reduction::Span;
use crate::standstill::Standstill;
use crate::stealing::Speeds;
use beliefs::overlap;
use phase::Phase;

/// Checkpoints of which parts may be collected at a time. Shards wait for no more than two; more
/// are there only while the coordinator can't write, and then the newest is what counts.
const COLLECTED_MAX: usize = 64;

/// A training run, as its coordinator sees it.
#[derive(Debug)]
pub struct Training {
    config: TrainingConfig,
    job: JobSpec,
    run: String,
    /// A run of its own name, should none go on: that one may have been published.
    fresh_run: String,
    /// Who coordinates, and in which life.
    leader: CoordinatorId,
    life: String,
    plan: Option<JobPlan>,
    members: Membership,
    view: View,
    phase: Phase,
    /// The newest whole checkpoint: where a rollback goes.
    checkpoint: Option<Manifest>,
    /// Where this coordinator took the run up.
    resumed_from: Option<Version>,
    /// Where the rollback under way goes; fixed when it begins.
    rollback_to: Version,
    /// Checkpoints that the store takes for whole, but that a member could not restore: each of
    /// them would begin the same view again and again. As many as the store holds, at most; one
    /// that is committed anew counts again.
    passed_over: BTreeSet<Version>,
    /// The view that began with the newest rollback.
    lineage: View,
    /// Who holds which shard in `view`; none before the first.
    holders: Vec<Holders>,
    leases: BTreeMap<WorkerId, Span>,
    /// Who is to leave, and who of them in the newest view.
    leaving: Leaving,
    raised: Leaving,
    /// Holders that have lost the state that `holders` says they have.
    stateless: BTreeSet<ShardCopy>,
    /// Learners of `view` without which nothing is committed any more.
    synced: BTreeSet<ShardCopy>,
    /// Somebody came or went while a view began.
    replan: bool,
    /// The store has not been searched since this coordinator took the run over.
    reading: bool,
    /// Digest of the data that the run was taken over with.
    expected_data: Option<String>,
    /// Checkpoints of which parts have been reported.
    collected: BTreeMap<Version, Collected>,
    /// A worker waits for slots that can only be moved at a checkpoint.
    rebalance: bool,
    progress: BTreeMap<ShardId, ShardProgress>,
    ledger: Ledger,
    /// Why the store or the registry is being asked again.
    held_up: Option<String>,
    recoveries: status::Recoveries,
    events: events::Events,
    standstill: Standstill,
    speeds: Speeds,
}

#[derive(Clone, Debug, Default)]
struct Collected {
    parts: Vec<SavedPart>,
    ledger: Option<Ledger>,
    committing: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct ShardProgress {
    /// Whose bytes are counted.
    server: ServerId,
    version: Version,
    closed: bool,
    /// Of this primary since the newest rollback, and before it.
    bytes: BytesMoved,
    bytes_before: BytesMoved,
}

impl Training {
    /// `run` names this run, unless a checkpoint names one that it continues.
    pub fn new(job: JobSpec, config: TrainingConfig, run: String) -> Self {
        Self {
            members: Membership::new(config.patience),
            config,
            job,
            fresh_run: run.clone(),
            run,
            leader: CoordinatorId(0),
            life: String::new(),
            plan: None,
            view: View(0),
            phase: Phase::Gathering { since: None },
            checkpoint: None,
            resumed_from: None,
            rollback_to: Version(0),
            passed_over: BTreeSet::new(),
            lineage: View(0),
            holders: Vec::new(),
            leases: BTreeMap::new(),
            leaving: Leaving::default(),
            raised: Leaving::default(),
            stateless: BTreeSet::new(),
            synced: BTreeSet::new(),
            replan: false,
            reading: false,
            expected_data: None,
            collected: BTreeMap::new(),
            rebalance: false,
            progress: BTreeMap::new(),
            ledger: Ledger::default(),
            held_up: None,
            recoveries: status::Recoveries::default(),
            events: events::Events::default(),
            standstill: Standstill::default(),
            speeds: Speeds::default(),
        }
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Duration) -> Vec<Command> {
        let mut commands = Vec::new();
        commands.extend(self.silence(now));
        commands.extend(self.gather(now));
        commands.extend(self.ask_again());
        commands.extend(self.rebalance(now));
        self.note_standstill(now);
        commands
    }

    /// A shard's progress.
    ///
    /// # Errors
    /// It is of a view that is over, or says what can't be.
    pub fn report_shard(&mut self, report: ReportShard) -> (Result<(), ReportError>, Vec<Command>) {
        if let Err(refused) = self.check_shard(&report) {
            return (Err(refused), Vec::new());
        }
        // The run ended with what its last checkpoint holds. A shard that was told to go back
        // before that was known is of no interest any more.
        if matches!(self.phase, Phase::Publishing | Phase::Done(_)) {
            return (Ok(()), Vec::new());
        }
        let ShardCopy { shard, server } = report.copy;
        // Who was the primary still tells of the parts that it wrote; how far the shard is, the one after it
        // knows.
        if self.holders.get(shard.0 as usize).is_some_and(|held| held.primary != server) {
            return (Ok(()), Vec::new());
        }
        let synced = report.synced.iter().map(|&server| ShardCopy { shard, server }).collect();
        let commands = self.caught_up(report.view, report.copy, synced);
        let progress = self.progress.entry(shard).or_default();
        if progress.server != server {
            let bytes_before = progress.bytes_before.plus(progress.bytes);
            let bytes = BytesMoved::default();
            *progress = ShardProgress { server, bytes, bytes_before, ..*progress };
        }
        // A checkpoint part is reported when it has been written; later steps may be known by then.
        let closed = report.ledger.as_ref().is_some_and(|ledger| ledger.closed);
        let known = (progress.version, progress.closed, progress.bytes.pulled);
        if (report.version, closed, report.bytes.pulled) < known {
            return (Ok(()), commands);
        }
        let (version, bytes) = (report.version, report.bytes);
        *progress = ShardProgress { version, closed, bytes, ..*progress };
        if let Some(ledger) = report.ledger {
            self.ledger = ledger;
        }
        (Ok(()), commands)
    }

    /// A part of a checkpoint is in the store.
    ///
    /// # Errors
    /// It is of a view that is over, or says what can't be.
    pub fn report_part(&mut self, report: ReportPart) -> (Result<(), ReportError>, Vec<Command>) {
        if let Err(refused) = self.check_part(&report) {
            return (Err(refused), Vec::new());
        }
        let ledger = report.shard.as_ref().and_then(|shard| shard.ledger.clone());
        let mut commands = Vec::new();
        if let Some(shard) = report.shard {
            let (answer, more) = self.report_shard(shard);
            commands.extend(more);
            if let Err(refused) = answer {
                return (Err(refused), commands);
            }
        }
        let newest = self.checkpoint.as_ref().map(|manifest| manifest.version);
        if newest.is_some_and(|newest| report.version <= newest) {
            return (Ok(()), commands);
        }
        let collected = self.collected.entry(report.version).or_default();
        collected.parts.retain(|part| !overlap(part, &report.part));
        collected.parts.push(report.part);
        collected.ledger = ledger.or(collected.ledger.take());
        if self.collected.len() > COLLECTED_MAX {
            self.collected.pop_first();
        }
        commands.extend(self.commit_if_whole(report.version));
        (Ok(()), commands)
    }

    /// A worker can't go on.
    ///
    /// # Errors
    /// It is of a view that is over, or of a worker that can't be.
    pub fn report_failure(
        &mut self,
        report: ReportFailure,
    ) -> (Result<(), ReportError>, Vec<Command>) {
        if let Err(refused) = self.check_failure(&report) {
            return (Err(refused), Vec::new());
        }
        match report.kind {
            FailureKind::Lasting => self.fail(report.cause),
            FailureKind::Checkpoint if matches!(self.phase, Phase::Running { .. }) => {
                self.events.because(Cause::Checkpoint { version: self.rollback_to });
                self.passed_over.insert(self.rollback_to);
                return (Ok(()), self.roll_back());
            }
            FailureKind::Residuals if matches!(self.phase, Phase::Running { .. }) => {
                self.events.because(Cause::Residuals);
                return (Ok(()), self.roll_back());
            }
            // Another recovery has begun, which reads the checkpoint itself.
            FailureKind::Checkpoint | FailureKind::Residuals => {}
        }
        (Ok(()), Vec::new())
    }

    /// A manifest is in the store.
    pub fn committed(&mut self, manifest: Manifest) -> Vec<Command> {
        let version = manifest.version;
        self.held_up = None;
        self.passed_over.remove(&version);
        self.collected.retain(|&other, _| other > version);
        if self.checkpoint.as_ref().is_none_or(|newest| newest.version < version) {
            self.checkpoint = Some(manifest);
        }
        self.after_checkpoint()
    }

    /// A manifest could not be written a while ago.
    pub fn commit_again(&self, manifest: Manifest) -> Vec<Command> {
        // A rollback, or a later checkpoint, has made it useless.
        let wanted = self.collected.get(&manifest.version).is_some_and(|c| c.committing);
        if wanted { vec![Command::Commit(Box::new(manifest))] } else { Vec::new() }
    }

    /// The trained model has been published.
    pub fn published(&mut self, published: Published) {
        self.held_up = None;
        self.phase = Phase::Done(published);
    }

    /// The last checkpoint was whole when it was committed, and is not any more.
    pub fn last_checkpoint_lost(&mut self) -> Vec<Command> {
        if !matches!(self.phase, Phase::Publishing) {
            return Vec::new();
        }
        let damaged = self.checkpoint.take().map_or(self.rollback_to, |manifest| manifest.version);
        self.events.because(Cause::Checkpoint { version: damaged });
        self.passed_over.insert(damaged);
        self.roll_back()
    }

    /// A store or the registry could not do what was asked, now: [`Training::ask_store_again`]
    /// after a while. Whether this is news.
    pub fn held_up(&mut self, cause: String) -> bool {
        self.held_up.replace(cause.clone()) != Some(cause)
    }

    /// Whether it has ended, well or not.
    pub fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Done(_) | Phase::Failed { .. })
    }

    /// Gives the run up.
    pub fn fail(&mut self, cause: String) {
        if !self.is_over() {
            self.phase = Phase::Failed { cause };
        }
    }

    fn keeps_residuals(&self) -> bool {
        codec(&self.job.gradient).is_some_and(|codec| codec.keeps_residual())
    }

    pub(super) fn commit_if_whole(&mut self, version: Version) -> Option<Command> {
        // Copies tell a new leader again of parts that were removed since, with their checkpoint.
        if self.reading {
            return None;
        }
        let plan = self.plan.as_ref()?;
        let awaits_residuals = self.keeps_residuals() && !planted::is(Bug::ManifestFirst);
        let slots = awaits_residuals.then_some(self.job.virtual_workers);
        let len = plan.layout.len();
        let collected = self.collected.get_mut(&version)?;
        if collected.committing || !is_whole(&collected.parts, len, slots) {
            return None;
        }
        let ledger = collected.ledger.clone()?;
        collected.committing = true;
        let mut parts = collected.parts.clone();
        parts.sort_by(|a, b| a.content.cmp(&b.content));
        let manifest = Manifest {
            version,
            run: self.run.clone(),
            job_digest: self.job.digest(),
            offer: plan.offer.clone(),
            parts,
            ledger,
        };
        Some(Command::Commit(Box::new(manifest)))
    }

    /// Finishes after the last version; else takes the moment to move slots, if that is wanted.
    fn after_checkpoint(&mut self) -> Vec<Command> {
        if !matches!(self.phase, Phase::Running { .. }) {
            return Vec::new();
        }
        if let Some(publish) = self.publish_if_last() {
            return vec![publish];
        }
        if std::mem::take(&mut self.rebalance) || self.slots_wait() {
            self.events.because(Cause::Moves);
            return self.roll_back();
        }
        Vec::new()
    }

    fn publish_if_last(&mut self) -> Option<Command> {
        let last = self.plan.as_ref()?.last_version();
        let early = planted::is(Bug::PublishedEarly)
            && self.progress.values().all(|shard| shard.version == last);
        let newest = self.checkpoint.as_ref();
        let manifest = newest.filter(|manifest| manifest.version == last || early)?;
        self.ledger.clone_from(&manifest.ledger);
        for shard in (0..self.config.shards).map(ShardId) {
            let shard = self.progress.entry(shard).or_default();
            (shard.version, shard.closed) = (last, true);
        }
        let publish = Command::Publish(Box::new(manifest.clone()));
        self.phase = Phase::Publishing;
        Some(publish)
    }
}

#[cfg(test)]
mod tests;
