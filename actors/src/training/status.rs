//! A run as operators and tests see it: one snapshot.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::events::EventFeed;
use super::leaving::Leaver;
use super::phase::Phase;
use super::speeds::Share;
use super::{Published, Training};
use crate::ids::{Incarnation, Version, View};
use crate::ledger::Ledger;
use crate::messages::BytesMoved;
use crate::plan::JobPlan;

/// How often something had to be healed; which nodes have said what they train.
#[derive(Clone, Debug, Default)]
pub(super) struct Recoveries {
    pub(super) lost: u64,
    pub(super) new_leases: u64,
    pub(super) promotions: u64,
    pub(super) handovers: u64,
    pub(super) rollbacks: u64,
    /// And in which life.
    pub(super) offered: BTreeMap<String, Incarnation>,
}

/// Where a run is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "phase")]
pub enum Progress {
    /// Another coordinator leads, or none yet.
    Following {
        leader: Option<String>,
    },
    /// Servers or workers are missing.
    Gathering,
    /// Shards and leases are being assigned.
    Assigning,
    Running,
    Publishing,
    Done(Published),
    Failed {
        cause: String,
    },
}

impl Progress {
    /// Whether the run has ended, well or not.
    pub fn is_over(&self) -> bool {
        matches!(self, Self::Done(_) | Self::Failed { .. })
    }
}

/// A run's state at one moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainingStatus {
    pub progress: Progress,
    pub view: View,
    /// The version that every shard has reached.
    pub version: Version,
    /// The version at which the job is done; `None` before the data is known.
    pub last_version: Option<Version>,
    pub steps_per_epoch: Option<u64>,
    pub train_rows: Option<u64>,
    /// The version at which this coordinator took the run up: 0 for a new one.
    pub resumed_from: Option<Version>,
    /// The newest whole checkpoint.
    pub checkpoint: Option<Version>,
    pub shards: usize,
    pub servers: usize,
    /// Copies beside the primaries that could take their place now.
    pub replicas: usize,
    pub workers: usize,
    pub ledger: Ledger,
    pub bytes: BytesMoved,
    /// Members lost; views in which shards went on as they were; replicas that took a lost
    /// primary's place; primaries that handed over; rollbacks.
    pub lost: u64,
    pub new_leases: u64,
    pub promotions: u64,
    pub handovers: u64,
    pub rollbacks: u64,
    /// What each worker computes of a step.
    pub shares: Vec<Share>,
    /// Who is to leave, and what each still has.
    pub leaving: Vec<Leaver>,
    pub events: EventFeed,
    /// Why a store or the registry is being asked again.
    pub held_up: Option<String>,
}

impl Training {
    pub fn status(&self) -> TrainingStatus {
        TrainingStatus { events: self.events.feed(), ..self.status_with(self.ledger.clone()) }
    }

    /// What a coordinator shows that doesn't lead.
    pub fn followed(&self, leader: Option<String>) -> TrainingStatus {
        let status = self.status();
        let progress = match status.progress {
            // It can't even be known who leads.
            failed @ Progress::Failed { .. } => failed,
            _ => Progress::Following { leader },
        };
        TrainingStatus { progress, view: View(0), ..status }
    }

    /// Brings a status up to date; whether it was not. The ledger and the events are long and change
    /// rarely.
    pub fn update(&self, status: &mut TrainingStatus) -> bool {
        let mut ledger = std::mem::take(&mut status.ledger);
        let mut changed = ledger != self.ledger;
        if changed {
            ledger.clone_from(&self.ledger);
        }
        let mut events = std::mem::take(&mut status.events);
        changed |= self.events.update(&mut events);
        let mut now = self.status_with(Ledger::default());
        changed |= *status != now;
        (now.ledger, now.events) = (ledger, events);
        *status = now;
        changed
    }

    fn status_with(&self, ledger: Ledger) -> TrainingStatus {
        let progress = match &self.phase {
            Phase::Gathering { .. } => Progress::Gathering,
            Phase::Opening
            | Phase::Confirming { .. }
            | Phase::Raising(_)
            | Phase::Assigning { .. } => Progress::Assigning,
            Phase::Running { .. } => Progress::Running,
            Phase::Publishing => Progress::Publishing,
            Phase::Done(published) => Progress::Done(published.clone()),
            Phase::Failed { cause } => Progress::Failed { cause: cause.clone() },
        };
        let copies = self.members.copies();
        let whole = self.progress.len() == self.config.shards as usize;
        let bytes = self.progress.values().fold(BytesMoved::default(), |sum, shard| {
            sum.plus(shard.bytes_before).plus(shard.bytes)
        });
        TrainingStatus {
            progress,
            view: self.view,
            version: if whole { self.reached() } else { Version(0) },
            last_version: self.plan.as_ref().map(JobPlan::last_version),
            steps_per_epoch: self.plan.as_ref().map(JobPlan::steps_per_epoch),
            train_rows: self.plan.as_ref().map(|plan| plan.offer.data.train_rows as u64),
            resumed_from: self.resumed_from,
            checkpoint: self.checkpoint.as_ref().map(|manifest| manifest.version),
            shards: copies.iter().map(|copy| copy.shard).collect::<BTreeSet<_>>().len(),
            servers: copies.iter().map(|copy| copy.server).collect::<BTreeSet<_>>().len(),
            replicas: self.holders.iter().map(|held| held.replicas.len()).sum(),
            workers: self.members.workers().len(),
            ledger,
            bytes,
            lost: self.recoveries.lost,
            new_leases: self.recoveries.new_leases,
            promotions: self.recoveries.promotions,
            handovers: self.recoveries.handovers,
            rollbacks: self.recoveries.rollbacks,
            held_up: self.held_up.clone(),
            shares: self.shares(),
            leaving: self.leavers(),
            events: EventFeed::default(),
        }
    }

    /// The version that all shards that are known have reached.
    pub(super) fn reached(&self) -> Version {
        self.progress.values().map(|shard| shard.version).min().unwrap_or_default()
    }
}
