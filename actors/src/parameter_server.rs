//! ParameterServer: one copy of one shard of the model.
//!
//! Connects a mailbox to a [`Shard`]; which gradient counts is decided in `shard.rs`, who must have
//! a step before the next one is made in `replication.rs`. Requests that wait for a step are
//! answered when it is applied.

mod norms;
mod replicating;
mod restoring;
mod saving;

use std::collections::BTreeMap;
use std::time::Duration;

use actix::fut::{ActorFutureExt, WrapFuture};
use actix::{
    Actor, AsyncContext, Context, Handler, Recipient, ResponseActFuture, SpawnHandle, Supervised,
};
use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::{info, trace, warn};

use crate::ids::{CoordinatorId, ServerId, ShardCopy, ShardId, Version, View, WorkerId};
use crate::job::MAX_VIRTUAL_WORKERS;
use crate::later::{Later, Owed};
use crate::messages::checkpoint_store::{LoadRange, SavePart};
use crate::messages::{
    AdoptView, Appointment, CombineNorm, CombinedNorm, Duty, FetchModel, FillShard, FindModel,
    LinkError, NormError, NormPart, Parameters, PullError, PullParameters, PushError, PushGradient,
    Pushed, Replicate, ReportFenced, ReportPart, ReportShard, RestoreError, RestoreShard,
};
use crate::norm::NormRounds;
use crate::planted::{self, Bug};
use crate::replication::Followers;
use crate::saves::Saves;
use crate::saving::Skips;
use crate::shard::{Accepted, Aggregated, COMMITS, Shard};
use restoring::{Sources, load_shard, planned};

/// Two requests a worker at 64 workers; senders beyond it are held back.
const MAILBOX_CAPACITY: usize = 128;
/// Workers that may wait for a step: each has a slot of it, and those of the lease before may not
/// have given up yet.
const WAITING_MAX: usize = 2 * MAX_VIRTUAL_WORKERS as usize;
/// How long an answer of a peer may take before it is asked again.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// Between two tries of the same request.
const RETRY_AFTER: Duration = Duration::from_millis(100);
/// How often progress is reported: often enough for a bar, rare beside the steps.
const REPORT_EVERY: Duration = Duration::from_millis(100);

/// Whom a ParameterServer speaks to.
#[derive(Clone)]
pub struct ServerLinks {
    /// The coordinators in their order.
    pub report_shard: Vec<Recipient<ReportShard>>,
    pub report_part: Vec<Recipient<ReportPart>>,
    pub report_fenced: Vec<Recipient<ReportFenced>>,
    pub save: Recipient<SavePart>,
    pub load: Recipient<LoadRange>,
    /// Versions that a job may begin with.
    pub find: Recipient<FindModel>,
    pub fetch: Recipient<FetchModel>,
    /// The copies of the first shard by server, of which one may be this actor.
    pub norm: Vec<Recipient<CombineNorm>>,
    /// The copies of this shard by server, of which one is this actor.
    pub replicate: Vec<Recipient<Replicate>>,
    pub fill: Vec<Recipient<FillShard>>,
}

impl std::fmt::Debug for ServerLinks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerLinks").finish_non_exhaustive()
    }
}

/// One copy of a shard, from its first appointment on.
pub struct ParameterServer {
    copy: ShardCopy,
    links: ServerLinks,
    view: View,
    /// What this copy is in `view`; `None` before its first, and after it was found out to be over.
    duty: Option<Duty>,
    /// The primary of the first shard.
    first: ServerId,
    /// Whom to report to.
    leader: CoordinatorId,
    shard: Option<Shard>,
    followers: Followers,
    restoring: bool,
    /// Pushes that wait, and for which step to be applied.
    waiting: BTreeMap<WorkerId, (Version, Owed<Result<Pushed, PushError>>)>,
    norms: Option<NormRounds>,
    /// Shards that wait for the norm of a step.
    norm_waiting: BTreeMap<(Version, ShardId), oneshot::Sender<Result<CombinedNorm, NormError>>>,
    /// The request for the norm of the step in flight, or the word of the one before.
    combining: Option<SpawnHandle>,
    /// The first shard of this view has heard what it may lack.
    norms_told: bool,
    saves: Saves,
    skips: Skips,
    reported: Option<(View, Version, bool, Vec<ServerId>)>,
    ledger_due: Instant,
    reporting: bool,
}

