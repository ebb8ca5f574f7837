//! From a loss to the next step: gather, open, raise the view, assign shards, lease slots.

use std::collections::BTreeMap;
use std::time::Duration;

use super::phase::{Asked, Command, Phase, Recovery};
use super::{ShardProgress, Training};
use crate::assignment::lease;
use crate::checkpoint::{Finished, Manifest};
use crate::ids::{ShardId, Version, View, WorkerId};
use crate::ledger::Ledger;
use crate::messages::checkpoint_store::{OpenCheckpoints, Opened};
use crate::messages::{AdoptView, LeaseError, LeaseSlots, Member, RestoreError, RestoreShard};
use crate::planted::{self, Bug};
use crate::reduction::Span;

impl Training {
    /// The checkpoint store has been searched.
    pub fn opened(&mut self, opened: Opened) -> Vec<Command> {
        if !matches!(self.phase, Phase::Opening) {
            return Vec::new();
        }
        self.held_up = None;
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
        if let Some(manifest) = &newest {
            self.run.clone_from(&manifest.run);
        }
        self.ledger = newest.as_ref().map_or_else(Ledger::default, |m| m.ledger.clone());
        self.rollback_to = newest.as_ref().map_or(Version(0), |manifest| manifest.version);
        self.resumed_from.get_or_insert(self.rollback_to);
        self.checkpoint = newest;
        self.raise(Recovery::Rollback)
    }

    /// The new view is durable: act on it.
    pub fn view_raised(&mut self, view: View) -> Vec<Command> {
        let Phase::Raising(recovery) = self.phase else { return Vec::new() };
        if view <= self.view {
            return Vec::new();
        }
        self.view = view;
        self.held_up = None;
        if recovery == Recovery::Rollback {
            self.collected.clear();
            self.rolled_back_in = view;
            for shard in self.progress.values_mut() {
                let bytes_before = shard.bytes_before.plus(shard.bytes);
                let version = self.rollback_to;
                *shard = ShardProgress { version, bytes_before, ..ShardProgress::default() };
            }
        }
        let shards = 0..self.config.shards;
        let waiting = shards.map(|shard| (ShardId(shard), Asked::Again)).collect();
        self.phase = Phase::Assigning { recovery, waiting };
        self.ask_again()
    }

