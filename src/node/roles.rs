//! Starts the actors of a node's roles and connects them.

mod coordinating;
mod links;
mod serving;

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Addr, Recipient};
use gradmesh_actors::coordinator::Coordinator;
use gradmesh_actors::ids::{CoordinatorId, ServerId, ShardCopy, ShardId, WorkerId};
use gradmesh_actors::messages::{self, Member, NodeConnected, WireMessage};
use gradmesh_actors::model::describe;
use gradmesh_actors::model_registry::ModelRegistry;
use gradmesh_actors::parameter_server::ParameterServer;
use gradmesh_actors::plan::{JobOffer, JobPlan};
use gradmesh_actors::presence::Presence;
use gradmesh_actors::training::TrainingStatus;
use gradmesh_actors::worker::{Task, Worker};
use tokio::sync::{mpsc, watch};
use tokio::task::spawn_local;
use tracing::info;

use super::directory::{Directory, Place, Plan};
use super::frames;
use super::heartbeat::Pulse;
use super::placement::{Placed, Supervision, Thread, Threads, place};
use super::registries::RegistryLinks;
use super::services::Services;
use super::{Node, NodeBuilder, NodeError, Serving, base, has_ended, incarnation, own_roles};
use crate::config::{Config, Role};
use crate::metrics::Metrics;
use crate::router::Router;
use crate::store::coordination::{CoordinationPlace, CoordinationStore};
use crate::store::{CheckpointStore, RegistryStore, StoreError, StoreLock, store_id};
use crate::supervisor::{RestartPolicy, Vitals};
use crate::wire::{self, Target};
use coordinating::{Coordination, Start, coordinate};
use links::{near, route_copy, server_links, take_callers, worker_links};
use serving::{peers, serving};

/// Mailboxes of everyone, here or elsewhere.
struct Cast {
    /// In the order of their numbers.
    coordinators: Vec<Place<Coordinator>>,
    servers: Servers,
    /// Of other nodes those that this one's coordinator speaks to, if it has one.
    workers: BTreeMap<u32, Place<Worker>>,
    /// Those of all nodes.
    registry: RegistryLinks,
    /// The one that runs here, with its number.
    own_registry: Option<(u32, Addr<ModelRegistry>)>,
    checkpoints: Addr<CheckpointStore>,
}

/// By server, then by shard.
type Servers = Vec<Vec<Place<ParameterServer>>>;

/// Those of them that run here and wait to be started.
#[derive(Default)]
struct Waiting {
    coordinator: Option<(CoordinatorId, Placed<Coordinator>)>,
    servers: Vec<(ShardCopy, Thread, Placed<ParameterServer>)>,
    workers: Vec<(WorkerId, Thread, Placed<Worker>)>,
    registry: Option<Placed<ModelRegistry>>,
}

