//! ParameterServer: the only writer of one shard of the model.
//!
//! Connects a mailbox to a [`Shard`]; which gradient counts is decided in `shard.rs`. Requests that
//! wait for a step are answered when it commits.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use actix::fut::{ActorFutureExt, WrapFuture};
use actix::{
    Actor, AsyncContext, Context, Handler, Recipient, ResponseActFuture, ResponseFuture,
    SpawnHandle, Supervised,
};
use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::{info, trace, warn};

use crate::allocation::{NoMemory, with_room};
use crate::ids::{ShardId, Version, View, WorkerId};
use crate::job::MAX_VIRTUAL_WORKERS;
use crate::later::{Later, Owed};
use crate::messages::checkpoint_store::{LoadRange, SavePart};
use crate::messages::{
    AdoptView, CombineNorm, CombinedNorm, LinkError, NormError, Parameters, PullError,
    PullParameters, PushError, PushGradient, Pushed, ReportError, ReportPart, ReportShard,
    RestoreError, RestoreShard, ask,
};
use crate::model::initialise;
use crate::norm::NormRounds;
use crate::optimizer::Optimizer;
use crate::plan::JobPlan;
use crate::planted::{self, Bug};
use crate::saving::save_until_written;
use crate::shard::{Accepted, Aggregated, COMMITS, Save, Shard, ShardState};

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
/// How often the ledger goes with it, which has a record of each epoch: it is long.
const LEDGER_EVERY: Duration = Duration::from_secs(1);
/// Checkpoints that may be on their way to the store, each a copy of the optimizer's state.
const SAVES_MAX: usize = 2;
/// Vectors of the shard's length that a step holds beside the optimizer's state: the mean gradient,
/// and the parameters of three versions.
const STEP_VECTORS: usize = 4;
/// Whom a ParameterServer speaks to.
#[derive(Clone)]
pub struct ServerLinks {
    pub report_shard: Recipient<ReportShard>,
    pub report_part: Recipient<ReportPart>,
    pub save: Recipient<SavePart>,
    pub load: Recipient<LoadRange>,
    /// The owner of the first shard, which may be this actor.
    pub norm: Recipient<CombineNorm>,
}

impl std::fmt::Debug for ServerLinks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerLinks").finish_non_exhaustive()
    }
}

/// Owns one shard from its restoration on.
pub struct ParameterServer {
    id: ShardId,
    links: ServerLinks,
    view: View,
    shard: Option<Shard>,
    restoring: bool,
    waiting: BTreeMap<WorkerId, Owed<Result<Pushed, PushError>>>,
    norms: Option<NormRounds>,
    norm_waiting: BTreeMap<ShardId, (Version, oneshot::Sender<Result<CombinedNorm, NormError>>)>,
    /// The request for the norm of the step in flight.
    combining: Option<SpawnHandle>,
    saving: usize,
    reported: Option<(View, Version, bool)>,
    ledger_due: Instant,
    reporting: bool,
}

impl std::fmt::Debug for ParameterServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ParameterServer")
            .field("id", &self.id)
            .field("view", &self.view)
            .field("shard", &self.shard)
            .finish_non_exhaustive()
    }
}

impl ParameterServer {
    pub fn new(id: ShardId, links: ServerLinks) -> Self {
        Self {
            id,
            links,
            view: View(0),
            shard: None,
            restoring: false,
            waiting: BTreeMap::new(),
            norms: None,
            norm_waiting: BTreeMap::new(),
            combining: None,
            saving: 0,
            reported: None,
            ledger_due: Instant::now(),
            reporting: false,
        }
    }

    fn install(&mut self, shard: Shard) {
        info!(shard = %self.id, view = %shard.view(), version = %shard.version(), "shard restored");
        let first = self.id == ShardId(0);
        self.norms = first.then(|| NormRounds::new(shard.plan().shards.blocks()));
        self.shard = Some(shard);
    }

