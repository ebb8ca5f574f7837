//! What a leader leaves to its successor, and how that one goes on.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::phase::{Asked, Assignment, Command, Phase, Recovery};
use super::{Leaving, Training, TrainingConfig};
use crate::checkpoint::Manifest;
use crate::ids::{CoordinatorId, ShardCopy, ShardId, Version, View, WorkerId};
use crate::job::JobSpec;
use crate::messages::Member;
use crate::messages::checkpoint_store::Opened;
use crate::placement::{self, Holders};
use crate::reduction::Span;

/// Who does what in one view: the state of an entry in the log of views.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterState {
    /// Of the coordinator's life that wrote it: no two lives write the same.
    pub life: String,
    /// What is trained, and how it is cut. Another job has nothing to take over.
    pub job_digest: String,
    pub shards: u32,
    pub servers: u32,
    pub run: String,
    /// Of the rows that are trained on; `None` before anybody has said.
    pub data_digest: Option<String>,
    /// The view in which everyone went back last, and to which version. `None`: in this one.
    pub lineage: Option<View>,
    pub rolled_back_to: Version,
    /// By shard; empty before the first assignment.
    pub holders: Vec<Holders>,
    pub leases: Vec<(WorkerId, Span)>,
    /// Who is to leave.
    #[serde(default)]
    pub leaving: Leaving,
}

impl Training {
    /// What to append for a new leadership: the newest state, as far as it is of this job, in the
    /// words of this life.
    pub fn succession(
        newest: Option<(View, ClusterState)>,
        job: &JobSpec,
        config: &TrainingConfig,
        life: &str,
        run: &str,
    ) -> ClusterState {
        let bare = ClusterState {
            life: life.to_owned(),
            job_digest: job.digest(),
            shards: config.shards,
            servers: config.servers,
            run: run.to_owned(),
            data_digest: None,
            lineage: None,
            rolled_back_to: Version(0),
            holders: Vec::new(),
            leases: Vec::new(),
            leaving: Leaving::default(),
        };
        let same = |(_, state): &(View, ClusterState)| {
            let cut = (state.shards, state.servers) == (bare.shards, bare.servers);
            let known = |held: &Holders| held.servers().all(|server| server.0 < bare.servers);
            cut && state.job_digest == bare.job_digest
                && state.holders.len() == bare.shards as usize
                && state.holders.iter().all(known)
        };
        match newest.filter(same) {
            Some((view, state)) => {
                let lineage = state.lineage.or(Some(view));
                let leaving = state.leaving.known(config);
                ClusterState { life: life.to_owned(), lineage, leaving, ..state }
            }
            None => bare,
        }
    }

    /// A run whose leadership has just begun with this state in `view`: everyone who was there is
    /// told of the view and goes on, and the store is read meanwhile.
    pub fn take_over(
        job: JobSpec,
        config: TrainingConfig,
        own: (CoordinatorId, String),
        run: String,
        (view, state): (View, ClusterState),
        now: Duration,
    ) -> (Self, Vec<Command>) {
        let (leader, life) = own;
        let mut training = Self::new(job, config, run);
        (training.leader, training.life, training.view) = (leader, life, view);
        (training.leaving, training.raised) = (state.leaving.clone(), state.leaving);
        let Some(lineage) = state.lineage.filter(|_| !state.holders.is_empty()) else {
            return (training, Vec::new());
        };
        (training.run, training.expected_data) = (state.run, state.data_digest);
        training.lineage = lineage;
        training.rollback_to = state.rolled_back_to;
        training.holders = state.holders;
        training.leases = state.leases.into_iter().collect();
        training.reading = true;
        // Whoever is gone says nothing, and is missed like anyone else.
        let copies: BTreeMap<_, _> =
            placement::copies(&training.holders).map(|copy| (copy, Asked::Again)).collect();
        let workers = training.leases.keys().copied().map(Member::Worker);
        let servers: BTreeSet<_> = copies.keys().map(|copy| copy.server).collect();
        // All actors of each: a server that lacks one would be taken for one that leaves.
        let actors = servers.into_iter().flat_map(|server| {
            (0..state.shards).map(move |shard| ShardCopy { shard: ShardId(shard), server })
        });
        training.members.assume(actors.map(Member::Copy).chain(workers), now);
        training.phase = Phase::Assigning { copies };
        let commands = training.ask_again();
        (training, commands)
    }

    /// The state of the view that is to begin.
    pub(super) fn state(&self, assignment: &Assignment) -> ClusterState {
        let continues = assignment.recovery == Recovery::Continue;
        let trained = self.plan.as_ref().map(|plan| plan.offer.data.digest.clone());
        ClusterState {
            life: self.life.clone(),
            job_digest: self.job.digest(),
            shards: self.config.shards,
            servers: self.config.servers,
            run: self.run.clone(),
            // Until a worker was heard of, what the leader before was told.
            data_digest: trained.or_else(|| self.expected_data.clone()),
            lineage: continues.then_some(self.lineage),
            rolled_back_to: self.rollback_to,
            holders: assignment.holders.clone(),
            leases: assignment.leases.iter().map(|(worker, span)| (*worker, *span)).collect(),
            leaving: assignment.leaving.clone(),
        }
    }

    /// Somebody has said what is trained: whether it is what the run was taken over with. Files may
    /// have changed since; then nothing of it counts.
    pub(super) fn check_taken_over(&mut self, data_digest: &str) {
        let Some(expected) = self.expected_data.take() else { return };
        if expected != data_digest {
            self.holders.clear();
            self.leases.clear();
            self.reading = false;
            self.roll_back();
        }
    }

    /// The store has been searched while the run goes on.
    pub(super) fn read_meanwhile(&mut self, opened: Opened) -> Vec<Command> {
        self.held_up = None;
        let goes_on = match &self.phase {
            Phase::Assigning { .. } | Phase::Running { .. } => true,
            Phase::Raising(assignment) => assignment.recovery == Recovery::Continue,
            _ => false,
        };
        let Opened { manifest, finished } = opened;
        let finished = finished.filter(|finished| finished.run == self.run);
        if finished.is_some() && matches!(self.phase, Phase::Raising(_)) {
            // That a view is raised can't be given up: it is read again when the view is there.
            return Vec::new();
        }
        if !std::mem::take(&mut self.reading) || !goes_on {
            return Vec::new();
        }
        let of_run = |manifest: &Manifest| manifest.run == self.run;
        if let Some(finished) = finished {
            let newest = manifest.filter(of_run).map(Box::new);
            let finished = Box::new(finished);
            self.phase = Phase::Confirming { finished: finished.clone(), newest };
            return vec![Command::Confirm(finished)];
        }
        let manifest = manifest.filter(of_run);
        let read = manifest.as_ref().map(|manifest| manifest.version);
        self.resumed_from.get_or_insert(read.unwrap_or(self.rollback_to));
        self.checkpoint = manifest;
        self.collected.retain(|&version, _| Some(version) > read);
        let collected: Vec<Version> = self.collected.keys().copied().collect();
        let mut commands: Vec<Command> =
            collected.into_iter().filter_map(|version| self.commit_if_whole(version)).collect();
        commands.extend(self.after_checkpoint());
        commands
    }
}