pub(super) async fn start(builder: NodeBuilder) -> Result<Node, NodeError> {
    let config = &builder.config;
    let roles = own_roles(config, builder.name.as_deref())?;
    let context = Rc::clone(&builder.context);
    let unix_ms = u64::try_from(context.unix_time().as_millis()).unwrap_or(u64::MAX >> 16);
    let supervision = Supervision { base: incarnation(unix_ms), policy: policy(config) };
    let works = builder.train && roles.contains(&Role::Worker);
    let task = works.then(|| task(&builder)).transpose()?;
    let listener = listen(&builder).await?;

    let coordinates = builder.train && roles.contains(&Role::Coordinator);
    let place = CoordinationPlace::read(&config.coordination.store)?;
    let mut locks = Vec::new();
    // A simulation has no processes of other clusters.
    let mut has_namesakes = context.has_other_processes();
    if coordinates && context.has_other_processes() {
        let of_checkpoints = NodeError::store("checkpoint.store");
        let cluster = match config.coordinators() {
            1 => None,
            _ => Some(cluster(&builder, unix_ms).map_err(&of_checkpoints)?),
        };
        let cluster = cluster.as_deref();
        let lock = StoreLock::take(&config.checkpoint.store, &base(config), cluster).await;
        let lock = lock.map_err(of_checkpoints)?;
        if let CoordinationPlace::Folder(folder) = &place {
            if lock.is_of(folder, &base(config)) {
                return Err(NodeError::OneStore);
            }
            let lock = StoreLock::take(folder, &base(config), cluster).await;
            let lock = lock.map_err(NodeError::store("coordination.store"))?;
            has_namesakes = !lock.is_exclusive();
            locks.push(lock);
        }
        locks.push(lock);
    }

    let mut threads = Threads::new(context.threads());
    let plan = Plan::new(config, builder.name.clone());
    let mut directory = Directory::new(plan.clone(), builder.hello(), context.transport());
    let mut waiting = Waiting::default();
    let checkpoints = checkpoints(&builder, &threads.own(), supervision).await?;
    let cast =
        cast(&builder, &plan, &mut directory, &mut waiting, checkpoints, &mut threads).await?;

    let metrics = Metrics::new();
    let router = Router::new();
    let (seen, log) = watch::channel(None);
    let log = waiting.registry.is_some().then_some(log);
    let peers = peers(&builder, &plan, &mut directory)?;
    let serving = serving(&builder, &cast, &mut threads, metrics, supervision, log, peers).await?;
    routes(&router, &cast, &plan, &serving, builder.name.is_some());
    if let Some(registry) = waiting.registry.take() {
        let store = context.open_store(&config.registry.store, &base(config));
        let store = store.map_err(NodeError::store("registry.store"))?;
        let store = RegistryStore::new(store).start();
        let link = RegistryStore::link(&store);
        let keep = NonZeroUsize::new(config.registry.keep);
        let factory = move || ModelRegistry::keeping(keep, link.clone(), seen.clone());
        registry.run("registry".into(), supervision, factory).await?;
    }
    let mut members = Vec::new();
    for (copy, thread, placed) in std::mem::take(&mut waiting.servers) {
        let near = near(&builder, &plan, &cast, &thread).await?;
        let links = server_links(&cast, &near, copy);
        take_callers(&router, &cast, &thread, copy).await?;
        let factory = move || ParameterServer::new(copy, links.clone());
        let vitals = placed.run(copy.to_string(), supervision, factory).await?;
        members.push((Member::Copy(copy), vitals));
    }
    for (worker, thread, placed) in std::mem::take(&mut waiting.workers) {
        let Some(task) = task.clone() else { continue };
        let links = worker_links(&cast, &near(&builder, &plan, &cast, &thread).await?);
        let factory = move || Worker::new(worker, task.clone(), links.clone());
        let vitals = placed.run(worker.to_string(), supervision, factory).await?;
        members.push((Member::Worker(worker), vitals));
    }
    let status = match waiting.coordinator.take() {
        Some((id, placed)) => {
            let start = Start::new(&*context, &config.job, unix_ms);
            let own = builder.name.clone().unwrap_or_else(|| "node".to_owned());
            let lease = Duration::from_millis(config.coordination.lease_ms);
            let open = |path: &str| context.open_store(path, &base(config));
            let store = CoordinationStore::open(&config.coordination.store, lease / 2, open);
            let store = store.map_err(NodeError::store("coordination.store"))?.start();
            let presence = Presence::default();
            router.tell_beats(presence.clone());
            let coordination =
                Coordination { id, name: own, lease, has_namesakes, store, presence };
            Some(coordinate(config, &cast, placed, supervision, start, coordination).await?)
        }
        None => None,
    };
    if let Some(status) = &status {
        serving.metrics.watch_training(status.clone());
        if locks.iter().all(StoreLock::is_exclusive) {
            spawn_local(hold(std::mem::take(&mut locks), status.clone()));
        }
    }
    if builder.train {
        pulse(&builder, &cast, members, task, supervision, &directory);
        if let Some(coordinator) = cast.own_coordinator() {
            directory.watch_calls(&coordinator.clone().recipient());
            spawn_local(tell_callers(router.watch_callers(), coordinator.clone().recipient()));
        }
    }
    if let Some((listener, own)) = listener {
        spawn_local(router.serve(listener, own));
    }
    let service = if builder.serve && roles.contains(&Role::Service) {
        Some(Services::start(&builder, &serving).await?)
    } else {
        None
    };
    let drain = cast.own_coordinator().map(|coordinator| coordinator.clone().recipient());
    let (config, registries) = (builder.config, cast.registry);
    let arbiters = threads.arbiters;
    Ok(Node { config, status, drain, serving, registries, service, arbiters, _locks: locks })
}