impl std::fmt::Debug for ParameterServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ParameterServer")
            .field("copy", &self.copy)
            .field("view", &self.view)
            .field("duty", &self.duty)
            .field("shard", &self.shard)
            .finish_non_exhaustive()
    }
}

impl ParameterServer {
    pub fn new(copy: ShardCopy, links: ServerLinks) -> Self {
        Self {
            copy,
            links,
            view: View(0),
            duty: None,
            first: ServerId(0),
            leader: CoordinatorId(0),
            shard: None,
            followers: Followers::default(),
            restoring: false,
            waiting: BTreeMap::new(),
            norms: None,
            norm_waiting: BTreeMap::new(),
            combining: None,
            norms_told: false,
            saves: Saves::default(),
            skips: Skips::default(),
            reported: None,
            ledger_due: Instant::now(),
            reporting: false,
        }
    }

    fn is_primary(&self) -> bool {
        matches!(self.duty, Some(Duty::Primary { .. }))
    }

    /// Begins a view with the state that is here.
    fn appoint(&mut self, appointment: Appointment, ctx: &mut Context<Self>) {
        let Appointment { view, duty, first, leader, .. } = appointment;
        let was_primary = self.is_primary();
        info!(copy = %self.copy, %view, %duty, "appointed");
        (self.view, self.first, self.leader) = (view, first, leader);
        self.duty = Some(duty.clone());
        self.stop_combining(ctx);
        self.norms_told = false;
        let Duty::Primary { replicas, learners } = duty else {
            self.step_down(&duty);
            // Of what it wrote as a primary, which nobody else will report.
            return self.report_parts(ctx);
        };
        let Some(shard) = &mut self.shard else { return };
        shard.lead(view, !replicas.is_empty());
        let last = shard.last_update();
        self.followers = Followers::new(&replicas, &learners, shard.applied(), last.as_ref());
        if self.followers.is_empty() {
            shard.forget_last();
        }
        let saved = if was_primary { None } else { shard.saved() };
        if self.copy.shard == ShardId(0) {
            let new = || NormRounds::new(shard.plan().shards.blocks());
            // A primary as before keeps what it was told: others may have been answered in this view
            // already, and don't ask again.
            let norms = self.norms.get_or_insert_with(new);
            for (step, sum) in shard.norms() {
                // Its own sum is one that it can have.
                let _ = norms.add(shard.version(), step, self.copy.shard, NormPart::Whole(sum));
            }
        }
        self.tell_norms(ctx);
        self.report_parts(ctx);
        if let Some(save) = saved {
            self.save(save, ctx);
        }
        self.settle(ctx);
        self.follow_up(ctx);
    }

    /// Another copy is the primary, or none that this one knows.
    fn step_down(&mut self, duty: &Duty) {
        self.abandon();
        self.norm_waiting.clear();
        self.norms = None;
        self.followers = Followers::default();
        match (&mut self.shard, duty) {
            (_, Duty::Released) => self.shard = None,
            (Some(shard), _) => shard.stand_by(self.view),
            (None, _) => {}
        }
    }

    /// Whoever waits for a step asks again, perhaps the next primary.
    fn abandon(&mut self) {
        for (_, (_, waiting)) in std::mem::take(&mut self.waiting) {
            waiting.answer(Err(PushError::Link(LinkError::Closed)));
        }
    }

    /// Applies a complete step, at once or when the global norm is known.
    fn complete(&mut self, ctx: &mut Context<Self>) {
        let Some(shard) = &mut self.shard else { return };
        match shard.aggregate() {
            Err(overflow) => self.refuse(&overflow),
            Ok(Aggregated::Ready) => self.apply(None, ctx),
            Ok(Aggregated::NeedsNorm(_)) => self.tell_norms(ctx),
        }
    }

