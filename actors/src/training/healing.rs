//! What is done about who came and who is lost.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::Training;
use super::phase::{Asked, Assignment, Command, Phase, Recovery};
use crate::ids::{ShardCopy, View, WorkerId};
use crate::membership::Change;
use crate::messages::Member;
use crate::placement::{Holders, copies, improve, promote, repair};
use crate::planted::{self, Bug};
use crate::reduction::Span;

impl Training {
    /// Everyone that a node or the clock told of, at once: a server that dies takes many copies with
    /// it, and one view heals all.
    pub(super) fn changed(&mut self, changes: &[Change]) -> Vec<Command> {
        self.note_changes(changes);
        self.forget_speeds(changes);
        let (mut lost_copy, mut joined, mut lost_worker) = (false, false, None);
        for change in changes {
            match *change {
                Change::Lost(member) => {
                    self.recoveries.lost += 1;
                    match member {
                        Member::Copy(copy) => lost_copy |= self.lost_copy(copy),
                        Member::Worker(worker) if self.leases.contains_key(&worker) => {
                            lost_worker = Some(worker);
                        }
                        Member::Worker(_) => {}
                    }
                }
                Change::Joined(_) => joined = true,
                Change::Confirmed(member) => self.tell_again(member),
            }
        }
        let begins = matches!(self.phase, Phase::Raising(_) | Phase::Assigning { .. });
        let runs = matches!(self.phase, Phase::Running { .. });
        if !begins && !runs {
            return Vec::new();
        }
        if lost_worker.is_some() && self.keeps_residuals() && !planted::is(Bug::ResidualsLost) {
            return self.roll_back();
        }
        if lost_copy || lost_worker.is_some() {
            return self.plan(lost_worker.is_some());
        }
        if !joined {
            return Vec::new();
        }
        if self.keeps_residuals() && self.even_leases() != self.leases {
            self.rebalance = true;
        }
        // Whoever comes while a view begins can wait until it has.
        if begins {
            self.replan = true;
            return Vec::new();
        }
        self.plan(false)
    }

    /// It may have answered to this view in a life that is over: whoever lives now says so, or takes
    /// what it is told.
    fn tell_again(&mut self, member: Member) {
        let (holders, phase) = (&self.holders, &mut self.phase);
        match (member, phase) {
            (Member::Copy(copy), Phase::Assigning { copies } | Phase::Running { copies, .. }) => {
                let held = holders.get(copy.shard.0 as usize);
                if held.is_some_and(|held| held.servers().any(|server| server == copy.server)) {
                    copies.insert(copy, Asked::Again);
                }
            }
            (Member::Worker(worker), Phase::Running { workers, .. }) => {
                workers.insert(worker, Asked::Again);
            }
            _ => {}
        }
    }

    /// Whether its state is one that was counted on.
    fn lost_copy(&mut self, copy: ShardCopy) -> bool {
        self.synced.remove(&copy);
        let held = self.holders.get(copy.shard.0 as usize);
        let counted = held.is_some_and(|held| held.servers().any(|server| server == copy.server));
        if counted {
            self.stateless.insert(copy);
        }
        counted
    }

    /// A primary says that commits wait for these learners of its view: they have all that anyone
    /// has seen, now and later.
    pub(super) fn caught_up(
        &mut self,
        view: View,
        primary: ShardCopy,
        synced: BTreeSet<ShardCopy>,
    ) -> Vec<Command> {
        let Phase::Running { .. } = &self.phase else { return Vec::new() };
        let Some(held) = self.holders.get(primary.shard.0 as usize) else { return Vec::new() };
        if view != self.view || held.primary != primary.server {
            return Vec::new();
        }
        let learns = |copy: &ShardCopy| held.learners.contains(&copy.server);
        let there = self.members.copies();
        let new: Vec<ShardCopy> = synced
            .into_iter()
            .filter(|copy| learns(copy) && there.contains(copy) && !self.stateless.contains(copy))
            .collect();
        if new.iter().all(|copy| self.synced.contains(copy)) {
            return Vec::new();
        }
        self.note_in_sync(&new);
        self.synced.extend(new);
        self.plan(false)
    }

    /// The next view, if another one is better than the present: without those who are lost, with
    /// those who have caught up, a step nearer to as many copies as there should be. `anew`: also
    /// where nothing but the number changes.
    pub(super) fn plan(&mut self, anew: bool) -> Vec<Command> {
        if matches!(self.phase, Phase::Raising(_)) {
            self.replan = true;
            return Vec::new();
        }
        let mut there = self.members.copies();
        there.retain(|copy| !self.stateless.contains(copy));
        let Some(left) = promote(&self.with_synced(), &there) else { return self.roll_back() };
        let (servers, replicas) = (self.servers(), self.config.replicas);
        let runs = matches!(self.phase, Phase::Running { .. });
        let holders = match runs {
            true => improve(&left, &servers, replicas),
            // Who has not said that it has its state may have lost it: nobody else's is given up.
            false => repair(&left, &servers, replicas),
        };
        let even = self.even_leases();
        let leases = match self.keeps_residuals() && !planted::is(Bug::ResidualsLost) {
            // Nobody was there when slots were leased, so no checkpoint will come to move them at.
            true if self.leases.is_empty() && !even.is_empty() => return self.roll_back(),
            true => self.leases.clone(),
            false => even,
        };
        // A learner that was lost may be named again: its next life has to hear of it, and commits
        // may wait for the one before.
        let held = |copy: &ShardCopy| copies(&self.holders).any(|holder| holder == *copy);
        let anew = anew || self.stateless.iter().any(held) || self.leaving != self.raised;
        if !anew && holders == self.holders && leases == self.leases {
            return Vec::new();
        }
        let (recovery, leaving) = (Recovery::Continue, self.leaving.clone());
        let commands = self.raise(Assignment { recovery, holders, leases, leaving });
        self.replan = !runs;
        commands
    }

    fn with_synced(&self) -> Vec<Holders> {
        let mut holders = self.holders.clone();
        for copy in &self.synced {
            if let Some(held) = holders.get_mut(copy.shard.0 as usize) {
                let learners = held.learners.len();
                held.learners.retain(|server| *server != copy.server);
                if held.learners.len() < learners {
                    held.replicas.push(copy.server);
                }
            }
        }
        holders
    }

    /// Slots for everyone who is there to stay: even as far as is known.
    pub(super) fn even_leases(&self) -> BTreeMap<WorkerId, Span> {
        self.speeds.leases(self.job.virtual_workers, &self.workers(), &self.leases)
    }

    /// Everyone goes back to the last whole checkpoint, when enough of them are there.
    pub(super) fn roll_back(&mut self) -> Vec<Command> {
        self.phase = Phase::Gathering { since: None };
        self.rebalance = false;
        self.replan = false;
        Vec::new()
    }

    /// Starts, or starts again, when everyone who is needed is there.
    pub(super) fn gather(&mut self, now: Duration) -> Vec<Command> {
        if !matches!(self.phase, Phase::Gathering { .. }) || self.plan.is_none() {
            return Vec::new();
        }
        let (none, all) =
            (self.servers().is_empty() || self.workers().is_empty(), self.all_there());
        let Phase::Gathering { since } = &mut self.phase else { return Vec::new() };
        if none {
            *since = None;
            return Vec::new();
        }
        let began = *since.get_or_insert(now);
        let first = self.holders.is_empty();
        let patience = if first { self.config.gather_for } else { self.config.gather_again_for };
        if !all && now.saturating_sub(began) < patience {
            return Vec::new();
        }
        self.phase = Phase::Opening;
        self.ask_store_again()
    }
}
