//! Servers and workers that are to leave while others go on.
//!
//! They keep what they have until somebody else has it, and are given nothing new. That they are to
//! leave is part of each view's state, so that whoever leads next knows it too.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::events::{Cause, EventKind, Who};
use super::phase::{Command, Phase};
use super::{Training, TrainingConfig};
use crate::ids::{ServerId, WorkerId};
use crate::messages::{Drain, DrainError, Draining};
use crate::placement::copies;

/// Members that are to leave, there or not, until they are called back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Leaving {
    pub servers: BTreeSet<ServerId>,
    pub workers: BTreeSet<WorkerId>,
}

/// A member that is to leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leaver {
    pub who: Who,
    /// What it still has: a server's copies of shards, in sync or not; a worker's slots of a step.
    pub holds: u32,
}

impl Leaving {
    /// After this request.
    fn with(&self, drain: &Drain) -> Self {
        let mut next = self.clone();
        if drain.back {
            next.servers.retain(|server| !drain.servers.contains(server));
            next.workers.retain(|worker| !drain.workers.contains(worker));
        } else {
            next.servers.extend(&drain.servers);
            next.workers.extend(&drain.workers);
        }
        next
    }

    /// As far as the configuration has them.
    pub(super) fn known(mut self, config: &TrainingConfig) -> Self {
        self.servers.retain(|server| server.0 < config.servers);
        self.workers.retain(|worker| worker.0 < config.workers);
        self
    }

    fn members(&self) -> impl Iterator<Item = Who> + '_ {
        let servers = self.servers.iter().copied().map(Who::Server);
        servers.chain(self.workers.iter().copied().map(Who::Worker))
    }
}

impl Training {
    /// Members are to leave, or to come back. The same again says how far it is.
    ///
    /// # Errors
    /// There are no such members, nobody alive would stay who can do their work, or the run failed.
    pub fn drain(&mut self, drain: &Drain) -> (Result<Draining, DrainError>, Vec<Command>) {
        if let Err(refused) = self.check_drain(drain) {
            return (Err(refused), Vec::new());
        }
        let next = self.leaving.with(drain);
        let commands = if next == self.leaving { Vec::new() } else { self.leave(next) };
        (Ok(self.draining(drain)), commands)
    }

    fn check_drain(&self, drain: &Drain) -> Result<(), DrainError> {
        let TrainingConfig { servers, workers, .. } = self.config;
        if let Phase::Failed { cause } = &self.phase {
            return Err(DrainError::Failed { cause: cause.clone() });
        }
        if let Some(&got) = drain.servers.iter().find(|server| server.0 >= servers) {
            return Err(DrainError::NoSuchServer { got, servers });
        }
        if let Some(&got) = drain.workers.iter().find(|worker| worker.0 >= workers) {
            return Err(DrainError::NoSuchWorker { got, workers });
        }
        let next = self.leaving.with(drain);
        // Whoever was allowed to leave may go on, and a run that is over needs nobody.
        if drain.back || next == self.leaving || matches!(self.phase, Phase::Done(_)) {
            return Ok(());
        }
        let alive = self.members.servers(self.config.shards);
        if !drain.servers.is_empty() && !alive.iter().any(|server| !next.servers.contains(server)) {
            let leaving = next.servers.len();
            return Err(DrainError::NoServerStays { servers, leaving });
        }
        let alive = self.members.workers();
        if !drain.workers.is_empty() && !alive.iter().any(|worker| !next.workers.contains(worker)) {
            let leaving = next.workers.len();
            return Err(DrainError::NoWorkerStays { workers, leaving });
        }
        Ok(())
    }