    /// A shard answered to [`Command::Restore`] or [`Command::Adopt`].
    pub fn shard_answered(
        &mut self,
        shard: ShardId,
        view: View,
        answer: &Result<(), RestoreError>,
    ) -> Vec<Command> {
        if view != self.view {
            return Vec::new();
        }
        let Phase::Assigning { recovery, waiting } = &mut self.phase else { return Vec::new() };
        match answer {
            Ok(()) => {
                waiting.remove(&shard);
            }
            Err(RestoreError::Plan { cause }) => {
                let cause = cause.clone();
                self.fail(cause);
                return Vec::new();
            }
            // The store took it for whole, and would again. Version 0 needs no checkpoint.
            Err(RestoreError::Checkpoint { .. }) => {
                self.passed_over.insert(self.rollback_to);
                return self.recover(Recovery::Rollback);
            }
            // It lost its state since: adopting the view is not enough.
            Err(RestoreError::NotReady(_)) if *recovery == Recovery::NewLeases => {
                return self.recover(Recovery::Rollback);
            }
            Err(_) => {
                waiting.insert(shard, Asked::Again);
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
        let Phase::Running { waiting, .. } = &mut self.phase else { return };
        if view != self.view {
            return;
        }
        match answer {
            Ok(()) => {
                waiting.remove(&worker);
            }
            // It would say so for ever.
            Err(error @ (LeaseError::WrongSlots { .. } | LeaseError::WrongShards { .. })) => {
                let same = "give every node the same servers.shards and job.virtual_workers";
                self.fail(format!("{worker} can't take its lease: {error}; {same}"));
            }
            Err(_) => {
                waiting.insert(worker, Asked::Again);
            }
        }
    }

    pub(super) fn lost(&mut self, member: Member) -> Vec<Command> {
        match (&self.phase, member) {
            (Phase::Raising(_) | Phase::Assigning { .. }, Member::Shard(_)) => {
                self.recover(Recovery::Rollback)
            }
            (Phase::Running { .. }, Member::Shard(_)) => self.recover(Recovery::Rollback),
            (Phase::Running { leases, .. }, Member::Worker(worker)) => {
                let idle = leases.get(&worker).is_none_or(|span| span.first == span.end);
                match (idle, self.keeps_residuals() && !planted::is(Bug::ResidualsLost)) {
                    (true, _) => Vec::new(),
                    (false, true) => self.recover(Recovery::Rollback),
                    (false, false) => self.recover(Recovery::NewLeases),
                }
            }
            // Leases are given to whoever is there when the shards have answered.
            _ => Vec::new(),
        }
    }

    pub(super) fn joined(&mut self, member: Member) -> Vec<Command> {
        match (&self.phase, member) {
            (Phase::Running { .. }, Member::Worker(_)) if self.keeps_residuals() => {
                self.rebalance = true;
                Vec::new()
            }
            (Phase::Running { .. }, Member::Worker(_)) => self.recover(Recovery::NewLeases),
            _ => Vec::new(),
        }
    }

    /// Starts, or starts again, when everyone who is needed is there.
    pub(super) fn gather(&mut self, now: Duration) -> Vec<Command> {
        let Phase::Gathering { since } = &mut self.phase else { return Vec::new() };
        if self.plan.is_none() {
            return Vec::new();
        }
        let shards_there = self.members.shards().len() == self.config.shards as usize;
        let workers = self.members.workers().len();
        if !shards_there || workers == 0 {
            *since = None;
            return Vec::new();
        }
        let began = *since.get_or_insert(now);
        let all = workers >= self.config.workers as usize;
        if !all && now.saturating_sub(began) < self.config.gather_for {
            return Vec::new();
        }
        self.phase = Phase::Opening;
        self.ask_store_again()
    }

    /// What the store or the registry has not done yet, to be asked again.
    pub fn ask_store_again(&self) -> Vec<Command> {
        match (&self.phase, &self.plan) {
            (Phase::Opening, Some(plan)) => {
                vec![Command::Open(OpenCheckpoints {
                    job_digest: self.job.digest(),
                    data_digest: plan.offer.data.digest.clone(),
                    not: self.passed_over.clone(),
                })]
            }
            (Phase::Confirming { finished, .. }, _) => vec![Command::Confirm(finished.clone())],
            (Phase::Raising(_), _) => vec![Command::RaiseView { above: self.view }],
            _ => Vec::new(),
        }
    }

    /// Begins a new view; waits first where somebody who is needed is missing.
    pub(super) fn recover(&mut self, recovery: Recovery) -> Vec<Command> {
        let nobody = self.members.workers().is_empty()
            || self.members.shards().len() < self.config.shards as usize;
        match recovery {
            Recovery::NewLeases if !nobody => {
                self.recoveries.new_leases += 1;
                self.raise(recovery)
            }
            // Also where all workers are gone: what they had in flight is recomputed anyway.
            _ => {
                self.recoveries.rollbacks += 1;
                self.phase = Phase::Gathering { since: None };
                self.rebalance = false;
                Vec::new()
            }
        }
    }

    fn raise(&mut self, recovery: Recovery) -> Vec<Command> {
        self.phase = Phase::Raising(recovery);
        self.ask_store_again()
    }

    fn lease_if_assigned(&mut self) -> Vec<Command> {
        let Phase::Assigning { recovery, waiting } = &self.phase else { return Vec::new() };
        if !waiting.is_empty() {
            return Vec::new();
        }
        let recovery = *recovery;
        // Its last checkpoint was committed, but nobody lived to publish it, or it was committed
        // while this view began.
        if let Some(publish) = self.publish_if_last() {
            return vec![publish];
        }
        let workers = self.members.workers();
        if workers.is_empty() {
            return self.recover(Recovery::Rollback);
        }
        let leases = lease(self.job.virtual_workers, &workers);
        let waiting = workers.into_iter().map(|worker| (worker, Asked::Again)).collect();
        self.phase = Phase::Running { leases, recovery, waiting };
        self.ask_again()
    }

    /// Sends what was not answered yet and isn't under way.
    pub(super) fn ask_again(&mut self) -> Vec<Command> {
        match &self.phase {
            Phase::Assigning { recovery, waiting } => {
                let recovery = *recovery;
                let shards = due(waiting);
                let commands = shards.iter().filter_map(|&s| self.assign(s, recovery)).collect();
                if let Phase::Assigning { waiting, .. } = &mut self.phase {
                    waiting.values_mut().for_each(|asked| *asked = Asked::UnderWay);
                }
                commands
            }
            Phase::Running { leases, recovery, waiting } => {
                let commands = due(waiting)
                    .into_iter()
                    .map(|worker| self.lease_to(worker, leases[&worker], *recovery))
                    .collect();
                if let Phase::Running { waiting, .. } = &mut self.phase {
                    waiting.values_mut().for_each(|asked| *asked = Asked::UnderWay);
                }
                commands
            }
            _ => Vec::new(),
        }
    }

    fn assign(&self, shard: ShardId, recovery: Recovery) -> Option<Command> {
        let view = self.view;
        if recovery == Recovery::NewLeases {
            return Some(Command::Adopt(AdoptView { view, shard }));
        }
        Some(Command::Restore(Box::new(RestoreShard {
            view,
            shard,
            version: self.rollback_to,
            offer: self.plan.as_ref()?.offer.clone(),
            shards: self.config.shards,
            checkpoint_every: self.config.checkpoint_every,
        })))
    }

    fn lease_to(&self, worker: WorkerId, slots: Span, recovery: Recovery) -> Command {
        let rolled_back_to = (recovery == Recovery::Rollback).then_some(self.rollback_to);
        Command::Lease(LeaseSlots {
            view: self.view,
            worker,
            slots,
            rolled_back_to,
            shards: self.config.shards,
            checkpoint_every: self.config.checkpoint_every,
        })
    }
}

fn due<T: Copy + Ord>(waiting: &BTreeMap<T, Asked>) -> Vec<T> {
    let again = |(member, asked): (&T, &Asked)| (*asked == Asked::Again).then_some(*member);
    waiting.iter().filter_map(again).collect()
}