    /// Applies a complete step, at once or when the global norm is known.
    fn complete(&mut self, ctx: &mut Context<Self>) {
        let Some(shard) = &mut self.shard else { return };
        let step = shard.version();
        match shard.aggregate() {
            Err(overflow) => self.refuse(&overflow),
            Ok(Aggregated::Ready) => self.commit(None, ctx),
            Ok(Aggregated::NeedsNorm(sums)) => {
                let request = CombineNorm { step, shard: self.id, sums };
                let (norm, view) = (self.links.norm.clone(), self.view);
                let answer = combine(norm, request).into_actor(self);
                let combining = ctx.spawn(answer.map(move |sum, server, ctx| {
                    let current = server.shard.as_ref().map(Shard::version);
                    // A rollback may have come between.
                    if server.view >= view && current == Some(step) && server.restored_in(view) {
                        server.commit(Some(sum), ctx);
                    }
                }));
                self.combining = Some(combining);
            }
        }
    }

    /// Whether the shard's state is the one of `view`, or of leases that changed since.
    fn restored_in(&self, view: View) -> bool {
        self.shard.as_ref().is_some_and(|shard| shard.awaits_norm() && shard.view() >= view)
    }

    fn commit(&mut self, sum_of_squares: Option<f64>, ctx: &mut Context<Self>) {
        let Some(shard) = &mut self.shard else { return };
        let save = match shard.commit(sum_of_squares) {
            Ok(save) => save,
            Err(overflow) => return self.refuse(&overflow),
        };
        trace!(
            target: COMMITS, shard = self.id.0, view = shard.view().0, version = shard.version().0,
            digest = shard.digest()
        );
        for (_, waiting) in std::mem::take(&mut self.waiting) {
            let Parameters { version, values } = shard.newest();
            waiting.answer(Ok(Pushed { version, values }));
        }
        if let Some(save) = save {
            self.save(save, ctx);
        }
    }

    /// Tells everyone who waits for the step that it can't be applied; their workers end the run.
    fn refuse(&mut self, overflow: &PushError) {
        warn!(shard = %self.id, error = %overflow, "step refused");
        for (_, waiting) in std::mem::take(&mut self.waiting) {
            waiting.answer(Err(overflow.clone()));
        }
    }

    /// Writes a version without holding up the next step, and tells the coordinator.
    fn save(&mut self, save: Save, ctx: &mut Context<Self>) {
        let Some(shard) = &self.shard else { return };
        if self.saving >= SAVES_MAX && !shard.is_done() {
            warn!(
                shard = %self.id, version = %save.version,
                "checkpoint skipped, earlier ones are still being written; raise checkpoint.every_steps"
            );
            return;
        }
        self.saving += 1;
        let (links, report) = (self.links.clone(), snapshot(self.id, shard));
        let written = write_and_report(links, report, save).into_actor(self);
        ctx.spawn(written.map(|(), server, _| server.saving -= 1));
    }

    fn report(&mut self, ctx: &mut Context<Self>) {
        let Some(shard) = &self.shard else { return };
        let closed = shard.ledger().is_some_and(|ledger| ledger.closed);
        let state = (shard.view(), shard.version(), closed);
        if self.reporting || self.reported == Some(state) {
            return;
        }
        self.reporting = true;
        let mut report = snapshot(self.id, shard);
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
        if restore.shard != self.id {
            return done(Err(RestoreError::WrongShard { expected: restore.shard, got: self.id }));
        }
        if restore.view < self.view && !planted::is(Bug::StaleRestore) {
            let current = self.view;
            return done(Err(RestoreError::StaleView { got: restore.view, current }));
        }
        if restore.view == self.view && self.shard.is_some() {
            return done(Ok(()));
        }
        if restore.view == self.view && self.restoring {
            return done(Err(RestoreError::NotReady(self.id)));
        }
        // Before anything is forgotten: a restoration that can't be done must not cost the state.
        let plan = match planned(&restore) {
            Ok(plan) => plan,
            Err(refused) => return done(Err(refused)),
        };
        self.view = restore.view;
        self.restoring = true;
        self.shard = None;
        // Whoever waits for the abandoned steps asks again.
        for (_, waiting) in std::mem::take(&mut self.waiting) {
            waiting.answer(Err(PushError::Link(LinkError::Closed)));
        }
        self.norm_waiting.clear();
        // Else it would go on asking for a step that may be far ahead now.
        if let Some(combining) = self.combining.take() {
            ctx.cancel_future(combining);
        }
        let view = restore.view;
        let load = load_shard(plan, self.links.load.clone(), restore).into_actor(self);
        Box::pin(load.map(move |loaded, server, _| {
            if server.view != view {
                return Err(RestoreError::StaleView { got: view, current: server.view });
            }
            server.restoring = false;
            server.install(loaded?);
            Ok(())
        }))
    }
}

