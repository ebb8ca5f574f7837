//! Coordinator: drives the epochs of one run and heals its cluster.
//!
//! Connects mailboxes to [`Training`], which decides; carries out its commands and hands the
//! answers back. Publishes its state as one snapshot.

use std::time::Duration;

use actix::fut::{ActorFutureExt, WrapFuture};
use actix::{Actor, AsyncContext, Context, Handler, Recipient, Supervised};
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::checkpoint::{Finished, Manifest};
use crate::ids::ShardCopy;
use crate::job::JobSpec;
use crate::messages::checkpoint_store::{
    CheckpointError, CommitCheckpoint, ConcludeRun, LoadState, OpenCheckpoints, RaiseView,
};
use crate::messages::{
    AdoptView, FindModel, GetStatus, Heartbeat, HeartbeatAck, HeartbeatError, LeaseSlots,
    PublishModel, ReportError, ReportFailure, ReportFenced, ReportPart, ReportShard, ReportSpeed,
    RestoreError, RestoreShard, StatusError, ask,
};
use crate::publication::describe;
use crate::training::{Command, Event, Published, Training, TrainingConfig, TrainingStatus};
use crate::version::VersionRef;

/// A heartbeat and a report of each of 64 nodes and shards; senders beyond it are held back.
const MAILBOX_CAPACITY: usize = 256;
/// How often deadlines are looked at: a tenth of the shortest sensible one.
const TICK: Duration = Duration::from_millis(100);
const ANSWER_MAX: Duration = Duration::from_secs(2);
const PUBLISH_MAX: Duration = Duration::from_secs(60);
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
    pub raise_view: Recipient<RaiseView>,
    pub commit: Recipient<CommitCheckpoint>,
    pub load_state: Recipient<LoadState>,
    pub conclude: Recipient<ConcludeRun>,
}

impl std::fmt::Debug for CoordinatorLinks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CoordinatorLinks").finish_non_exhaustive()
    }
}

/// A run, from its first start to its publication.
pub struct Coordinator {
    training: Training,
    links: CoordinatorLinks,
    status: watch::Sender<TrainingStatus>,
    started: Instant,
    /// Wall-clock time of the start, in milliseconds since 1970: goes into the version's
    /// description and into nothing else.
    started_unix_ms: u64,
}

impl std::fmt::Debug for Coordinator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Coordinator").field("training", &self.training).finish_non_exhaustive()
    }
}

impl Coordinator {
    /// `run` names the run unless a checkpoint names one that it continues; `status` is where
    /// each change is published.
    pub fn new(
        job: JobSpec,
        config: TrainingConfig,
        run: String,
        started_unix_ms: u64,
        links: CoordinatorLinks,
        status: watch::Sender<TrainingStatus>,
    ) -> Self {
        let training = Training::new(job, config, run);
        Self { training, links, status, started: Instant::now(), started_unix_ms }
    }

    fn carry_out(&mut self, commands: Vec<Command>, ctx: &mut Context<Self>) {
        for command in commands {
            match command {
                Command::Open(open) => self.open(open, ctx),
                Command::Confirm(finished) => self.confirm(*finished, ctx),
                Command::RaiseView { above } => self.raise_view(RaiseView { above }, ctx),
                Command::Restore(restore) => self.restore(*restore, ctx),
                Command::Adopt(adopt) => self.adopt(adopt, ctx),
                Command::Lease(lease) => self.lease(lease, ctx),
                Command::Commit(manifest) => self.commit(*manifest, ctx),
                Command::Publish(manifest) => self.publish(*manifest, ctx),
            }
        }
        self.training.happened(self.started.elapsed()).iter().for_each(tell);
        self.status.send_if_modified(|status| self.training.update(status));
    }

    fn open(&self, open: OpenCheckpoints, ctx: &mut Context<Self>) {
        let store = self.links.open.clone();
        let asked = async move { store.send(open).await.unwrap_or(Err(CheckpointError::Closed)) };
        ctx.spawn(asked.into_actor(self).map(|opened, coordinator, ctx| {
            let commands = match opened {
                Ok(opened) => {
                    let version = opened.manifest.as_ref().map(|manifest| manifest.version.0);
                    info!(?version, "newest checkpoint");
                    coordinator.training.opened(opened)
                }
                Err(error) => coordinator.store_failed(&error, ctx),
            };
            coordinator.carry_out(commands, ctx);
        }));
    }

    /// Whether a finished run's version is still there: it may have been deleted, to be trained anew.
    fn confirm(&self, finished: Finished, ctx: &mut Context<Self>) {
        let (registry, published) = (self.links.find.clone(), &finished.published);
        let version = VersionRef::Number(published.version);
        let find = FindModel { model: published.model.clone(), version };
        let asked = async move { ask(&registry, find, ANSWER_MAX).await };
        ctx.spawn(asked.into_actor(self).map(move |found, coordinator, ctx| {
            let commands = match found {
                Err(error) if error.may_pass() => {
                    coordinator.hold_up(error.to_string(), ctx);
                    Vec::new()
                }
                found => {
                    let is_there = found.is_ok_and(|found| found.run == finished.run);
                    let (model, version) = (&finished.published.model, finished.published.version);
                    if is_there {
                        info!(%model, version, "this job is finished; --fresh trains it again");
                    }
                    coordinator.training.confirmed(is_there)
                }
            };
            coordinator.carry_out(commands, ctx);
        }));
    }

