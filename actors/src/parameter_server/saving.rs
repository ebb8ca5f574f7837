//! What a primary tells the coordinator and the checkpoint store.

use std::time::Duration;

use actix::fut::{ActorFutureExt, WrapFuture};
use actix::{AsyncContext, Context};
use tokio::time::Instant;
use tracing::warn;

use super::{ANSWER_MAX, ParameterServer, RETRY_AFTER, ServerLinks};
use crate::ids::ShardCopy;
use crate::messages::checkpoint_store::SavePart;
use crate::messages::{Duty, ReportError, ReportPart, ReportShard, ask};
use crate::replication::Followers;
use crate::saving::save_until_written;
use crate::shard::{Save, Shard};

/// Checkpoints that may be on their way to the store, each a copy of the optimizer's state.
const SAVES_MAX: usize = 2;
/// How often the ledger goes with a report, which has a record of each epoch: it is long.
const LEDGER_EVERY: Duration = Duration::from_secs(1);

impl ParameterServer {
    /// Writes a version without holding up the next step, and tells the coordinator.
    pub(super) fn save(&mut self, save: Save, ctx: &mut Context<Self>) {
        let Some(shard) = &self.shard else { return };
        if self.saving >= SAVES_MAX && !shard.is_done() {
            warn!(
                copy = %self.copy, version = %save.version,
                "checkpoint skipped, earlier ones are still being written; raise checkpoint.every_steps"
            );
            return;
        }
        self.saving += 1;
        let report = snapshot(self.copy, shard, &self.followers);
        let written = write_and_report(self.links.clone(), report, save).into_actor(self);
        ctx.spawn(written.map(|(), server, _| server.saving -= 1));
    }

    pub(super) fn report(&mut self, ctx: &mut Context<Self>) {
        let (Some(shard), Some(Duty::Primary { .. })) = (&self.shard, &self.duty) else { return };
        let mut report = snapshot(self.copy, shard, &self.followers);
        let closed = report.ledger.as_ref().is_some_and(|ledger| ledger.closed);
        let state = (report.view, report.version, closed, report.synced.clone());
        if self.reporting || self.reported.as_ref() == Some(&state) {
            return;
        }
        self.reporting = true;
        let now = Instant::now();
        let with_ledger = closed || now >= self.ledger_due;
        if !with_ledger {
            report.ledger = None;
        }
        let coordinator = self.links.report_shard.clone();
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

/// Writes a part and reports it until the coordinator has heard, or it is of no use any more.
async fn write_and_report(links: ServerLinks, shard: ReportShard, save: Save) {
    let Save { version, content, tensors } = save;
    let request = SavePart { version, content, tensors };
    let Some(part) = save_until_written(&links.save, request).await else { return };
    let report = ReportPart { view: shard.view, version, part, shard: Some(shard) };
    loop {
        match ask(&links.report_part, report.clone(), ANSWER_MAX).await {
            Ok(()) | Err(ReportError::StaleView { .. }) => return,
            Err(ReportError::Link(_)) => tokio::time::sleep(RETRY_AFTER).await,
            Err(refused) => return warn!(%version, %refused, "checkpoint part not taken"),
        }
    }
}
