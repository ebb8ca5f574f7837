//! Worker: computes the gradients of the slots that it has leased, step after step.
//!
//! Connects a mailbox to [`SlotWork`]. One thing is under way at a time: a pull, a load of
//! residuals, or the exchange of one step with all shards; a new lease drops it.

mod assembly;
mod by_shard;
mod saving;
mod step;

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use actix::fut::{ActorFutureExt, WrapFuture};
use actix::{Actor, AsyncContext, Context, Handler, Message, Recipient, SpawnHandle, Supervised};
use tokio::time::Instant;
use tracing::{debug, info, warn};

use crate::clock;
use crate::dataset::Dataset;
use crate::exchange::{ANSWER_MAX, Halt, Patience, Primary, RETRY_FIRST, pull_all, wait};
use crate::ids::{ServerId, Slot, Version, View, WorkerId};
use crate::messages::checkpoint_store::{CheckpointError, LoadResiduals, SavePart};
use crate::messages::{
    FailureKind, LeaseError, LeaseSlots, PullParameters, PushGradient, ReportError, ReportFailure,
    ReportPart, ReportSpeed, Values, ask,
};
use crate::model::Model;
use crate::plan::{JobOffer, JobPlan};
use crate::planted::{self, Bug};
use crate::saves::Saves;
use crate::saving::Skips;
use crate::slot_work::{SlotWork, StepWork};
use crate::stealing::Stopwatch;

use assembly::Assembly;

/// Steps whose gradients are kept where they can't be computed again: one that is exchanged, and
/// the one before, which a shard loses with its primary if it was not committed.
const COMPUTED_KEPT: usize = 2;

/// What a worker trains.
#[derive(Clone, Debug)]
pub struct Task {
    pub offer: JobOffer,
    pub model: Arc<dyn Model>,
    pub data: Arc<dyn Dataset>,
}

/// Whom a Worker speaks to. Copies of shards by server, then by shard.
#[derive(Clone)]
pub struct WorkerLinks {
    pub push: Vec<Vec<Recipient<PushGradient>>>,
    pub pull: Vec<Vec<Recipient<PullParameters>>>,
    /// The coordinators in their order.
    pub report_part: Vec<Recipient<ReportPart>>,
    pub report_failure: Vec<Recipient<ReportFailure>>,
    pub report_speed: Vec<Recipient<ReportSpeed>>,
    pub save: Recipient<SavePart>,
    pub load_residuals: Recipient<LoadResiduals>,
}

impl std::fmt::Debug for WorkerLinks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WorkerLinks").finish_non_exhaustive()
    }
}

/// A worker and its lease.
pub struct Worker {
    id: WorkerId,
    task: Task,
    links: WorkerLinks,
    lease: Option<Rc<LeaseSlots>>,
    /// The primaries of the lease, by shard.
    push_to: Vec<Rc<Primary>>,
    work: Option<SlotWork>,
    /// What was computed last, and on which versions, newest first: a step is computed once, for
    /// residuals go on with it. At most [`COMPUTED_KEPT`].
    computed: VecDeque<(Version, Rc<StepWork>)>,
    /// The version that the residuals in `work` are of.
    residuals_of: Version,
    /// Of residuals.
    saves: Saves,
    skips: Skips,
    /// Residuals that the lease's checkpoint holds have not been read yet.
    residuals_due: Option<Version>,
    /// The whole flat space at one version.
    parameters: Option<(Version, Values)>,
    /// Memory of the version before, where the next one is put together from several shards.
    before: Option<Vec<f32>>,
    /// Counts the steps that were begun: what is left of one that was given up is not gone on with.
    attempt: u64,
    /// The pull, load or exchange that is going on.
    under_way: Option<SpawnHandle>,
    began: Instant,
    stopwatch: Stopwatch,
    patience: Patience,
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker")
            .field("id", &self.id)
            .field("lease", &self.lease)
            .finish_non_exhaustive()
    }
}