/// On a thread of its own: who writes and digests a gigabyte says for as long that nobody of this node lives.
async fn checkpoints(
    builder: &NodeBuilder,
    thread: &Thread,
    supervision: Supervision,
) -> Result<Addr<CheckpointStore>, NodeError> {
    let checkpoint = builder.config.checkpoint.clone();
    let store = builder.context.open_store(&checkpoint.store, &base(&builder.config));
    let store = store.map_err(NodeError::store("checkpoint.store"))?;
    let placed: Placed<CheckpointStore> = place(thread).await?;
    let address = placed.address.clone();
    let new =
        move || CheckpointStore::new(store.clone(), checkpoint.store.clone(), checkpoint.keep);
    placed.run("checkpoints".into(), supervision, new).await?;
    Ok(address)
}

/// The model and the rows of this node's workers.
fn task(builder: &NodeBuilder) -> Result<Task, NodeError> {
    let job = &builder.config.job;
    let data = match &builder.data {
        Some(data) => Arc::clone(data),
        None => crate::data::open(&job.data, job.model.loss, job.seed, &base(&builder.config))?,
    };
    let architecture = describe(&job.model, data.shape())?;
    let model = builder.kinds.build(&architecture)?;
    let offer = JobOffer {
        job: job.clone(),
        data: data.shape().clone(),
        scaling: data.scaling().clone(),
        architecture,
        tensors: model.tensors(),
        outputs: model.outputs(),
    };
    let plan = JobPlan::new(offer.clone(), builder.config.servers.shards)?;
    if !builder.config.nodes.is_empty() {
        frames::check(&plan, &builder.config)?;
    }
    info!(
        train_rows = offer.data.train_rows,
        test_rows = offer.data.test_rows,
        parameters = plan.layout.len(),
        steps = plan.last_version().0,
        "job"
    );
    Ok(Task { offer, model, data })
}

/// Tells a cluster of several coordinators from others: by what they agree on, and by the folder with their
/// checkpoints.
fn cluster(builder: &NodeBuilder, unix_ms: u64) -> Result<String, StoreError> {
    let seed = format!("{unix_ms} {}", builder.context.entropy());
    let new = blake3::hash(seed.as_bytes()).to_hex();
    let config = &builder.config;
    let id = store_id(&config.checkpoint.store, &base(config), &new[..16])?;
    let digest: String = config.digest().chars().take(16).collect();
    Ok(format!("{digest}-{id}"))
}

/// Keeps the locks while the run may write checkpoints: what is over can be trained again by another
/// process while this one serves.
async fn hold(locks: Vec<StoreLock>, mut status: watch::Receiver<TrainingStatus>) {
    // An error is the end of the coordinator.
    let _ = status.wait_for(has_ended).await;
    drop(locks);
}

type Listening = (Box<dyn crate::transport::Listener>, wire::Hello);

async fn listen(builder: &NodeBuilder) -> Result<Option<Listening>, NodeError> {
    let Some(name) = &builder.name else { return Ok(None) };
    let Some(node) = builder.config.nodes.iter().find(|node| node.name == *name) else {
        return Ok(None);
    };
    let address = node.address;
    let listener = builder.context.transport().listen(address).await;
    let listener = listener.map_err(|source| NodeError::Listen { address, source })?;
    Ok(Some((listener, builder.hello())))
}

