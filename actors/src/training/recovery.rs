//! From an assignment to the next step: open, raise the view, tell the copies, lease slots.

use std::collections::BTreeMap;

use super::phase::{Asked, Assignment, Command, Phase, Recovery};
use super::{Cause, ClusterState, ShardProgress, Training};
use crate::checkpoint::{Finished, Manifest};
use crate::ids::{ServerId, ShardCopy, ShardId, Version, View, WorkerId};
use crate::ledger::Ledger;
use crate::messages::checkpoint_store::{OpenCheckpoints, Opened};
use crate::messages::{
    AdoptView, Appointment, Duty, LeaseError, LeaseSlots, RestoreError, RestoreShard,
};
use crate::placement::{self, Holders, place};
use crate::reduction::Span;

impl Training {
    /// The checkpoint store has been searched.
    pub fn opened(&mut self, opened: Opened) -> Vec<Command> {
        if !matches!(self.phase, Phase::Opening) {
            return self.read_meanwhile(opened);
        }
        self.held_up = None;
        self.reading = false;
        let Opened { manifest: newest, finished } = opened;
        // A checkpoint of another run is of one that began since.
        let of_run = |finished: &Finished| newest.as_ref().is_none_or(|m| m.run == finished.run);
        let Some(finished) = finished.filter(of_run) else { return self.start_from(newest) };
        let finished = Box::new(finished);
        self.phase = Phase::Confirming { finished: finished.clone(), newest: newest.map(Box::new) };
        vec![Command::Confirm(finished)]
    }

    /// The registry has been asked for the version that a finished run published.
    pub fn confirmed(&mut self, is_there: bool) -> Vec<Command> {
        let Phase::Confirming { finished, newest } = &mut self.phase else { return Vec::new() };
        self.held_up = None;
        if !is_there {
            let newest = newest.take().map(|newest| *newest);
            return self.start_from(newest);
        }
        let Finished { run, last_version: version, ledger, published, .. } = (**finished).clone();
        let done = ShardProgress { version, closed: true, ..ShardProgress::default() };
        self.progress = (0..self.config.shards).map(|shard| (ShardId(shard), done)).collect();
        (self.run, self.ledger, self.resumed_from) = (run, ledger, Some(version));
        self.phase = Phase::Done(published);
        Vec::new()
    }

    fn start_from(&mut self, newest: Option<Manifest>) -> Vec<Command> {
        let run = newest.as_ref().map_or(&self.fresh_run, |manifest| &manifest.run);
        self.run.clone_from(run);
        self.ledger = newest.as_ref().map_or_else(Ledger::default, |m| m.ledger.clone());
        self.rollback_to = newest.as_ref().map_or(Version(0), |manifest| manifest.version);
        self.resumed_from.get_or_insert(self.rollback_to);
        self.checkpoint = newest;
        let servers = self.servers();
        // They may have gone while the store was searched.
        if servers.is_empty() {
            return self.roll_back();
        }
        let holders = place(self.config.shards, &servers, self.config.replicas);
        let leases = self.even_leases();
        self.raise(Assignment {
            recovery: Recovery::Rollback,
            holders,
            leases,
            leaving: self.leaving.clone(),
        })
    }

    /// The view with this state is in the log. One that was appended before the run went back may
    /// have been on its way: its number is taken then, and nobody acts on it, for what is in the log
    /// is what a successor goes on with.
    pub fn view_appended(&mut self, view: View, state: &ClusterState) -> Vec<Command> {
        match &self.phase {
            Phase::Raising(assignment) if self.state(assignment) != *state => self.overtaken(view),
            _ => self.view_raised(view),
        }
    }

