//! The primary's side of replication, and a follower's.

use std::sync::Arc;
use std::time::Duration;

use actix::fut::{ActorFutureExt, WrapFuture};
use actix::{AsyncContext, Context, Handler, Recipient};
use tracing::{info, warn};

use super::{ANSWER_MAX, ParameterServer};
use crate::exchange::{RETRY_FIRST, wait};
use crate::ids::{ServerId, ShardCopy, View};
use crate::messages::{
    Duty, FillShard, LinkError, Replicate, ReplicateError, Replicated, ReportError, ReportFenced,
    ask,
};
use crate::plan::JobPlan;
use crate::replication::{Followers, Next};
use crate::shard::Shard;

/// A whole shard may have to cross a slow network.
const FILL_MAX: Duration = Duration::from_secs(60);
/// What a link carries at least while an update waits for it, in bytes a second: the workers' pushes and
/// answers go the same way.
const UPDATE_BYTES_A_SECOND: usize = 1_000_000;
/// Tries to say that it was fenced: minutes. It is news and no state, so it may be lost.
const TELLS_MAX: u32 = 100;
/// Before a copy that has not heard of its view is asked again: it is about to.
const EARLY_AFTER: Duration = Duration::from_millis(10);
/// Before one that can't be reached is.
const AGAIN_AFTER: Duration = Duration::from_millis(100);

impl ParameterServer {
    /// Sends what followers lack, to each one thing at a time.
    pub(super) fn follow_up(&mut self, ctx: &mut Context<Self>) {
        for (server, next) in self.followers.due() {
            let Some(shard) = &mut self.shard else { return };
            let (view, to) = (self.view, ShardCopy { server, ..self.copy });
            let place = server.0 as usize;
            match next {
                Next::Fill => {
                    let shards = u32::try_from(shard.plan().shards.len()).unwrap_or(u32::MAX);
                    let Some((fill, applied)) = shard.fill(to, shards) else { continue };
                    self.followers.filling(server, applied);
                    info!(%to, %view, applied, "filling a copy");
                    let Some(link) = self.links.fill.get(place).cloned() else { continue };
                    self.send(server, async move { ask(&link, fill, FILL_MAX).await }, ctx);
                }
                Next::Update(update) => {
                    shard.sends(&update);
                    let Some(link) = self.links.replicate.get(place).cloned() else { continue };
                    let bytes = size_of_val(update.gradient.as_slice());
                    let limit =
                        ANSWER_MAX + Duration::from_secs((bytes / UPDATE_BYTES_A_SECOND) as u64);
                    let step = Replicate { view, to, update };
                    self.send(server, async move { ask(&link, step, limit).await }, ctx);
                }
            }
        }
    }

    fn send(
        &mut self,
        server: ServerId,
        sent: impl Future<Output = Result<Replicated, ReplicateError>> + 'static,
        ctx: &mut Context<Self>,
    ) {
        let view = self.view;
        ctx.spawn(sent.into_actor(self).map(move |answer, this, ctx| {
            if this.view == view && this.is_primary() {
                this.follower_answered(server, answer, ctx);
            }
        }));
    }

    fn follower_answered(
        &mut self,
        server: ServerId,
        answer: Result<Replicated, ReplicateError>,
        ctx: &mut Context<Self>,
    ) {
        let ours = self.shard.as_ref().map_or(0, Shard::applied);
        let pause = match answer {
            Ok(Replicated { applied }) => {
                self.followers.answered(server, applied, ours);
                self.settle(ctx);
                return self.follow_up(ctx);
            }
            Err(ReplicateError::StaleView { current, .. }) => return self.fenced(current, ctx),
            Err(ReplicateError::EarlyView { .. }) => {
                self.followers.unanswered(server);
                EARLY_AFTER
            }
            Err(ReplicateError::Link(LinkError::Timeout { .. })) => {
                self.followers.unanswered(server);
                EARLY_AFTER
            }
            Err(ReplicateError::Link(_)) => {
                self.followers.unanswered(server);
                AGAIN_AFTER
            }
            Err(ReplicateError::Empty(_) | ReplicateError::Ahead { .. }) => {
                self.followers.refused(server);
                EARLY_AFTER
            }
            Err(refused) => {
                warn!(copy = %self.copy, %server, error = %refused, "a copy can't follow");
                self.followers.refused(server);
                AGAIN_AFTER
            }
        };
        let view = self.view;
        ctx.run_later(pause, move |this, ctx| {
            if this.view == view && this.is_primary() {
                this.follow_up(ctx);
            }
        });
    }