    fn store_failed(&mut self, error: &CheckpointError, ctx: &mut Context<Self>) -> Vec<Command> {
        if error.may_pass() {
            self.hold_up(error.to_string(), ctx);
        } else {
            self.training.fail(error.to_string());
        }
        Vec::new()
    }

    /// Asks again after a while, and says why.
    fn hold_up(&mut self, cause: String, ctx: &mut Context<Self>) {
        if self.training.held_up(cause.clone()) {
            warn!(%cause, "trying again until it works");
        }
        ctx.run_later(RETRY_AFTER, |coordinator, ctx| {
            let commands = coordinator.training.ask_store_again();
            coordinator.carry_out(commands, ctx);
        });
    }

    fn raise_view(&self, raise: RaiseView, ctx: &mut Context<Self>) {
        let store = self.links.raise_view.clone();
        let asked = async move { store.send(raise).await.unwrap_or(Err(CheckpointError::Closed)) };
        ctx.spawn(asked.into_actor(self).map(|raised, coordinator, ctx| {
            let commands = match raised {
                Ok(view) => coordinator.training.view_raised(view),
                Err(error) => coordinator.store_failed(&error, ctx),
            };
            coordinator.carry_out(commands, ctx);
        }));
    }

    fn restore(&self, restore: RestoreShard, ctx: &mut Context<Self>) {
        let (copy, view) = (restore.appointment.copy, restore.appointment.view);
        let Some(server) = of_copy(&self.links.restore, copy) else { return };
        // A checkpoint may take longer to read: then it is asked again, and says that it is at it.
        let asked = async move { ask(&server, restore, ANSWER_MAX).await };
        ctx.spawn(asked.into_actor(self).map(move |answer, coordinator, ctx| {
            if let Err(error) = &answer
                && !matches!(error, RestoreError::Link(_) | RestoreError::NotReady(_))
            {
                warn!(%copy, %view, %error, "shard not restored");
            }
            let commands = coordinator.training.copy_answered(copy, view, &answer);
            coordinator.carry_out(commands, ctx);
        }));
    }

    fn adopt(&self, adopt: AdoptView, ctx: &mut Context<Self>) {
        let (copy, view) = (adopt.appointment.copy, adopt.appointment.view);
        let Some(server) = of_copy(&self.links.adopt, copy) else { return };
        let asked = async move { ask(&server, adopt, ANSWER_MAX).await };
        ctx.spawn(asked.into_actor(self).map(move |answer, coordinator, ctx| {
            let commands = coordinator.training.copy_answered(copy, view, &answer);
            coordinator.carry_out(commands, ctx);
        }));
    }

    fn lease(&self, lease: LeaseSlots, ctx: &mut Context<Self>) {
        let (worker, view) = (lease.worker, lease.view);
        let Some(receiver) = self.links.lease.get(worker.0 as usize).cloned() else { return };
        let asked = async move { ask(&receiver, lease, ANSWER_MAX).await };
        ctx.spawn(asked.into_actor(self).map(move |answer, coordinator, ctx| {
            coordinator.training.worker_answered(worker, view, &answer);
            coordinator.carry_out(Vec::new(), ctx);
        }));
    }

    fn commit(&self, manifest: Manifest, ctx: &mut Context<Self>) {
        let store = self.links.commit.clone();
        let commit = CommitCheckpoint { manifest: manifest.clone() };
        let asked = async move { store.send(commit).await.unwrap_or(Err(CheckpointError::Closed)) };
        ctx.spawn(asked.into_actor(self).map(move |written, coordinator, ctx| {
            let commands = match written {
                Ok(()) => coordinator.training.committed(manifest),
                Err(error) => {
                    if coordinator.training.held_up(error.to_string()) {
                        warn!(version = %manifest.version, %error, "checkpoint not committed, trying again");
                    }
                    ctx.run_later(RETRY_AFTER, move |coordinator, ctx| {
                        let commands = coordinator.training.commit_again(manifest);
                        coordinator.carry_out(commands, ctx);
                    });
                    Vec::new()
                }
            };
            coordinator.carry_out(commands, ctx);
        }));
    }

    fn publish(&self, manifest: Manifest, ctx: &mut Context<Self>) {
        let (links, created) = (self.links.clone(), self.started_unix_ms);
        let published = async move { publish(links, manifest, created).await };
        ctx.spawn(published.into_actor(self).map(|published, coordinator, ctx| {
            let commands = match published {
                Ok(published) => {
                    coordinator.training.published(published);
                    Vec::new()
                }
                Err(NotPublished::Checkpoint(error)) => {
                    warn!(%error, "the last checkpoint can't be read any more");
                    coordinator.training.last_checkpoint_lost()
                }
                Err(NotPublished::Refused(cause)) => {
                    coordinator.training.fail(cause);
                    Vec::new()
                }
            };
            coordinator.carry_out(commands, ctx);
        }));
    }
}

