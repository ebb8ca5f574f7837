//! Starts this node's candidate for the leadership.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use actix::Addr;
use gradmesh_actors::coordinator::{Candidate, Coordinator, CoordinatorLinks};
use gradmesh_actors::ids::CoordinatorId;
use gradmesh_actors::job::JobSpec;
use gradmesh_actors::presence::Presence;
use gradmesh_actors::training::{Training, TrainingConfig, TrainingStatus};
use tokio::sync::watch;
use tokio::time::Instant;

use super::super::context::NodeContext;
use super::super::directory::Place;
use super::super::placement::{Placed, Supervision};
use super::super::{GATHER_AGAIN_FOR, GATHER_FOR, NodeError};
use super::Cast;
use super::links::all_copies;
use crate::config::Config;
use crate::store::coordination::CoordinationStore;

pub(super) async fn coordinate(
    config: &Config,
    cast: &Cast,
    placed: Placed<Coordinator>,
    supervision: Supervision,
    start: Start,
    coordination: Coordination,
) -> Result<watch::Receiver<TrainingStatus>, NodeError> {
    let Coordination { id, name, lease, has_namesakes, store, presence } = coordination;
    let links = CoordinatorLinks {
        restore: all_copies(&cast.servers),
        adopt: all_copies(&cast.servers),
        lease: cast.workers.values().map(Place::recipient).collect(),
        publish: cast.registry.publish.clone(),
        find: cast.registry.find.clone(),
        open: cast.checkpoints.clone().recipient(),
        commit: cast.checkpoints.clone().recipient(),
        load_state: cast.checkpoints.clone().recipient(),
        conclude: cast.checkpoints.clone().recipient(),
        observe: store.clone().recipient(),
        append: store.clone().recipient(),
        renew: store.clone().recipient(),
        resign: store.recipient(),
        presence,
    };
    let training = TrainingConfig {
        shards: config.servers.shards,
        servers: config.servers(),
        replicas: config.replicas(),
        workers: config.workers.count,
        rebalance: config.workers.rebalance,
        checkpoint_every: config.checkpoint.every_steps,
        patience: config.detector.patience(),
        gather_for: GATHER_FOR,
        gather_again_for: GATHER_AGAIN_FOR,
    };
    let job = config.job.clone();
    let rivals = u32::try_from(cast.coordinators.len().saturating_sub(1)).unwrap_or(u32::MAX);
    let Start { run, unix_ms } = start;
    let first = Training::new(job.clone(), training.clone(), run.clone()).followed(None);
    let (status, watched) = watch::channel(first);
    // An actor that is restarted is another candidate's life.
    let lives = AtomicU64::new(0);
    let factory = move || {
        let life = format!("{run}.{}", lives.fetch_add(1, Ordering::Relaxed));
        let (name, run) = (name.clone(), run.clone());
        let started_unix_ms = unix_ms;
        let own = Candidate { id, name, rivals, lease, has_namesakes, life, run, started_unix_ms };
        Coordinator::new(own, job.clone(), training.clone(), links.clone(), status.clone())
    };
    placed.run("coordinator".into(), supervision, factory).await?;
    Ok(watched)
}

/// This node among the coordinators, and where they agree.
pub(super) struct Coordination {
    pub(super) id: CoordinatorId,
    pub(super) name: String,
    pub(super) lease: Duration,
    /// Whether a process of another cluster may have its name and its store: from a folder that one coordinator
    /// alone has locked it is kept away.
    pub(super) has_namesakes: bool,
    pub(super) store: Addr<CoordinationStore>,
    pub(super) presence: Presence<Instant>,
}

/// A run's name and when it began, unless it goes on from a checkpoint, which has both.
pub(super) struct Start {
    run: String,
    unix_ms: u64,
}

impl Start {
    pub(super) fn new(context: &dyn NodeContext, job: &JobSpec, unix_ms: u64) -> Self {
        let seed = format!("{} {unix_ms} {}", job.digest(), context.entropy());
        let run = blake3::hash(seed.as_bytes()).to_hex().chars().take(16).collect();
        Self { run, unix_ms }
    }
}
