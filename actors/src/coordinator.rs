//! Coordinator: one candidate of several; the one that leads drives the epochs of a run and heals
//! its cluster.
//!
//! Connects mailboxes to two rules: [`Candidacy`] decides whether it leads, [`Training`] what a
//! leader does; carries out its commands and hands the answers back. Publishes its state as one
//! snapshot.

mod carrying;
mod election;
mod news;
mod publishing;
mod silence;

use std::time::Duration;

use actix::fut::{ActorFutureExt, WrapFuture};
use actix::{Actor, AsyncContext, Context, Handler, Recipient, Supervised};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::candidacy::{Candidacy, LeaseTiming};
use crate::clock;
use crate::ids::{CoordinatorId, Term};
use crate::job::JobSpec;
use crate::messages::checkpoint_store::{
    CommitCheckpoint, ConcludeRun, LoadState, OpenCheckpoints,
};
use crate::messages::coordination::{AppendView, Observe, RenewLease, Resign};
use crate::messages::{
    AdoptView, FindModel, GetStatus, Heartbeat, HeartbeatAck, HeartbeatError, LeaseSlots,
    PublishModel, ReportError, ReportFailure, ReportPart, ReportShard, RestoreShard, StatusError,
};
use crate::presence::{Presence, WordId};
use crate::training::{Command, Heard, Training, TrainingConfig, TrainingStatus};

/// A heartbeat and a report of each of 64 nodes and shards; senders beyond it are held back.
const MAILBOX_CAPACITY: usize = 256;
/// How often deadlines are looked at: a tenth of the shortest sensible one.
const TICK: Duration = Duration::from_millis(100);
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// Before a store or the registry is asked again: a full disk or a restart takes longer.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// Whom a Coordinator speaks to; copies by server, then by shard, and workers by number.
#[derive(Clone)]
pub struct CoordinatorLinks {
    pub restore: Vec<Vec<Recipient<RestoreShard>>>,
    pub adopt: Vec<Vec<Recipient<AdoptView>>>,
    pub lease: Vec<Recipient<LeaseSlots>>,
    pub publish: Recipient<PublishModel>,
    pub find: Recipient<FindModel>,
    pub open: Recipient<OpenCheckpoints>,
    pub commit: Recipient<CommitCheckpoint>,
    pub load_state: Recipient<LoadState>,
    pub conclude: Recipient<ConcludeRun>,
    pub observe: Recipient<Observe>,
    pub append: Recipient<AppendView>,
    pub renew: Recipient<RenewLease>,
    pub resign: Recipient<Resign>,
    /// Beats of other nodes; of nobody where all is in one process.
    pub presence: Presence<Instant>,
}

impl std::fmt::Debug for CoordinatorLinks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CoordinatorLinks").finish_non_exhaustive()
    }
}

/// One of the coordinators that may lead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    pub id: CoordinatorId,
    /// No two candidates have the same.
    pub name: String,
    /// Other candidates: without any, nobody is better at leading.
    pub rivals: u32,
    /// How long a leader may be silent.
    pub lease: Duration,
    /// Whether a process of another cluster may have its name and its coordination store.
    pub has_namesakes: bool,
    /// No two lives of a candidate have the same.
    pub life: String,
    /// Names the run, unless a checkpoint or another leader names one that it continues.
    pub run: String,
    /// Wall-clock time of the start, in milliseconds since 1970: goes into the version's
    /// description and into nothing else.
    pub started_unix_ms: u64,
}

/// A candidate; while it leads, a run from its first start to its publication.
pub struct Coordinator {
    own: Candidate,
    job: JobSpec,
    config: TrainingConfig,
    candidacy: Candidacy,
    /// What it leads in.
    term: Option<Term>,
    /// Who does, as far as this one knows.
    leader: Option<String>,
    /// A question to the coordination store is under way.
    looking: bool,
    /// An entry for a new term is on its way there.
    standing: bool,
    /// It can't be used, and that has been said.
    blind: bool,
    /// It takes nothing that is written, and that has been said.
    unwritten: bool,
    /// Its run is over and nobody else could lead: it keeps what it knows of it, and asks the store for
    /// nothing any more.
    retired: bool,
    /// Of nobody, where this coordinator doesn't lead.
    training: Training,
    links: CoordinatorLinks,
    status: watch::Sender<TrainingStatus>,
    started: Instant,
    /// When deadlines were last looked at, since the start.
    ticked: Duration,
    /// When it looks who is lost beside its ticks.
    next_look: Option<Duration>,
    /// Losses after which all nodes were asked who is there.
    losses: u64,
}

impl std::fmt::Debug for Coordinator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Coordinator")
            .field("term", &self.term)
            .field("training", &self.training)
            .finish_non_exhaustive()
    }
}