    fn apply(&mut self, sum_of_squares: Option<f64>, ctx: &mut Context<Self>) {
        let Some(shard) = &mut self.shard else { return };
        match shard.apply(sum_of_squares, !self.followers.is_empty()) {
            Ok(update) => update.iter().for_each(|update| self.followers.push(update)),
            Err(overflow) => return self.refuse(&overflow),
        }
        // To the replicas first: the step after this one waits for them.
        self.follow_up(ctx);
        self.answer_applied();
        self.settle(ctx);
    }

    fn answer_applied(&mut self) {
        let Some(shard) = &mut self.shard else { return };
        let applied = shard.applied();
        for (worker, (step, waiting)) in std::mem::take(&mut self.waiting) {
            if step.0 >= applied {
                self.waiting.insert(worker, (step, waiting));
                continue;
            }
            let Parameters { version, values } = shard.at_or_newest(step.next());
            waiting.answer(Ok(Pushed { version, values }));
        }
    }

    /// Commits what everyone has who must have it, and goes on with the next step where it is
    /// complete already.
    fn settle(&mut self, ctx: &mut Context<Self>) {
        let Some(shard) = &mut self.shard else { return };
        if !self.followers.have(shard.applied()) {
            return;
        }
        if !shard.is_settled() {
            self.commit(ctx);
        }
        if self.shard.as_ref().is_some_and(Shard::is_complete) {
            self.complete(ctx);
        }
    }

    fn commit(&mut self, ctx: &mut Context<Self>) {
        let Some(shard) = &mut self.shard else { return };
        let save = shard.commit();
        trace!(
            target: COMMITS, shard = self.copy.shard.0, server = self.copy.server.0,
            view = shard.view().0, version = shard.version().0, checksum = shard.checksum()
        );
        if let Some(save) = save {
            self.save(save, ctx);
        }
    }

    /// Tells everyone who waits for the step that it can't be applied; their workers end the run.
    fn refuse(&mut self, overflow: &PushError) {
        warn!(copy = %self.copy, error = %overflow, "step refused");
        for (_, (_, waiting)) in std::mem::take(&mut self.waiting) {
            waiting.answer(Err(overflow.clone()));
        }
    }

    /// # Errors
    /// The appointment is another copy's, or of a view that is over.
    fn check(&self, appointment: &Appointment) -> Result<(), RestoreError> {
        let (expected, got) = (appointment.copy, self.copy);
        if expected != got {
            return Err(RestoreError::WrongShard { expected, got });
        }
        let (got, current) = (appointment.view, self.view);
        if got < current && !planted::is(Bug::StaleRestore) {
            return Err(RestoreError::StaleView { got, current });
        }
        Ok(())
    }
}

impl Actor for ParameterServer {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX_CAPACITY);
        ctx.run_interval(REPORT_EVERY, Self::report);
    }
}

impl Supervised for ParameterServer {
    fn restarting(&mut self, _ctx: &mut Self::Context) {
        crate::restart::replace(self);
    }
}

impl Handler<RestoreShard> for ParameterServer {
    type Result = ResponseActFuture<Self, Result<(), RestoreError>>;

    fn handle(&mut self, restore: RestoreShard, ctx: &mut Self::Context) -> Self::Result {
        let done = |answer| Box::pin(actix::fut::ready(answer)) as Self::Result;
        let appointment = restore.appointment.clone();
        if let Err(refused) = self.check(&appointment) {
            return done(Err(refused));
        }
        let view = appointment.view;
        if view == self.view && self.shard.is_some() {
            return done(Ok(()));
        }
        if view == self.view && self.restoring {
            return done(Err(RestoreError::NotReady(self.copy)));
        }
        // Before anything is forgotten: a restoration that can't be done must not cost the state.
        let plan = match planned(&restore) {
            Ok(plan) => plan,
            Err(refused) => return done(Err(refused)),
        };
        self.restoring = true;
        (self.view, self.duty, self.shard) = (view, None, None);
        self.step_down(&Duty::Learner);
        // Else it would go on asking for a step that may be far ahead now.
        self.stop_combining(ctx);
        let sources = Sources {
            checkpoint: self.links.load.clone(),
            find: self.links.find.clone(),
            fetch: self.links.fetch.clone(),
        };
        let load = load_shard(plan, sources, restore).into_actor(self);
        Box::pin(load.map(move |loaded, server, ctx| {
            if server.view != view {
                return Err(RestoreError::StaleView { got: view, current: server.view });
            }
            server.restoring = false;
            let shard = loaded?;
            info!(shard = %server.copy.shard, %view, version = %shard.version(), "shard restored");
            server.shard = Some(shard);
            server.appoint(appointment, ctx);
            Ok(())
        }))
    }
}