/// Goes on with the lease. To oneself, so that a new lease gets in between two steps.
#[derive(Message)]
#[rtype(result = "()")]
struct Proceed(View);

impl Worker {
    pub fn new(id: WorkerId, task: Task, links: WorkerLinks) -> Self {
        Self {
            id,
            task,
            links,
            lease: None,
            push_to: Vec::new(),
            work: None,
            computed: VecDeque::new(),
            residuals_of: Version(0),
            saves: Saves::default(),
            skips: Skips::default(),
            residuals_due: None,
            parameters: None,
            before: None,
            attempt: 0,
            under_way: None,
            began: clock::now(),
            stopwatch: Stopwatch::default(),
            patience: Patience::default(),
        }
    }

    /// A lease that could not be worked on must not end the one that is held.
    fn check(&self, lease: &LeaseSlots) -> Result<(), LeaseError> {
        let (got, slots) = (lease.slots, self.task.offer.job.virtual_workers);
        if got.first > got.end || got.end > slots {
            return Err(LeaseError::WrongSlots { got, slots });
        }
        let (expected, got) = (self.links.push.first().map_or(0, Vec::len), lease.primaries.len());
        if got != expected {
            return Err(LeaseError::WrongShards { expected, got });
        }
        let servers = self.links.push.len().min(self.links.pull.len());
        match lease.primaries.iter().find(|primary| primary.0 as usize >= servers) {
            Some(&got) => Err(LeaseError::NoSuchServer { servers, got }),
            None => Ok(()),
        }
    }

    fn proceed(&mut self, lease: Rc<LeaseSlots>, ctx: &mut Context<Self>) {
        if lease.slots.first == lease.slots.end {
            return;
        }
        if let Err(cause) = self.hold(&lease) {
            return self.fail(lease.view, cause, ctx);
        }
        match (self.residuals_due, &self.parameters) {
            (Some(version), _) => self.load_residuals(lease, version, ctx),
            (None, None) => self.pull(lease, ctx),
            (None, Some((version, values))) => {
                let (version, values) = (*version, Arc::clone(values));
                self.step(lease, version, &values, ctx);
            }
        }
    }

    /// Whether this lease still counts. A future that was cancelled for a new one ends all the same
    /// where its answer came together with that lease: actix cancels after it has polled.
    fn holds_lease(&self, lease: &LeaseSlots) -> bool {
        self.lease.as_ref().is_some_and(|held| held.view == lease.view)
    }

    /// Has the rows of the leased slots loaded. Blocks this worker's thread while it reads.
    fn hold(&mut self, lease: &LeaseSlots) -> Result<(), String> {
        let cut = self.work.as_ref().map(|work| work.plan().shards.len());
        let shards = lease.primaries.len();
        if cut != Some(shards) {
            let shards = u32::try_from(shards).unwrap_or(u32::MAX);
            let plan =
                JobPlan::new(self.task.offer.clone(), shards).map_err(|error| error.to_string())?;
            self.work = Some(SlotWork::new(Arc::new(plan), Arc::clone(&self.task.model)));
        }
        let Some(work) = &mut self.work else { return Ok(()) };
        work.hold(lease.slots, &*self.task.data).map_err(|error| error.to_string())
    }

    fn load_residuals(&mut self, lease: Rc<LeaseSlots>, version: Version, ctx: &mut Context<Self>) {
        let slots: Vec<Slot> = lease.slots.slots().collect();
        let store = self.links.load_residuals.clone();
        let load = async move { load_residuals(store, LoadResiduals { version, slots }).await };
        let handle =
            ctx.spawn(load.into_actor(self).map(move |loaded, worker, ctx| match loaded {
                _ if !worker.holds_lease(&lease) => {}
                Ok(residuals) => {
                    if let Some(work) = &mut worker.work
                        && let Err(error) = work.restore_residuals(residuals)
                    {
                        return worker.fail(lease.view, error.to_string(), ctx);
                    }
                    worker.residuals_due = None;
                    worker.proceed(lease, ctx);
                }
                // It was whole when this view began.
                Err(error) => {
                    let (kind, cause) = (FailureKind::Checkpoint, error.to_string());
                    worker.report(lease.view, kind, cause, ctx);
                }
            }));
        self.under_way = Some(handle);
    }