fn policy(config: &Config) -> RestartPolicy {
    let supervisor = &config.supervisor;
    RestartPolicy {
        restarts_max: supervisor.restarts_max,
        window: Duration::from_secs(supervisor.window_seconds),
        backoff: Duration::from_millis(supervisor.backoff_ms),
        // A restart that takes longer than this to begin looks like a hang.
        backoff_max: Duration::from_secs(5).max(Duration::from_millis(supervisor.backoff_ms)),
    }
}

/// Mailboxes for all that run here, proxies for all that don't.
async fn cast(
    builder: &NodeBuilder,
    plan: &Plan,
    directory: &mut Directory,
    waiting: &mut Waiting,
    checkpoints: Addr<CheckpointStore>,
    threads: &mut Threads,
) -> Result<Cast, NodeError> {
    let config = &builder.config;
    let here = Thread::Here;
    let mut coordinators = Vec::new();
    for number in 0..config.coordinators() {
        coordinators.push(if plan.is_node(Role::Coordinator, number) {
            let placed = place(&here).await?;
            let address = placed.address.clone();
            let id = CoordinatorId(number);
            waiting.coordinator = Some((id, placed)).filter(|_| builder.train);
            Place::Here(address)
        } else {
            let there = directory.remote_at(Role::Coordinator, number, coordinator_target());
            let missing = || NodeError::RoleMissing { role: Role::Coordinator.to_string() };
            Place::There(there.ok_or_else(missing)?)
        });
    }
    let mut own_registry = None;
    if let Some(index) = plan.own_index(Role::Registry) {
        let placed = place(&here).await?;
        own_registry = Some((index, placed.address.clone()));
        waiting.registry = Some(placed);
    }
    let home = own_registry.as_ref().map(|(index, address)| (*index, address));
    let registry = RegistryLinks::connect(plan, directory, home, plan.place())
        .ok_or_else(|| NodeError::RoleMissing { role: Role::Registry.to_string() })?;
    let mut servers = Vec::new();
    for server in (0..config.servers()).map(ServerId) {
        let mut copies = Vec::new();
        for shard in (0..config.servers.shards).map(ShardId) {
            copies.push(if plan.is_node(Role::Server, server.0) {
                let thread = threads.own();
                let placed = place(&thread).await?;
                let address = placed.address.clone();
                waiting.servers.push((ShardCopy { shard, server }, thread, placed));
                Place::Here(address)
            } else {
                let copy = directory.remote_at(Role::Server, server.0, copy_target(shard));
                let missing = || NodeError::RoleMissing { role: Role::Server.to_string() };
                Place::There(copy.ok_or_else(missing)?)
            });
        }
        servers.push(copies);
    }
    let leads = plan.own_index(Role::Coordinator).is_some();
    let mut workers = BTreeMap::new();
    for worker in 0..config.workers.count {
        if plan.is_here(Role::Worker, worker) {
            let thread = threads.own();
            let placed = place(&thread).await?;
            workers.insert(worker, Place::Here(placed.address.clone()));
            waiting.workers.push((WorkerId(worker), thread, placed));
        } else if leads {
            let there = directory.remote(Role::Worker, worker_target(worker));
            let missing = || NodeError::RoleMissing { role: Role::Worker.to_string() };
            workers.insert(worker, Place::There(there.ok_or_else(missing)?));
        }
    }
    Ok(Cast { coordinators, servers, workers, registry, own_registry, checkpoints })
}

impl Cast {
    fn own_coordinator(&self) -> Option<&Addr<Coordinator>> {
        self.coordinators.iter().find_map(|place| match place {
            Place::Here(coordinator) => Some(coordinator),
            Place::There(_) => None,
        })
    }

    fn all_coordinators<M>(&self) -> Vec<Recipient<M>>
    where
        M: WireMessage + Send + 'static,
        M::Result: Send,
        Coordinator: actix::Handler<M>,
    {
        self.coordinators.iter().map(Place::recipient).collect()
    }
}

