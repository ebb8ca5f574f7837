//! Residuals in checkpoints.

use std::time::Duration;

use actix::fut::{ActorFutureExt, WrapFuture};
use actix::{AsyncContext, Context};

use super::Worker;
use crate::checkpoint::{PartContent, is_saved, residual_name};
use crate::exchange::ANSWER_MAX;
use crate::ids::{Version, View};
use crate::messages::checkpoint_store::SavePart;
use crate::messages::{LeaseSlots, ReportError, ReportPart, ask};
use crate::saving::save_until_written;

/// Before a part is reported to a coordinator that could not be told.
const REPORT_AGAIN_AFTER: Duration = Duration::from_millis(100);

impl Worker {
    /// Residuals are state that would die with this worker: they are part of each checkpoint.
    pub(super) fn save_residuals(
        &mut self,
        lease: &LeaseSlots,
        version: Version,
        ctx: &mut Context<Self>,
    ) {
        let Some(work) = &mut self.work else { return };
        let last = work.plan().last_version();
        if !work.keeps_residuals() || !is_saved(version, lease.checkpoint_every, last) {
            return;
        }
        // It came by here before, and then a shard lost its newest version.
        if self.residuals_of != version {
            return;
        }
        if !self.saves.begin(version, lease.checkpoint_every, last) {
            return self.skips.add(self.id, version);
        }
        let residuals = work.residuals();
        let slots = residuals.iter().map(|(slot, _)| *slot).collect();
        let tensors =
            residuals.into_iter().map(|(slot, values)| (residual_name(slot), values)).collect();
        let part = SavePart { version, content: PartContent::Residuals { slots }, tensors };
        let (store, lineage, view) = (self.links.save.clone(), lease.lineage, lease.view);
        let written = async move { save_until_written(&store, part).await };
        ctx.spawn(written.into_actor(self).map(move |part, worker, ctx| {
            worker.saves.ended();
            let Some(part) = part else { return };
            let report = ReportPart { view, version, part, shard: None };
            worker.saves.written(lineage, report.clone());
            worker.report_part(lineage, report, ctx);
        }));
    }

    /// Reports a part until the coordinator of the lease's view has heard.
    pub(super) fn report_part(
        &mut self,
        lineage: View,
        mut report: ReportPart,
        ctx: &mut Context<Self>,
    ) {
        let Some(lease) = self.lease.as_ref().filter(|lease| lease.lineage == lineage) else {
            return;
        };
        let view = lease.view;
        report.view = view;
        let leader = self.links.report_part.get(lease.leader.0 as usize).cloned();
        let Some(leader) = leader else { return };
        let again = report.clone();
        let sent = async move { ask(&leader, report, ANSWER_MAX).await }.into_actor(self);
        ctx.spawn(sent.map(move |answer, _, ctx| {
            if let Err(ReportError::Link(_) | ReportError::NotLeading) = answer {
                ctx.run_later(REPORT_AGAIN_AFTER, move |worker, ctx| {
                    // A later lease has reported it anew.
                    if worker.lease.as_ref().is_some_and(|held| held.view == view) {
                        worker.report_part(lineage, again, ctx);
                    }
                });
            }
        }));
    }
}