    fn pull(&mut self, lease: Rc<LeaseSlots>, ctx: &mut Context<Self>) {
        let primaries = primaries(&self.links.pull, &lease.primaries);
        let pull = pull_all(primaries, lease.view, self.patience.clone()).into_actor(self);
        let handle = ctx.spawn(pull.map(move |pulled, worker, ctx| match pulled {
            _ if !worker.holds_lease(&lease) => {}
            Ok((version, shards)) => {
                debug!(worker = %worker.id, %version, "parameters pulled");
                match worker.assemble(version, shards) {
                    Ok(()) => worker.proceed(lease, ctx),
                    Err(cause) => worker.fail(lease.view, cause, ctx),
                }
            }
            Err(halt) => worker.halt(lease, halt, ctx),
        }));
        self.under_way = Some(handle);
    }

    fn advance(
        &mut self,
        lease: Rc<LeaseSlots>,
        version: Version,
        parameters: Values,
        ctx: &mut Context<Self>,
    ) {
        let before = self.parameters.replace((version, parameters));
        let plan = self.work.as_ref().map(|work| work.plan());
        // Nothing is put together after the last version, nor of one shard.
        let is_needed =
            |plan: &Arc<JobPlan>| plan.shards.len() > 1 && version < plan.last_version();
        let before = before.filter(|_| plan.is_some_and(is_needed));
        self.before = before.and_then(|(_, values)| Arc::into_inner(values));
        self.save_residuals(&lease, version, ctx);
        ctx.notify(Proceed(lease.view));
    }

    /// Where the shards' values are put together.
    fn assembly(&mut self) -> Result<Assembly, String> {
        let work = self.work.as_ref().ok_or("no slots are held")?;
        Assembly::new(Arc::clone(work.plan()), self.before.take())
            .map_err(|error| error.to_string())
    }

    /// Holds what was pulled, as the whole flat space.
    fn assemble(&mut self, version: Version, shards: Vec<Values>) -> Result<(), String> {
        let last = self.work.as_ref().map(|work| work.plan().last_version());
        if let Some(last) = last.filter(|last| version > *last) {
            return Err(format!("the shards are at {version}, the job ends at {last}"));
        }
        let mut assembly = self.assembly()?;
        for (shard, values) in shards.into_iter().enumerate() {
            assembly.place(shard, values)?;
        }
        self.parameters = Some((version, assembly.whole()?));
        Ok(())
    }

    fn halt(&mut self, lease: Rc<LeaseSlots>, halt: Halt, ctx: &mut Context<Self>) {
        match halt {
            Halt::Stale => debug!(worker = %self.id, view = %lease.view, "waiting for a new lease"),
            Halt::Resync => {
                self.parameters = None;
                if planted::is(Bug::ComputesAgain) {
                    self.computed.clear();
                }
                ctx.notify(Proceed(lease.view));
            }
            Halt::Failed(cause) => self.fail(lease.view, cause, ctx),
        }
    }

    fn fail(&mut self, view: View, cause: String, ctx: &mut Context<Self>) {
        self.report(view, FailureKind::Lasting, cause, ctx);
    }

    fn report(&mut self, view: View, kind: FailureKind, cause: String, ctx: &mut Context<Self>) {
        warn!(worker = %self.id, %cause, "can't go on");
        let leader = self.lease.as_ref().map_or(0, |lease| lease.leader.0 as usize);
        let Some(coordinator) = self.links.report_failure.get(leader).cloned() else { return };
        let report = ReportFailure { view, worker: self.id, kind, cause };
        let sent = async move {
            let mut pause = RETRY_FIRST;
            while let Err(ReportError::Link(_) | ReportError::NotLeading) =
                ask(&coordinator, report.clone(), ANSWER_MAX).await
            {
                wait(&mut pause).await;
            }
        };
        self.under_way = Some(ctx.spawn(sent.into_actor(self)));
    }
}

