//! Where a run's state machine meets its feed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{Cause, Event, EventKind, Who, millis};
use crate::ids::{ServerId, ShardCopy, ShardId, Term, Version, WorkerId};
use crate::membership::{Change, Departure};
use crate::messages::{Member, ReportError, ReportFenced};
use crate::placement::{Holders, by_shard, copies};
use crate::plan::JobPlan;
use crate::reduction::Span;
use crate::training::phase::{Assignment, Phase, Recovery};
use crate::training::{Training, status};

impl Training {
    /// What has happened since the last call, at the time `now` since the coordinator began: to be
    /// called after whatever may change the run, and told to the log.
    pub fn happened(&mut self, now: Duration) -> Vec<Event> {
        let healed = match &self.phase {
            Phase::Running { workers, .. } => workers.is_empty(),
            Phase::Publishing | Phase::Done(_) | Phase::Failed { .. } => true,
            _ => false,
        };
        self.events.settle(now, healed)
    }

    /// A coordinator has come to lead. What it takes over goes on when all have heard of it.
    pub fn led(&mut self, leader: String, term: Term) {
        let led = EventKind::Led { leader, term };
        match self.phase {
            Phase::Assigning { .. } => self.events.does(self.view, vec![led], None),
            _ => self.events.add(self.view, led, None),
        }
    }

    /// A primary found out that it had been replaced.
    ///
    /// # Errors
    /// The report is of a copy or a view that can't be.
    pub fn report_fenced(&mut self, report: ReportFenced) -> Result<(), ReportError> {
        let ReportFenced { copy, view, by } = report;
        let (shards, servers) = (self.config.shards, self.config.servers);
        if copy.shard.0 >= shards {
            return Err(ReportError::NoSuchShard { got: copy.shard, shards });
        }
        if copy.server.0 >= servers {
            return Err(ReportError::NoSuchServer { got: copy.server, servers });
        }
        if view >= by || by > self.view {
            return Err(ReportError::StaleView { got: view, current: self.view });
        }
        let known = self.events.fenced.entry(copy).or_default();
        if *known < by {
            *known = by;
            self.events.add(view, EventKind::Fenced { copy, by }, None);
        }
        Ok(())
    }

    /// Time has passed, in which there may have been no step.
    pub(in crate::training) fn note_standstill(&mut self, now: Duration) {
        let Some(stood) = self.standstill.look(self.steps(), now) else { return };
        let versions = self.progress.iter().map(|(shard, progress)| (progress.version, *shard));
        let Some((version, slowest)) = versions.clone().min() else { return };
        let furthest = versions.map(|(version, _)| version).max().unwrap_or(version);
        let last = self.plan.as_ref().map(JobPlan::last_version);
        let (for_ms, ahead) = (millis(stood), furthest.0 - version.0);
        let is_last = Some(version) == last;
        let stood = EventKind::StoodStill { for_ms, slowest, version, ahead, is_last };
        self.events.add(self.view, stood, None);
    }

    /// Steps of all shards together, while some are expected.
    fn steps(&self) -> Option<u64> {
        let is_expected = matches!(self.phase, Phase::Running { .. })
            && self.progress.len() == self.config.shards as usize
            && !self.members.workers().is_empty();
        is_expected.then(|| self.progress.values().map(|shard| shard.version.0).sum())
    }

    pub(in crate::training) fn note_changes(&mut self, changes: &[Change]) {
        let departure = self.members.departed();
        let lost = |change: &Change| match *change {
            Change::Lost(member) => Some(member),
            Change::Joined(_) | Change::Confirmed(_) => None,
        };
        let joined = |change: &Change| match *change {
            Change::Joined(member) => Some(member),
            Change::Lost(_) | Change::Confirmed(_) => None,
        };
        let joined: Vec<Member> = changes.iter().filter_map(joined).collect();
        let again: BTreeSet<Who> = self.grouped(&joined).into_iter().collect();
        for who in self.grouped(&changes.iter().filter_map(lost).collect::<Vec<_>>()) {
            let departure = departure.unwrap_or_default();
            let cause = self.cause_of(departure, again.contains(&who));
            self.events.add(self.view, EventKind::Lost { who }, Some(cause));
            self.events.lost(departure.last_word);
        }
        for who in again {
            self.events.add(self.view, EventKind::Joined { who }, None);
        }
    }

    fn cause_of(&self, departure: Departure, again: bool) -> Cause {
        let silent = departure.noticed.saturating_sub(departure.last_word);
        match again {
            true => Cause::Restarted,
            false if departure.refused => Cause::Refused { ms: millis(silent) },
            false if silent > self.config.patience.dead_after => {
                Cause::Silent { ms: millis(silent) }
            }
            false => Cause::GaveUp,
        }
    }