impl Coordinator {
    /// `status` is where each change is published.
    pub fn new(
        own: Candidate,
        job: JobSpec,
        config: TrainingConfig,
        links: CoordinatorLinks,
        status: watch::Sender<TrainingStatus>,
    ) -> Self {
        let training = Training::new(job.clone(), config.clone(), own.run.clone());
        links.presence.begin(false);
        let timing = LeaseTiming::for_candidate(own.lease, own.rivals, own.has_namesakes);
        // An actor that takes the place of one that had retired.
        let retired = own.rivals == 0 && status.borrow().progress.is_over();
        let mut candidacy = Candidacy::new(own.name.clone(), timing, own.id.0);
        if own.has_namesakes {
            candidacy = candidacy.with_namesakes();
        }
        Self {
            own,
            job,
            config,
            candidacy,
            term: None,
            leader: None,
            looking: false,
            standing: false,
            blind: false,
            unwritten: false,
            retired,
            training,
            links,
            status,
            started: clock::now(),
            ticked: Duration::ZERO,
            next_look: None,
            losses: 0,
        }
    }

    fn now(&self) -> Duration {
        clock::since(self.started)
    }

    fn leads(&self) -> bool {
        self.term.is_some()
    }

    fn snapshot(&self) -> TrainingStatus {
        match self.leads() {
            true => self.training.status(),
            false if self.retired => self.status.borrow().clone(),
            false => self.training.followed(self.leader.clone()),
        }
    }

    fn show(&mut self) {
        if self.leads() {
            self.tell();
            self.status.send_if_modified(|status| self.training.update(status));
        } else {
            let now = self.snapshot();
            self.status.send_if_modified(|status| {
                let changed = *status != now;
                *status = now;
                changed
            });
        }
    }

    /// Does something for the run, and tells it what came of it, unless it is another one's by then.
    fn spawn<T: 'static>(
        &self,
        work: impl Future<Output = T> + 'static,
        told: impl FnOnce(&mut Self, T, &mut Context<Self>) -> Vec<Command> + 'static,
        ctx: &mut Context<Self>,
    ) {
        let term = self.term;
        ctx.spawn(work.into_actor(self).map(move |outcome, coordinator, ctx| {
            if coordinator.leads() && coordinator.term == term {
                let commands = told(coordinator, outcome, ctx);
                coordinator.carry_out(commands, ctx);
            }
        }));
    }
}

impl Actor for Coordinator {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX_CAPACITY);
        self.look(ctx);
        self.ticked = self.now();
        ctx.run_interval(TICK, Self::tick);
    }
}

impl Supervised for Coordinator {
    fn restarting(&mut self, _ctx: &mut Self::Context) {
        crate::restart::replace(self);
    }
}

impl Handler<Heartbeat> for Coordinator {
    type Result = Result<HeartbeatAck, HeartbeatError>;

    fn handle(&mut self, heartbeat: Heartbeat, ctx: &mut Self::Context) -> Self::Result {
        if !self.leads() {
            return Err(HeartbeatError::NotLeading);
        }
        let now = self.now();
        let Heard { answer, commands, is_news, is_believed } =
            self.training.heartbeat(&heartbeat, now);
        if is_news {
            self.carry_out(commands, ctx);
        }
        let Heartbeat { node, life, number, .. } = &heartbeat;
        self.ask_after_losses();
        match is_believed {
            true => self.links.presence.know(node, WordId { life: *life, number: *number }),
            false => self.links.presence.forget(node),
        }
        answer
    }
}

impl Handler<ReportShard> for Coordinator {
    type Result = Result<(), ReportError>;

    fn handle(&mut self, report: ReportShard, ctx: &mut Self::Context) -> Self::Result {
        if !self.leads() {
            return Err(ReportError::NotLeading);
        }
        let (answer, commands) = self.training.report_shard(report);
        self.carry_out(commands, ctx);
        answer
    }
}

impl Handler<ReportPart> for Coordinator {
    type Result = Result<(), ReportError>;

    fn handle(&mut self, report: ReportPart, ctx: &mut Self::Context) -> Self::Result {
        if !self.leads() {
            return Err(ReportError::NotLeading);
        }
        let (answer, commands) = self.training.report_part(report);
        self.carry_out(commands, ctx);
        answer
    }
}

impl Handler<ReportFailure> for Coordinator {
    type Result = Result<(), ReportError>;

    fn handle(&mut self, report: ReportFailure, ctx: &mut Self::Context) -> Self::Result {
        if !self.leads() {
            return Err(ReportError::NotLeading);
        }
        let (answer, commands) = self.training.report_failure(report);
        self.carry_out(commands, ctx);
        answer
    }
}

impl Handler<GetStatus> for Coordinator {
    type Result = Result<TrainingStatus, StatusError>;

    fn handle(&mut self, _: GetStatus, _ctx: &mut Self::Context) -> Self::Result {
        Ok(self.snapshot())
    }
}