impl Handler<AdoptView> for ParameterServer {
    type Result = Result<(), RestoreError>;

    fn handle(&mut self, adopt: AdoptView, _ctx: &mut Self::Context) -> Self::Result {
        if adopt.shard != self.id {
            return Err(RestoreError::WrongShard { expected: adopt.shard, got: self.id });
        }
        if adopt.view < self.view {
            return Err(RestoreError::StaleView { got: adopt.view, current: self.view });
        }
        let Some(shard) = &mut self.shard else { return Err(RestoreError::NotReady(self.id)) };
        self.view = adopt.view;
        shard.adopt(adopt.view);
        Ok(())
    }
}

impl Handler<PushGradient> for ParameterServer {
    type Result = Later<Result<Pushed, PushError>>;

    fn handle(&mut self, push: PushGradient, ctx: &mut Self::Context) -> Self::Result {
        let done = Later::now;
        let Some(shard) = &mut self.shard else { return done(Err(PushError::NotReady(self.id))) };
        if self.waiting.len() >= WAITING_MAX && !self.waiting.contains_key(&push.worker) {
            return done(Err(PushError::Busy { waiting: WAITING_MAX }));
        }
        match shard.accept(&push) {
            Err(refused) => done(Err(refused)),
            Ok(Accepted::Applied) => {
                let Parameters { version, values } = shard.newest();
                done(Ok(Pushed { version, values }))
            }
            Ok(Accepted::Waiting)
                if planted::is(Bug::EarlyReply) && self.waiting.contains_key(&push.worker) =>
            {
                let Parameters { version, values } = shard.newest();
                done(Ok(Pushed { version, values }))
            }
            Ok(accepted) => {
                let (owed, later) = Later::owed();
                if let Some(earlier) = self.waiting.insert(push.worker, owed) {
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
        let Some(shard) = &mut self.shard else { return Err(PullError::NotReady(self.id)) };
        shard.pull(&pull)
    }
}

impl Handler<CombineNorm> for ParameterServer {
    type Result = ResponseFuture<Result<CombinedNorm, NormError>>;

    fn handle(&mut self, combine: CombineNorm, _ctx: &mut Self::Context) -> Self::Result {
        let done = |answer| Box::pin(std::future::ready(answer)) as Self::Result;
        let Some(norms) = &mut self.norms else { return done(Err(NormError::NotReady)) };
        let CombineNorm { step, shard, sums } = combine;
        let sum = match norms.add(step, shard, sums) {
            Ok(sum) => sum,
            Err(refused) => return done(Err(refused)),
        };
        if let Some(sum_of_squares) = sum {
            let combined = CombinedNorm { sum_of_squares };
            let of_step = |(of, _): &(Version, _)| *of == step;
            let due: Vec<ShardId> = self
                .norm_waiting
                .iter()
                .filter(|(_, waiting)| of_step(waiting))
                .map(|(shard, _)| *shard)
                .collect();
            for shard in due {
                if let Some((_, waiting)) = self.norm_waiting.remove(&shard) {
                    let _ = waiting.send(Ok(combined));
                }
            }
            return done(Ok(combined));
        }
        let (answer, answered) = oneshot::channel();
        if let Some((_, earlier)) = self.norm_waiting.insert(shard, (step, answer)) {
            let _ = earlier.send(Err(NormError::Superseded));
        }
        Box::pin(async move { answered.await.unwrap_or(Err(NormError::Link(LinkError::Closed))) })
    }
}

/// How far the shard is.
fn snapshot(id: ShardId, shard: &Shard) -> ReportShard {
    ReportShard {
        view: shard.view(),
        shard: id,
        version: shard.version(),
        ledger: shard.ledger().cloned(),
        bytes: shard.bytes(),
    }
}

/// Asks for the norm until it is there. Ends with the actor, or is ignored after a rollback.
async fn combine(norm: Recipient<CombineNorm>, request: CombineNorm) -> f64 {
    loop {
        match ask(&norm, request.clone(), ANSWER_MAX).await {
            Ok(combined) => return combined.sum_of_squares,
            Err(_) if planted::is(Bug::OwnNorm) => return request.sums.iter().sum(),
            Err(_) => tokio::time::sleep(RETRY_AFTER).await,
        }
    }
}

/// The plan of a restoration that can be done.
fn planned(restore: &RestoreShard) -> Result<JobPlan, RestoreError> {
    let refused = |cause: String| RestoreError::Plan { cause };
    let RestoreShard { shard, shards, version, .. } = *restore;
    let plan =
        JobPlan::new(restore.offer.clone(), shards).map_err(|error| refused(error.to_string()))?;
    if shard.0 >= shards {
        return Err(refused(format!("{shard} is not one of {shards} shards")));
    }
    if restore.checkpoint_every == 0 {
        return Err(refused("checkpoint.every_steps is 0; set it to 1 or more".to_owned()));
    }
    let last = plan.last_version();
    if version > last {
        return Err(refused(format!("{version} is beyond the last one, {last}")));
    }
    Ok(plan)
}

async fn load_shard(
    plan: JobPlan,
    load: Recipient<LoadRange>,
    restore: RestoreShard,
) -> Result<Shard, RestoreError> {
    let id = restore.shard;
    let range = plan.shards.range(id);
    let job = &plan.offer.job;
    let optimizer = Optimizer::new(&job.optimizer, plan.last_version().0);
    let no_memory = |error: NoMemory| RestoreError::Plan { cause: error.to_string() };
    // Asked for at once and given back untouched: a system that grants each piece and can't keep
    // its word would end the process later.
    let vectors = STEP_VECTORS + optimizer.state_names().len();
    drop(with_room(range.len().saturating_mul(vectors)).map_err(no_memory)?);
    let state = if restore.version == Version(0) {
        ShardState {
            version: restore.version,
            parameters: initialise(&plan.layout, job.seed, range.clone()).map_err(no_memory)?,
            optimizer: optimizer.new_state(range.len()).map_err(no_memory)?,
            ledger: crate::ledger::Ledger::default(),
        }
    } else {
        let state: Vec<String> =
            optimizer.state_names().iter().map(|name| (*name).to_owned()).collect();
        let (vectors, expected) = (state.len(), range.len());
        let loaded = load
            .send(LoadRange { version: restore.version, range, state })
            .await
            .map_err(|_| RestoreError::Link(LinkError::Closed))?
            .map_err(|error| match error.may_pass() {
                true => RestoreError::Store { cause: error.to_string() },
                false => RestoreError::Checkpoint { cause: error.to_string() },
            })?;
        let mut lens = std::iter::once(&loaded.parameters).chain(&loaded.state).map(Vec::len);
        if loaded.state.len() != vectors || lens.any(|len| len != expected) {
            let cause = format!("it doesn't hold {} vectors of {expected} values", vectors + 1);
            return Err(RestoreError::Checkpoint { cause });
        }
        let mut state = ShardState {
            version: restore.version,
            parameters: loaded.parameters,
            optimizer: loaded.state,
            ledger: loaded.manifest.ledger,
        };
        if planted::is(Bug::OptimizerLost) {
            state.optimizer = optimizer.new_state(state.parameters.len()).map_err(no_memory)?;
        }
        if planted::is(Bug::LedgerLost) {
            state.ledger = crate::ledger::Ledger::default();
        }
        state
    };
    Ok(Shard::new(id, Arc::new(plan), restore.checkpoint_every, restore.view, state))
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