    /// The new view is durable: act on it.
    pub fn view_raised(&mut self, view: View) -> Vec<Command> {
        if view <= self.view {
            return Vec::new();
        }
        let Phase::Raising(assignment) = &self.phase else {
            // It was given up meanwhile; its number is taken all the same.
            self.view = view;
            return Vec::new();
        };
        let assignment = assignment.clone();
        self.view = view;
        self.held_up = None;
        self.note_view(&assignment);
        let Assignment { recovery, holders, leases, leaving } = assignment;
        self.raised = leaving;
        // Those who hold nothing any more are told too.
        let there = self.members.copies();
        let before = placement::copies(&self.holders).filter(|copy| there.contains(copy));
        let mut copies: BTreeMap<ShardCopy, Asked> =
            before.map(|copy| (copy, Asked::Again)).collect();
        (self.holders, self.leases) = (holders, leases);
        copies.extend(placement::copies(&self.holders).map(|copy| (copy, Asked::Again)));
        self.synced.clear();
        let holders = &self.holders;
        self.stateless.retain(|copy| holds_state(holders, *copy));
        if recovery == Recovery::Rollback {
            self.stateless.clear();
            self.collected.clear();
            self.lineage = view;
            for shard in self.progress.values_mut() {
                let bytes_before = shard.bytes_before.plus(shard.bytes);
                let version = self.rollback_to;
                *shard = ShardProgress { version, bytes_before, ..ShardProgress::default() };
            }
        }
        self.phase = Phase::Assigning { copies };
        // Whoever was lost while the view was raised will not answer.
        let missing = |copy: &ShardCopy| {
            let lost = !there.contains(copy) || self.stateless.contains(copy);
            holds_state(&self.holders, *copy) && lost
        };
        let mut commands = if placement::copies(&self.holders).any(|copy| missing(&copy)) {
            self.plan(false)
        } else {
            self.ask_again()
        };
        // What the store said meanwhile could not be acted on.
        commands.extend(self.read_store());
        commands
    }

    /// An entry of this leader has the number that was to be the next view's.
    pub fn overtaken(&mut self, newest: View) -> Vec<Command> {
        self.view = self.view.max(newest);
        self.ask_store_again()
    }

    /// A copy answered to [`Command::Restore`] or [`Command::Adopt`].
    pub fn copy_answered(
        &mut self,
        copy: ShardCopy,
        view: View,
        answer: &Result<(), RestoreError>,
    ) -> Vec<Command> {
        if view != self.view {
            return Vec::new();
        }
        let restores = self.lineage == self.view;
        let (Phase::Assigning { copies } | Phase::Running { copies, .. }) = &mut self.phase else {
            return Vec::new();
        };
        match answer {
            Ok(()) => {
                copies.remove(&copy);
            }
            Err(RestoreError::Plan { cause }) => {
                let cause = cause.clone();
                self.fail(cause);
                return Vec::new();
            }
            // The store took it for whole, and would again. Version 0 needs no checkpoint.
            Err(RestoreError::Checkpoint { .. }) => {
                self.events.because(Cause::Checkpoint { version: self.rollback_to });
                self.passed_over.insert(self.rollback_to);
                return self.roll_back();
            }
            // It lost its state since: others must do without it.
            Err(RestoreError::NotReady(_)) if !restores => {
                copies.insert(copy, Asked::Again);
                self.stateless.insert(copy);
                return self.plan(false);
            }
            Err(_) => {
                copies.insert(copy, Asked::Again);
            }
        }
        self.lease_if_assigned()
    }

    /// A worker answered to [`Command::Lease`].
    pub fn worker_answered(
        &mut self,
        worker: WorkerId,
        view: View,
        answer: &Result<(), LeaseError>,
    ) {
        let Phase::Running { workers: waiting, .. } = &mut self.phase else { return };
        if view != self.view {
            return;
        }
        match answer {
            Ok(()) => {
                waiting.remove(&worker);
            }
            // It would say so for ever.
            Err(
                error @ (LeaseError::WrongSlots { .. }
                | LeaseError::WrongShards { .. }
                | LeaseError::NoSuchServer { .. }),
            ) => {
                let same =
                    "give every node the same [[nodes]], servers.shards and job.virtual_workers";
                self.fail(format!("{worker} can't take its lease: {error}; {same}"));
            }
            Err(_) => {
                waiting.insert(worker, Asked::Again);
            }
        }
    }

    /// What the store or the registry has not done yet, to be asked again.
    pub fn ask_store_again(&self) -> Vec<Command> {
        match (&self.phase, &self.plan) {
            (Phase::Opening, _) => self.search_store(),
            (Phase::Confirming { finished, .. }, _) => vec![Command::Confirm(finished.clone())],
            (Phase::Raising(assignment), _) => {
                let state = Box::new(self.state(assignment));
                vec![Command::RaiseView { above: self.view, state }]
            }
            _ => self.read_store(),
        }
    }

    /// Searches the store while the run that was taken over goes on.
    pub(super) fn read_store(&self) -> Vec<Command> {
        if self.reading { self.search_store() } else { Vec::new() }
    }