    /// A copy knows a newer view: this one has been replaced, and nothing it does counts.
    fn fenced(&mut self, current: View, ctx: &mut Context<Self>) {
        warn!(copy = %self.copy, view = %self.view, %current, "fenced: no longer the primary");
        let report = ReportFenced { copy: self.copy, view: self.view, by: current };
        ctx.spawn(tell(self.links.report_fenced.clone(), report).into_actor(self));
        self.duty = None;
        self.abandon();
        self.norm_waiting.clear();
        self.norms = None;
        self.followers = Followers::default();
    }

    /// Whether the primary of `view` may tell this copy what to hold.
    fn check_primary(&self, view: View, to: ShardCopy) -> Result<(), ReplicateError> {
        if to != self.copy {
            return Err(ReplicateError::WrongShard { expected: to, got: self.copy });
        }
        let (got, current) = (view, self.view);
        if got < current {
            return Err(ReplicateError::StaleView { got, current });
        }
        if got > current {
            return Err(ReplicateError::EarlyView { got, current });
        }
        match self.duty {
            Some(Duty::Replica | Duty::Learner) => Ok(()),
            // Being restored.
            None => Err(ReplicateError::EarlyView { got, current }),
            _ => Err(ReplicateError::NoFollower(self.copy)),
        }
    }
}

/// Tells whoever leads, for as long as nobody may.
async fn tell(coordinators: Vec<Recipient<ReportFenced>>, report: ReportFenced) {
    let mut pause = RETRY_FIRST;
    for _ in 0..TELLS_MAX {
        for coordinator in &coordinators {
            let answer = ask(coordinator, report, ANSWER_MAX).await;
            if !matches!(answer, Err(ReportError::Link(_) | ReportError::NotLeading)) {
                return;
            }
        }
        wait(&mut pause).await;
    }
}

impl Handler<Replicate> for ParameterServer {
    type Result = Result<Replicated, ReplicateError>;

    fn handle(&mut self, message: Replicate, _ctx: &mut Self::Context) -> Self::Result {
        let Replicate { view, to, update } = message;
        self.check_primary(view, to)?;
        let Some(shard) = &mut self.shard else { return Err(ReplicateError::Empty(self.copy)) };
        let applied = shard.follow(to, &update)?;
        Ok(Replicated { applied })
    }
}

impl Handler<FillShard> for ParameterServer {
    type Result = Result<Replicated, ReplicateError>;

    fn handle(&mut self, fill: FillShard, _ctx: &mut Self::Context) -> Self::Result {
        let to = fill.to;
        self.check_primary(fill.view, to)?;
        if self.duty != Some(Duty::Learner) {
            return Err(ReplicateError::NoFollower(self.copy));
        }
        let wrong = |cause: String| ReplicateError::Wrong { to, cause };
        // A copy of the fill that came before, or one that was asked for again.
        if let Some(shard) = &self.shard
            && shard.lineage() == fill.lineage
            && shard.applied() > fill.version.0
        {
            return Ok(Replicated { applied: shard.applied() });
        }
        let plan = JobPlan::new(fill.offer.clone(), fill.shards);
        let plan = plan.map_err(|error| wrong(error.to_string()))?;
        if to.shard.0 >= fill.shards || fill.checkpoint_every == 0 {
            return Err(wrong(format!("{} of {} shards", to.shard, fill.shards)));
        }
        if fill.version > plan.last_version() {
            return Err(wrong(format!("{} is beyond the last", fill.version)));
        }
        let shard = Shard::filled(Arc::new(plan), fill)?;
        info!(copy = %self.copy, view = %self.view, version = %shard.version(), "copy filled");
        let applied = shard.applied();
        self.shard = Some(shard);
        Ok(Replicated { applied })
    }
}
