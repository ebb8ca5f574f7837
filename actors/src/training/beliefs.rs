//! What a report must keep to be believed: a peer that shook hands may still be a wrong one.

use super::{Training, TrainingConfig};
use crate::checkpoint::{PartContent, SavedPart, is_saved};
use crate::ids::{ShardCopy, ShardId, Slot, View};
use crate::messages::{
    Heartbeat, HeartbeatError, Member, ReportError, ReportFailure, ReportPart, ReportShard,
};
use crate::plan::JobPlan;

impl Training {
    /// A member beyond the configuration would be waited for and leased slots, and nobody could be
    /// sent to it.
    pub(super) fn check_members(&self, heartbeat: &Heartbeat) -> Result<(), HeartbeatError> {
        for &(member, _) in &heartbeat.members {
            let TrainingConfig { shards, servers, workers, .. } = self.config;
            let numbers = match member {
                Member::Copy(ShardCopy { shard, server }) => vec![
                    (shard.0, shards, "servers.shards"),
                    (server.0, servers, "number of [[nodes]] with the role server"),
                ],
                Member::Worker(worker) => vec![(worker.0, workers, "workers.count")],
            };
            if let Some((_, limit, key)) =
                numbers.into_iter().find(|(number, limit, _)| number >= limit)
            {
                let (node, key) = (heartbeat.node.clone(), key.to_owned());
                return Err(HeartbeatError::NoSuchMember { node, member, key, limit });
            }
        }
        Ok(())
    }

    pub(super) fn check_shard(&self, report: &ReportShard) -> Result<(), ReportError> {
        let plan = self.plan_in(report.view)?;
        let (got, shards) = (report.copy.shard, self.config.shards);
        if got.0 >= shards {
            return Err(ReportError::NoSuchShard { got, shards });
        }
        let servers = self.config.servers;
        let named = std::iter::once(&report.copy.server).chain(&report.synced);
        if let Some(&got) = named.into_iter().find(|server| server.0 >= servers) {
            return Err(ReportError::NoSuchServer { got, servers });
        }
        let last = plan.last_version();
        if report.version > last {
            return Err(ReportError::BeyondLast { got: report.version, last });
        }
        let Some(ledger) = &report.ledger else { return Ok(()) };
        if got != ShardId(0) {
            return Err(ReportError::NotItsLedger { got });
        }
        let job = &plan.offer.job;
        let epochs = ledger.epochs().max(ledger.finished.len() as u64);
        if epochs > job.epochs {
            return Err(ReportError::TooManyEpochs { got: epochs, epochs: job.epochs });
        }
        Ok(())
    }

    pub(super) fn check_part(&self, report: &ReportPart) -> Result<(), ReportError> {
        let plan = self.plan_in(report.view)?;
        let (got, last, every) =
            (report.version, plan.last_version(), self.config.checkpoint_every);
        if got > last || !is_saved(got, every, last) {
            return Err(ReportError::NotSaved { got, every, last });
        }
        match (&report.part.content, &report.shard) {
            (PartContent::Parameters { start, end }, Some(shard)) => {
                self.check_shard(shard)?;
                let (shard, got) = (shard.copy.shard, *start..*end);
                let expected = plan.shards.range(shard);
                if got != expected {
                    return Err(ReportError::WrongRange { shard, expected, got });
                }
            }
            (PartContent::Parameters { .. }, None) => return Err(ReportError::NobodysRange),
            (PartContent::Residuals { slots }, _) => {
                let count = if self.keeps_residuals() { self.job.virtual_workers } else { 0 };
                if let Some(&got) = slots.iter().find(|slot| slot.0 >= count) {
                    return Err(ReportError::WrongSlot { got, slots: count });
                }
            }
        }
        Ok(())
    }

    pub(super) fn check_failure(&self, report: &ReportFailure) -> Result<(), ReportError> {
        self.plan_in(report.view)?;
        let (got, workers) = (report.worker, self.config.workers);
        if got.0 >= workers {
            return Err(ReportError::NoSuchWorker { got, workers });
        }
        Ok(())
    }

    /// The plan, if `got` is a view in which something could be done by it.
    fn plan_in(&self, got: View) -> Result<&JobPlan, ReportError> {
        let stale = ReportError::StaleView { got, current: self.view };
        // New leases change nothing that a shard or a checkpoint holds; a rollback does.
        let current = got > View(0) && got >= self.lineage && got <= self.view;
        match &self.plan {
            None if current => Err(ReportError::NotLeading),
            plan => plan.as_ref().filter(|_| current).ok_or(stale),
        }
    }
}

/// Whether two parts hold something in common: of such, only the later one is true.
pub(super) fn overlap(one: &SavedPart, other: &SavedPart) -> bool {
    match (&one.content, &other.content) {
        (PartContent::Residuals { slots }, PartContent::Residuals { slots: others }) => {
            let common = |slot: &Slot| others.contains(slot);
            slots == others || slots.iter().any(common)
        }
        // Parameters are cut one way only.
        (one, other) => one == other,
    }
}