impl Actor for Worker {
    type Context = Context<Self>;
}

impl Supervised for Worker {
    fn restarting(&mut self, _ctx: &mut Self::Context) {
        crate::restart::replace(self);
    }
}

impl Handler<LeaseSlots> for Worker {
    type Result = Result<(), LeaseError>;

    fn handle(&mut self, lease: LeaseSlots, ctx: &mut Self::Context) -> Self::Result {
        if lease.worker != self.id {
            return Err(LeaseError::WrongWorker { expected: lease.worker, got: self.id });
        }
        if let Some(held) = &self.lease
            && !planted::is(Bug::StaleLease)
        {
            if lease.view < held.view {
                return Err(LeaseError::StaleView { got: lease.view, current: held.view });
            }
            if lease.view == held.view {
                return Ok(());
            }
        }
        self.check(&lease)?;
        info!(worker = %self.id, view = %lease.view, slots = %lease.slots, "lease");
        if let Some(handle) = self.under_way.take() {
            ctx.cancel_future(handle);
        }
        let held = self.lease.as_ref();
        if held.is_none_or(|held| held.slots != lease.slots) {
            self.computed.clear();
        }
        if held.is_none_or(|held| held.lineage != lease.lineage) {
            let version = lease.rolled_back_to;
            self.parameters = None;
            self.computed.clear();
            self.residuals_of = version;
            // Residuals of slots that stay here are of steps that didn't happen.
            if !(version == Version(0) && planted::is(Bug::ResidualsKept)) {
                self.work = None;
            }
            let residual_codec = crate::codec::codec(&self.task.offer.job.gradient)
                .is_some_and(|codec| codec.keeps_residual());
            self.residuals_due = (residual_codec && version > Version(0)).then_some(version);
        }
        // A shard may have lost the last version since it was shown, and nothing more is pushed to it:
        // a look at all of them tells.
        let last = self.work.as_ref().map(|work| work.plan().last_version());
        self.parameters.take_if(|(version, _)| Some(*version) == last);
        // The time between two leases is nobody's step.
        self.stopwatch = Stopwatch::default();
        let (view, lineage) = (lease.view, lease.lineage);
        let push_to = primaries(&self.links.push, &lease.primaries);
        self.push_to = push_to.into_iter().map(|to| Rc::new(to.into())).collect();
        self.lease = Some(Rc::new(lease));
        // Another coordinator may not have heard of what was written for the one before.
        for report in self.saves.of(lineage) {
            self.report_part(lineage, report, ctx);
        }
        ctx.notify(Proceed(view));
        Ok(())
    }
}

impl Handler<Proceed> for Worker {
    type Result = ();

    fn handle(&mut self, Proceed(view): Proceed, ctx: &mut Self::Context) {
        if let Some(lease) = self.lease.clone().filter(|lease| lease.view == view) {
            self.proceed(lease, ctx);
        }
    }
}

/// The primary of each shard.
fn primaries<M>(links: &[Vec<Recipient<M>>], primaries: &[ServerId]) -> Vec<Recipient<M>>
where
    M: Message + Send,
    M::Result: Send,
{
    let of_shard =
        |(shard, server): (usize, &ServerId)| links.get(server.0 as usize)?.get(shard).cloned();
    primaries.iter().enumerate().filter_map(of_shard).collect()
}

/// Reads residuals, again and again while the store can't be read.
async fn load_residuals(
    store: Recipient<LoadResiduals>,
    load: LoadResiduals,
) -> Result<Vec<(Slot, Vec<f32>)>, CheckpointError> {
    let mut pause = RETRY_FIRST;
    loop {
        match store.send(load.clone()).await.unwrap_or(Err(CheckpointError::Closed)) {
            Err(error) if error.may_pass() => {
                warn!(version = %load.version, %error, "residuals not read, trying again");
                wait(&mut pause).await;
            }
            read => return read,
        }
    }
}