    fn leave(&mut self, next: Leaving) -> Vec<Command> {
        let before = std::mem::replace(&mut self.leaving, next);
        let (now, before): (BTreeSet<Who>, BTreeSet<Who>) =
            (self.leaving.members().collect(), before.members().collect());
        for &who in now.difference(&before) {
            self.events.add(self.view, EventKind::Leaving { who }, None);
        }
        for &who in before.difference(&now) {
            self.events.add(self.view, EventKind::Back { who }, None);
        }
        match self.phase {
            Phase::Running { .. } => {
                self.events.because(Cause::Drain);
                self.plan(false)
            }
            Phase::Raising(_) | Phase::Assigning { .. } => {
                self.replan = true;
                Vec::new()
            }
            // The next view begins with it.
            _ => Vec::new(),
        }
    }

    /// How far those of a request are.
    fn draining(&self, drain: &Drain) -> Draining {
        let named = |leaver: &Leaver| match leaver.who {
            Who::Server(server) => drain.servers.contains(&server),
            Who::Worker(worker) => drain.workers.contains(&worker),
            Who::Copy(_) => false,
        };
        let leaving: Vec<Leaver> = self.leavers().into_iter().filter(named).collect();
        let holds_nothing = leaving.iter().all(|leaver| leaver.holds == 0);
        let settled = match &self.phase {
            Phase::Done(_) => true,
            // Everyone has heard of the view in which they hold nothing.
            Phase::Running { workers, .. } => {
                self.leaving == self.raised && workers.is_empty() && holds_nothing
            }
            _ => false,
        };
        let stay = self.config.servers.saturating_sub(count(&self.leaving.servers));
        let replicas = self.config.replicas.min(stay.saturating_sub(1));
        Draining { view: self.view, leaving, settled, replicas, wanted: self.config.replicas }
    }

    /// All who are to leave, and what they have.
    pub(super) fn leavers(&self) -> Vec<Leaver> {
        let over = matches!(self.phase, Phase::Done(_));
        let holds = |who: &Who| match who {
            _ if over => 0,
            Who::Server(server) => {
                copies(&self.holders).filter(|copy| copy.server == *server).count()
            }
            Who::Worker(worker) => self.leases.get(worker).map_or(0, |span| span.slots().count()),
            Who::Copy(_) => 0,
        };
        let leaver = |who| Leaver { who, holds: u32::try_from(holds(&who)).unwrap_or(u32::MAX) };
        self.leaving.members().map(leaver).collect()
    }

    /// Servers that may hold shards: those that leave only where nobody else is there.
    pub(super) fn servers(&self) -> Vec<ServerId> {
        let alive = self.members.servers(self.config.shards);
        staying(alive, &self.leaving.servers)
    }

    /// Workers that may have slots: those that leave only where nobody else is there.
    pub(super) fn workers(&self) -> Vec<WorkerId> {
        staying(self.members.workers(), &self.leaving.workers)
    }

    /// Whether everyone is there who is not to leave.
    pub(super) fn all_there(&self) -> bool {
        let TrainingConfig { servers, workers, shards, .. } = self.config;
        let mut there = self.leaving.clone();
        there.servers.extend(self.members.servers(shards));
        there.workers.extend(self.members.workers());
        (0..servers).all(|server| there.servers.contains(&ServerId(server)))
            && (0..workers).all(|worker| there.workers.contains(&WorkerId(worker)))
    }

    /// With residuals slots move at a checkpoint only: whether workers wait for it that leave, or
    /// that have none, whoever led when that began.
    pub(super) fn slots_wait(&self) -> bool {
        let workers = self.workers();
        let leaves = |worker: &WorkerId| !workers.contains(worker);
        let (held, even) = (self.leases.len(), self.even_leases().len());
        self.keeps_residuals() && (self.leases.keys().any(leaves) || held < even)
    }
}

fn count<T>(members: &BTreeSet<T>) -> u32 {
    u32::try_from(members.len()).unwrap_or(u32::MAX)
}

fn staying<T: Ord + Copy>(alive: Vec<T>, leaving: &BTreeSet<T>) -> Vec<T> {
    let stay: Vec<T> = alive.iter().copied().filter(|member| !leaving.contains(member)).collect();
    if stay.is_empty() { alive } else { stay }
}