    fn search_store(&self) -> Vec<Command> {
        let Some(plan) = &self.plan else { return Vec::new() };
        vec![Command::Open(OpenCheckpoints {
            job_digest: self.job.digest(),
            data_digest: plan.offer.data.digest.clone(),
            not: self.passed_over.clone(),
        })]
    }

    pub(super) fn raise(&mut self, assignment: Assignment) -> Vec<Command> {
        self.phase = Phase::Raising(assignment);
        self.replan = false;
        self.ask_store_again()
    }

    fn lease_if_assigned(&mut self) -> Vec<Command> {
        let Phase::Assigning { copies } = &self.phase else { return Vec::new() };
        if copies.keys().any(|copy| holds_state(&self.holders, *copy)) {
            return Vec::new();
        }
        let copies = copies.clone();
        // Its last checkpoint was committed, but nobody lived to publish it, or it was committed
        // while this view began.
        if let Some(publish) = self.publish_if_last() {
            return vec![publish];
        }
        let workers = self.members.workers();
        let workers = workers.into_iter().map(|worker| (worker, Asked::Again)).collect();
        self.phase = Phase::Running { copies, workers };
        let mut commands = self.ask_again();
        if std::mem::take(&mut self.replan) {
            commands.extend(self.plan(false));
        }
        commands
    }

    /// Sends what was not answered yet and isn't under way.
    pub(super) fn ask_again(&mut self) -> Vec<Command> {
        let mut commands = Vec::new();
        let there = self.members.copies();
        if let Phase::Running { copies, .. } = &mut self.phase {
            copies.retain(|copy, _| there.contains(copy));
        }
        if let Phase::Assigning { copies } | Phase::Running { copies, .. } = &self.phase {
            commands.extend(due(copies).into_iter().filter_map(|copy| self.assign(copy)));
        }
        if let Phase::Running { workers, .. } = &self.phase {
            commands.extend(due(workers).into_iter().map(|worker| self.lease_to(worker)));
        }
        if let Phase::Assigning { copies } | Phase::Running { copies, .. } = &mut self.phase {
            copies.values_mut().for_each(|asked| *asked = Asked::UnderWay);
        }
        if let Phase::Running { workers, .. } = &mut self.phase {
            workers.values_mut().for_each(|asked| *asked = Asked::UnderWay);
        }
        commands
    }

    fn assign(&self, copy: ShardCopy) -> Option<Command> {
        let first = self.holders.first()?.primary;
        let duty = duty(self.holders.get(copy.shard.0 as usize)?, copy.server);
        let restores = self.lineage == self.view && duty != Duty::Released;
        let appointment = Appointment { view: self.view, copy, duty, first, leader: self.leader };
        if !restores {
            return Some(Command::Adopt(AdoptView { appointment, lineage: self.lineage }));
        }
        Some(Command::Restore(Box::new(RestoreShard {
            appointment,
            version: self.rollback_to,
            offer: self.plan.as_ref()?.offer.clone(),
            shards: self.config.shards,
            checkpoint_every: self.config.checkpoint_every,
        })))
    }

    fn lease_to(&self, worker: WorkerId) -> Command {
        let nothing = Span { first: 0, end: 0 };
        Command::Lease(LeaseSlots {
            view: self.view,
            worker,
            slots: self.leases.get(&worker).copied().unwrap_or(nothing),
            primaries: self.holders.iter().map(|held| held.primary).collect(),
            leader: self.leader,
            lineage: self.lineage,
            rolled_back_to: self.rollback_to,
            checkpoint_every: self.config.checkpoint_every,
        })
    }
}

/// What a server is among the holders of a shard.
fn duty(held: &Holders, server: ServerId) -> Duty {
    if held.primary == server {
        let (replicas, learners) = (held.replicas.clone(), held.learners.clone());
        Duty::Primary { replicas, learners }
    } else if held.replicas.contains(&server) {
        Duty::Replica
    } else if held.learners.contains(&server) {
        Duty::Learner
    } else {
        Duty::Released
    }
}

fn holds_state(holders: &[Holders], copy: ShardCopy) -> bool {
    let held = holders.get(copy.shard.0 as usize);
    held.is_some_and(|held| held.in_sync().any(|server| server == copy.server))
}

fn due<T: Copy + Ord>(waiting: &BTreeMap<T, Asked>) -> Vec<T> {
    let again = |(member, asked): (&T, &Asked)| (*asked == Asked::Again).then_some(*member);
    waiting.iter().filter_map(again).collect()
}