fn pulse(
    builder: &NodeBuilder,
    cast: &Cast,
    members: Vec<(Member, Vitals)>,
    task: Option<Task>,
    supervision: Supervision,
    directory: &Directory,
) {
    // One for each that waits: several of one channel are woken in an order that is drawn.
    let changes: Rc<[watch::Sender<()>]> =
        cast.coordinators.iter().map(|_| watch::Sender::default()).collect();
    for (_, vitals) in &members {
        let (mut vitals, changes) = (vitals.clone(), Rc::clone(&changes));
        spawn_local(async move {
            while vitals.changed().await {
                changes.iter().for_each(|change| change.send_replace(()));
            }
        });
    }
    let pulse = Pulse {
        node: builder.name.clone().unwrap_or_else(|| "node".to_owned()),
        life: supervision.base,
        members,
        offer: task.map(|task| task.offer),
        every: Duration::from_millis(builder.config.detector.heartbeat_ms),
        changed: watch::Sender::default().subscribe(),
        _calling: directory.keep_calling(Role::Coordinator).into(),
    };
    for ((number, coordinator), change) in (0u32..).zip(&cast.coordinators).zip(changes.iter()) {
        let link = match coordinator {
            Place::Here(_) => None,
            Place::There(_) => directory.link_to(Role::Coordinator, number),
        };
        let pulse = Pulse { changed: change.subscribe(), ..pulse.clone() };
        spawn_local(pulse.run(coordinator.recipient(), link));
    }
}

/// Tells the coordinator who connects to this node and who hangs up.
async fn tell_callers(
    mut callers: mpsc::Receiver<NodeConnected>,
    coordinator: Recipient<NodeConnected>,
) {
    while let Some(news) = callers.recv().await {
        // One that restarts has its members' word.
        let _ = coordinator.send(news).await;
    }
}

/// What other nodes may ask of this one.
fn routes(router: &Router, cast: &Cast, plan: &Plan, serving: &Serving, networked: bool) {
    if !networked {
        return;
    }
    if let Some(coordinator) = cast.own_coordinator() {
        let target = coordinator_target();
        router.route(target, coordinator.clone().recipient::<messages::Heartbeat>());
        router.route(target, coordinator.clone().recipient::<messages::ReportShard>());
        router.route(target, coordinator.clone().recipient::<messages::ReportPart>());
        router.route(target, coordinator.clone().recipient::<messages::ReportFailure>());
        router.route(target, coordinator.clone().recipient::<messages::ReportFenced>());
        router.route(target, coordinator.clone().recipient::<messages::ReportSpeed>());
        router.route(target, coordinator.clone().recipient::<messages::GetStatus>());
        router.route(target, coordinator.clone().recipient::<messages::Drain>());
    }
    for (shard, copy) in cast.servers.iter().flat_map(|copies| (0u32..).zip(copies)) {
        if let Place::Here(copy) = copy {
            route_copy(router, copy_target(ShardId(shard)), copy);
        }
    }
    for (&index, worker) in &cast.workers {
        if let Place::Here(worker) = worker {
            let target = worker_target(index);
            router.route(target, worker.clone().recipient::<messages::LeaseSlots>());
        }
    }
    if let Some((index, registry)) = &cast.own_registry {
        RegistryLinks::route(router, *index, registry);
    }
    if let Some(index) = plan.own_index(Role::Service) {
        let target = Target::new(wire::Role::Predictor, index);
        router.route(target, serving.predict.clone());
        router.route(target, serving.lend.clone());
    }
}

pub(super) fn coordinator_target() -> Target {
    Target::new(wire::Role::Coordinator, 0)
}

fn copy_target(shard: ShardId) -> Target {
    Target::new(wire::Role::ParameterServer, shard.0)
}

fn worker_target(index: u32) -> Target {
    Target::new(wire::Role::Worker, index)
}