impl Handler<AdoptView> for ParameterServer {
    type Result = Result<(), RestoreError>;

    fn handle(&mut self, adopt: AdoptView, ctx: &mut Self::Context) -> Self::Result {
        let AdoptView { appointment, lineage } = adopt;
        self.check(&appointment)?;
        let of_lineage =
            |shard: &Shard| shard.lineage() == lineage || planted::is(Bug::LineageUnchecked);
        let has_state = self.shard.as_ref().is_some_and(of_lineage);
        let needs_state = matches!(appointment.duty, Duty::Primary { .. } | Duty::Replica);
        // A primary refuses the step again, and with it the run; a replica would have to be filled anew.
        let is_spoiled = appointment.duty == Duty::Replica
            && self.shard.as_ref().is_some_and(Shard::has_overflowed);
        if needs_state && (!has_state || is_spoiled) {
            return Err(RestoreError::NotReady(self.copy));
        }
        if appointment.view == self.view && self.duty.as_ref() == Some(&appointment.duty) {
            return Ok(());
        }
        if !has_state {
            self.shard = None;
        }
        self.restoring = false;
        self.appoint(appointment, ctx);
        Ok(())
    }
}

impl Handler<PushGradient> for ParameterServer {
    type Result = Later<Result<Pushed, PushError>>;

    fn handle(&mut self, push: PushGradient, ctx: &mut Self::Context) -> Self::Result {
        if push.view < self.view {
            return Later::now(Err(PushError::StaleView { got: push.view, current: self.view }));
        }
        let is_primary = self.is_primary();
        let shard = match &mut self.shard {
            Some(shard) if is_primary => shard,
            _ => return Later::now(Err(PushError::NotReady(self.copy.shard))),
        };
        if self.waiting.len() >= WAITING_MAX && !self.waiting.contains_key(&push.worker) {
            return Later::now(Err(PushError::Busy { waiting: WAITING_MAX }));
        }
        match shard.accept(&push) {
            Err(refused) => Later::now(Err(refused)),
            Ok(Accepted::Applied) => {
                let Parameters { version, values } = shard.at_or_newest(push.step.next());
                Later::now(Ok(Pushed { version, values }))
            }
            Ok(Accepted::Waiting)
                if planted::is(Bug::EarlyReply) && self.waiting.contains_key(&push.worker) =>
            {
                let Parameters { version, values } = shard.at_or_newest(push.step.next());
                Later::now(Ok(Pushed { version, values }))
            }
            Ok(accepted) => {
                let (owed, later) = Later::owed();
                let waits = (push.step, owed);
                if let Some((_, earlier)) = self.waiting.insert(push.worker, waits) {
                    earlier.answer(Err(PushError::Superseded));
                }
                if accepted == Accepted::Complete {
                    self.complete(ctx);
                }
                later
            }
        }
    }
}

impl Handler<PullParameters> for ParameterServer {
    type Result = Result<Parameters, PullError>;

    fn handle(&mut self, pull: PullParameters, _ctx: &mut Self::Context) -> Self::Result {
        if pull.view < self.view {
            return Err(PullError::StaleView { got: pull.view, current: self.view });
        }
        let is_primary = self.is_primary();
        match &mut self.shard {
            Some(shard) if is_primary => shard.pull(&pull),
            _ => Err(PullError::NotReady(self.copy.shard)),
        }
    }
}
