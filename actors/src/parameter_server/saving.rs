//! What a primary tells the coordinator and the checkpoint store.

use std::time::Duration;

use actix::fut::{ActorFutureExt, WrapFuture};
use actix::{AsyncContext, Context};
use tokio::time::Instant;
use tracing::warn;

use super::{ANSWER_MAX, ParameterServer, RETRY_AFTER};
use crate::ids::{ShardCopy, View};
use crate::messages::checkpoint_store::SavePart;
use crate::messages::{Duty, ReportError, ReportPart, ReportShard, ask};
use crate::replication::Followers;
use crate::saving::save_until_written;
use crate::shard::{Save, Shard};

/// How often the ledger goes with a report, which has a record of each epoch: it is long.
const LEDGER_EVERY: Duration = Duration::from_secs(1);

impl ParameterServer {
    /// Writes a version without holding up the next step, and tells the coordinator.
    pub(super) fn save(&mut self, save: Save, ctx: &mut Context<Self>) {
        let Some(shard) = &self.shard else { return };
        let (every, last) = (shard.checkpoint_every(), shard.plan().last_version());
        if !self.saves.begin(save.version, every, last) {
            return self.skips.add(self.copy, save.version);
        }
        // Reported in later views too, in which the same learner may have nothing.
        let synced = Vec::new();
        let report = ReportShard { synced, ..snapshot(self.copy, shard, &self.followers) };
        let (lineage, version) = (shard.lineage(), save.version);
        let Save { content, tensors, .. } = save;
        let (store, save) = (self.links.save.clone(), SavePart { version, content, tensors });
        let written = async move { save_until_written(&store, save).await };
        ctx.spawn(written.into_actor(self).map(move |part, server, ctx| {
            server.saves.ended();
            if let Some(part) = part {
                let (view, shard) = (report.view, Some(report));
                server.written(lineage, ReportPart { view, version, part, shard }, ctx);
            }
        }));
    }

    /// A part is in the store: the coordinator has to know, and its successor too.
    fn written(&mut self, lineage: View, report: ReportPart, ctx: &mut Context<Self>) {
        self.saves.written(lineage, report.clone());
        if self.shard.as_ref().is_some_and(|shard| shard.lineage() == lineage) {
            self.report_part(report, ctx);
        }
    }

    /// Another coordinator may not have heard of what was written for the one before.
    pub(super) fn report_parts(&mut self, ctx: &mut Context<Self>) {
        let Some(lineage) = self.shard.as_ref().map(Shard::lineage) else { return };
        for report in self.saves.of(lineage) {
            self.report_part(report, ctx);
        }
    }

    /// Reports a part until the coordinator of this view has heard.
    fn report_part(&mut self, mut report: ReportPart, ctx: &mut Context<Self>) {
        let view = self.view;
        report.view = view;
        if let Some(shard) = &mut report.shard {
            shard.view = view;
        }
        let Some(leader) = self.links.report_part.get(self.leader.0 as usize).cloned() else {
            return;
        };
        let again = report.clone();
        let sent = async move { ask(&leader, report, ANSWER_MAX).await }.into_actor(self);
        ctx.spawn(sent.map(move |answer, _, ctx| match answer {
            Ok(()) | Err(ReportError::StaleView { .. }) => {}
            Err(ReportError::Link(_) | ReportError::NotLeading) => {
                ctx.run_later(RETRY_AFTER, move |server, ctx| {
                    // A later view has reported it anew.
                    if server.view == view {
                        server.report_part(again, ctx);
                    }
                });
            }
            Err(refused) => warn!(version = %again.version, %refused, "checkpoint part not taken"),
        }));
    }

    pub(super) fn report(&mut self, ctx: &mut Context<Self>) {
        let (Some(shard), Some(Duty::Primary { .. })) = (&self.shard, &self.duty) else { return };
        let mut report = snapshot(self.copy, shard, &self.followers);
        let closed = report.ledger.as_ref().is_some_and(|ledger| ledger.closed);
        let state = (report.view, report.version, closed, report.synced.clone());
        if self.reporting || self.reported.as_ref() == Some(&state) {
            return;
        }
        let now = Instant::now();
        let with_ledger = closed || now >= self.ledger_due;
        if !with_ledger {
            report.ledger = None;
        }
        let Some(coordinator) = self.links.report_shard.get(self.leader.0 as usize).cloned() else {
            return;
        };
        self.reporting = true;
        let sent = async move { ask(&coordinator, report, ANSWER_MAX).await }.into_actor(self);
        ctx.spawn(sent.map(move |answer, server, _| {
            server.reporting = false;
            if answer.is_ok() {
                server.reported = Some(state);
                if with_ledger {
                    server.ledger_due = now + LEDGER_EVERY;
                }
            }
        }));
    }
}

/// How far the shard is.
fn snapshot(copy: ShardCopy, shard: &Shard, followers: &Followers) -> ReportShard {
    ReportShard {
        view: shard.view(),
        copy,
        version: shard.committed(),
        synced: followers.synced(shard.committed().0),
        ledger: shard.ledger().cloned(),
        bytes: shard.bytes(),
    }
}