impl Actor for Coordinator {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX_CAPACITY);
        ctx.run_interval(TICK, |coordinator, ctx| {
            let commands = coordinator.training.tick(coordinator.started.elapsed());
            coordinator.carry_out(commands, ctx);
        });
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
        let now = self.started.elapsed();
        let (answer, commands) = self.training.heartbeat(&heartbeat, now);
        self.carry_out(commands, ctx);
        answer
    }
}

impl Handler<ReportShard> for Coordinator {
    type Result = Result<(), ReportError>;

    fn handle(&mut self, report: ReportShard, ctx: &mut Self::Context) -> Self::Result {
        let (answer, commands) = self.training.report_shard(report);
        self.carry_out(commands, ctx);
        answer
    }
}

impl Handler<ReportPart> for Coordinator {
    type Result = Result<(), ReportError>;

    fn handle(&mut self, report: ReportPart, ctx: &mut Self::Context) -> Self::Result {
        let (answer, commands) = self.training.report_part(report);
        self.carry_out(commands, ctx);
        answer
    }
}

impl Handler<ReportFailure> for Coordinator {
    type Result = Result<(), ReportError>;

    fn handle(&mut self, report: ReportFailure, ctx: &mut Self::Context) -> Self::Result {
        let (answer, commands) = self.training.report_failure(report);
        self.carry_out(commands, ctx);
        answer
    }
}

impl Handler<GetStatus> for Coordinator {
    type Result = Result<TrainingStatus, StatusError>;

    fn handle(&mut self, _: GetStatus, _ctx: &mut Self::Context) -> Self::Result {
        Ok(self.training.status())
    }
}

impl Handler<ReportFenced> for Coordinator {
    type Result = Result<(), ReportError>;

    fn handle(&mut self, report: ReportFenced, ctx: &mut Self::Context) -> Self::Result {
        let answer = self.training.report_fenced(report);
        self.carry_out(Vec::new(), ctx);
        answer
    }
}

impl Handler<ReportSpeed> for Coordinator {
    type Result = Result<(), ReportError>;

    fn handle(&mut self, report: ReportSpeed, ctx: &mut Self::Context) -> Self::Result {
        let answer = self.training.report_speed(report);
        self.carry_out(Vec::new(), ctx);
        answer
    }
}

fn tell(event: &Event) {
    let (number, view, kind, took_ms) =
        (event.number, event.view.0, event.kind.name(), event.took_ms);
    if event.kind.is_warning() {
        warn!(number, kind, view, took_ms, "{event}");
    } else {
        info!(number, kind, view, took_ms, "{event}");
    }
}

fn of_copy<M>(links: &[Vec<Recipient<M>>], copy: ShardCopy) -> Option<Recipient<M>>
where
    M: actix::Message + Send,
    M::Result: Send,
{
    links.get(copy.server.0 as usize)?.get(copy.shard.0 as usize).cloned()
}

/// Why a trained model was not published.
enum NotPublished {
    /// Its checkpoint is damaged: an earlier one may not be.
    Checkpoint(CheckpointError),
    /// It would happen again.
    Refused(String),
}

/// Reads the last checkpoint, publishes it, and removes the run's checkpoints.
async fn publish(
    links: CoordinatorLinks,
    manifest: Manifest,
    created_unix_ms: u64,
) -> Result<Published, NotPublished> {
    let load = LoadState { version: manifest.version };
    let state = loop {
        match links.load_state.send(load.clone()).await.unwrap_or(Err(CheckpointError::Closed)) {
            Ok(state) => break state,
            Err(error) if error.may_pass() => retry(&error).await,
            Err(error) => return Err(NotPublished::Checkpoint(error)),
        }
    };
    let message = describe(&manifest, &state, created_unix_ms).map_err(NotPublished::Refused)?;
    let (model, digest) = (message.description.model.clone(), message.description.digest.clone());
    let version = loop {
        match ask(&links.publish, message.clone(), PUBLISH_MAX).await {
            Ok(published) => break published.version,
            Err(error) if error.may_pass() => retry(&error).await,
            Err(refused) => return Err(NotPublished::Refused(refused.to_string())),
        }
    };
    info!(%model, version, %digest, "published");
    let published = Published { model, version, digest };
    let finished = Finished {
        run: manifest.run,
        job_digest: manifest.job_digest,
        data_digest: manifest.offer.data.digest.clone(),
        last_version: manifest.version,
        ledger: manifest.ledger,
        published: published.clone(),
    };
    // A coordinator that starts again before this is done publishes the same version once more.
    let conclude = ConcludeRun { finished };
    if let Err(error) = links.conclude.send(conclude).await.unwrap_or(Err(CheckpointError::Closed))
    {
        warn!(%error, "checkpoints of the finished run stay");
    }
    Ok(published)
}

async fn retry(error: &dyn std::error::Error) {
    warn!(%error, "publishing again");
    tokio::time::sleep(RETRY_AFTER).await;
}