    /// A server of which all copies are named stands for them.
    fn grouped(&self, members: &[Member]) -> Vec<Who> {
        let mut workers: Vec<WorkerId> = Vec::new();
        let mut servers: BTreeMap<ServerId, BTreeSet<ShardId>> = BTreeMap::new();
        for member in members {
            match *member {
                Member::Worker(worker) => workers.push(worker),
                Member::Copy(ShardCopy { shard, server }) => {
                    servers.entry(server).or_default().insert(shard);
                }
            }
        }
        let mut all: Vec<Who> = workers.into_iter().map(Who::Worker).collect();
        for (server, shards) in servers {
            if shards.len() == self.config.shards as usize {
                all.push(Who::Server(server));
            } else {
                let copy = |shard| Who::Copy(ShardCopy { shard, server });
                all.extend(shards.into_iter().map(copy));
            }
        }
        all
    }

    pub(in crate::training) fn note_in_sync(&mut self, copies: &[ShardCopy]) {
        for &copy in copies.iter().filter(|copy| !self.synced.contains(copy)) {
            self.events.add(self.view, EventKind::InSync { copy }, None);
        }
    }

    /// What the view that has just been raised does, before it is done.
    pub(in crate::training) fn note_view(&mut self, next: &Assignment) {
        let workers = u32::try_from(next.leases.len()).unwrap_or(u32::MAX);
        let (from, to) = (self.reached(), self.rollback_to);
        // Where all were started again, with their coordinator, nobody has a step to go back from, also not
        // in a second view because somebody came late.
        let starts = from < to || (!self.events.raised && from == Version(0));
        self.events.raised = true;
        let kinds = match next.recovery {
            Recovery::Rollback if self.holders.is_empty() || starts => {
                vec![EventKind::Began { version: to, workers }]
            }
            Recovery::Rollback => {
                self.recoveries.rollbacks += 1;
                let mut kinds = vec![EventKind::RolledBack { from, to }];
                if self.events.cause == Some(Cause::Moves) {
                    let workers = moved(&self.leases, &next.leases);
                    kinds.push(EventKind::Rebalanced { workers });
                }
                kinds
            }
            Recovery::Continue => {
                self.recoveries.new_leases += 1;
                let mut kinds = self.moves(&next.holders);
                if matches!(self.events.cause, Some(Cause::Slow { .. })) {
                    let workers = moved(&self.leases, &next.leases);
                    kinds.push(EventKind::Rebalanced { workers });
                } else if kinds.is_empty() {
                    kinds.push(EventKind::Continued { workers });
                }
                self.note_released(&next.holders);
                kinds
            }
        };
        let otherwise = if self.synced.is_empty() { Cause::Arrival } else { Cause::CaughtUp };
        self.events.does(self.view, kinds, Some(otherwise));
    }

    /// Primaries that another server takes the place of, many shards at once.
    fn moves(&mut self, next: &[Holders]) -> Vec<EventKind> {
        let there = self.members.copies();
        let mut moves: BTreeMap<(ServerId, ServerId, bool), Vec<ShardId>> = BTreeMap::new();
        for ((shard, before), next) in by_shard(&self.holders).zip(next) {
            let copy = ShardCopy { shard, server: before.primary };
            let lost = !there.contains(&copy) || self.stateless.contains(&copy);
            if before.primary != next.primary {
                let status::Recoveries { promotions, handovers, .. } = &mut self.recoveries;
                *(if lost { promotions } else { handovers }) += 1;
                moves.entry((before.primary, next.primary, lost)).or_default().push(shard);
            }
        }
        let kind = |((from, to, lost), shards)| match lost {
            true => EventKind::Promoted { shards, from, to },
            false => EventKind::HandedOver { shards, from, to },
        };
        moves.into_iter().map(kind).collect()
    }

    fn note_released(&mut self, next: &[Holders]) {
        let (kept, there): (BTreeSet<ShardCopy>, _) =
            (copies(next).collect(), self.members.copies());
        let gone: Vec<ShardCopy> = copies(&self.holders)
            .filter(|copy| !kept.contains(copy) && there.contains(copy))
            .collect();
        for copy in gone {
            self.events.add(self.view, EventKind::Released { copy }, None);
        }
    }
}

/// Workers whose slots are others than before.
fn moved(before: &BTreeMap<WorkerId, Span>, after: &BTreeMap<WorkerId, Span>) -> u32 {
    let workers: BTreeSet<&WorkerId> = before.keys().chain(after.keys()).collect();
    let moved = workers.into_iter().filter(|worker| before.get(worker) != after.get(worker));
    u32::try_from(moved.count()).unwrap_or(u32::MAX)
}
