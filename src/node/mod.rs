//! A running node: the composition root. The only place that names every actor and the transport.
//!
//! With no `[[nodes]]` one process runs every role and no message leaves it. With them, each
//! process runs the roles of its own name and reaches the rest through [`crate::peer::Proxy`].

mod context;
mod directory;
mod draining;
mod error;
mod frames;
mod heartbeat;
mod kinds;
mod placement;
mod registries;
mod roles;
mod services;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix::Recipient;
use actix_rt::Arbiter;
use gradmesh_actors::dataset::Dataset;
use gradmesh_actors::ids::Incarnation;
use gradmesh_actors::in_memory::Followed;
use gradmesh_actors::messages::{
    DeleteVersion, Drain, EditRegistry, FetchModel, FindModel, GetStatus, LendRun, ListModels,
    LoadModel, Predict, ReadRecords, RemoveAlias, SetAlias, UnloadModel,
};
use gradmesh_actors::model::ModelKinds;
use gradmesh_actors::offer::Offer;
use gradmesh_actors::training::{Progress, Published, TrainingStatus};
use tokio::sync::watch;

pub use context::{NodeContext, OperatingSystem};
pub use draining::{ask_leader, drain_of};
pub use error::NodeError;
pub use kinds::kinds;
pub use registries::RegistryLinks;

use crate::config::{Config, Role};
use crate::metrics::Metrics;
use crate::service::{
    PredictorFactory, RegistryActors, ServiceActors, ServiceLimits, ServiceState,
};
use crate::store::StoreLock;
use crate::wire::{ConfigDigest, Hello};
use services::Services;

/// What to run, before it runs.
#[derive(Debug)]
pub struct NodeBuilder {
    config: Config,
    name: Option<String>,
    kinds: ModelKinds,
    data: Option<Arc<dyn Dataset>>,
    context: Rc<dyn NodeContext>,
    serve: bool,
    train: bool,
}

/// Actors that run in this process. They end with the actix system.
#[derive(Debug)]
pub struct Node {
    config: Config,
    status: Option<watch::Receiver<TrainingStatus>>,
    drain: Option<Recipient<Drain>>,
    serving: Serving,
    registries: RegistryLinks,
    service: Option<Services>,
    /// Threads of the node's actors; joined by nobody, stopped by [`Node::stop`].
    arbiters: Vec<Arbiter>,
    /// Of a cluster with several coordinators, which leads as long as it is there.
    _locks: Vec<StoreLock>,
}

/// Whom to ask for predictions and versions, on this node or another.
#[derive(Clone, Debug)]
pub struct Serving {
    /// A predictor on a thread of its own.
    pub predict: Recipient<Predict>,
    /// A service has others like it, one on each of its threads.
    pub predictors: PredictorFactory,
    /// Runs of other nodes, on instances that are idle here.
    pub lend: Recipient<LendRun>,
    pub load: Recipient<LoadModel>,
    pub unload: Recipient<UnloadModel>,
    /// What this node's predictor offers.
    pub offer: watch::Receiver<Offer>,
    pub find: Recipient<FindModel>,
    pub fetch: Recipient<FetchModel>,
    pub list: Recipient<ListModels>,
    pub set_alias: Recipient<SetAlias>,
    pub remove_alias: Recipient<RemoveAlias>,
    pub delete: Recipient<DeleteVersion>,
    pub edit: Recipient<EditRegistry>,
    pub records: Recipient<ReadRecords>,
    /// What the running training has made; none where the service follows none.
    pub followed: Option<Followed>,
    /// The run's coordinators; none where this process trains nothing.
    pub status: Vec<Recipient<GetStatus>>,
    /// `cluster.name`.
    pub cluster: String,
    pub metrics: Metrics,
}

impl Serving {
    /// For [`crate::service::configure`] in an application of one's own. Once for each node.
    /// Callers may read the registry and not change it; [`ServiceState::with_registry`] lets them.
    pub fn state(&self, limits: ServiceLimits) -> ServiceState {
        let actors = ServiceActors {
            predict: self.predict.clone(),
            load: self.load.clone(),
            unload: self.unload.clone(),
            offer: self.offer.clone(),
            find: self.find.clone(),
            list: self.list.clone(),
        };
        ServiceState::new(actors, self.metrics.clone(), limits)
            .with_followed(self.followed.clone())
            .with_status(self.cluster.clone(), self.status.clone())
            .with_predictors(self.predictors.clone())
            .with_registry(self.registry(), false)
    }

    /// For [`ServiceState::with_registry`].
    pub fn registry(&self) -> RegistryActors {
        RegistryActors {
            records: self.records.clone(),
            edit: self.edit.clone(),
            set_alias: self.set_alias.clone(),
            remove_alias: self.remove_alias.clone(),
            delete: self.delete.clone(),
            fetch: self.fetch.clone(),
        }
    }
}

impl NodeBuilder {
    pub fn new(config: Config) -> Self {
        Self {
            config,
            name: None,
            kinds: kinds(),
            data: None,
            context: Rc::new(OperatingSystem),
            serve: false,
            train: true,
        }
    }

    /// Runs the node of this name in `[[nodes]]`.
    #[must_use]
    pub fn name(mut self, name: Option<String>) -> Self {
        self.name = name;
        self
    }

    /// Knows these kinds of models; [`kinds`] and some of one's own, as a rule.
    #[must_use]
    pub fn kinds(mut self, kinds: ModelKinds) -> Self {
        self.kinds = kinds;
        self
    }

    /// Trains on these rows and not on the files of `job.data`.
    #[must_use]
    pub fn data(mut self, data: Arc<dyn Dataset>) -> Self {
        self.data = Some(data);
        self
    }

    /// Lives in this world and not on the operating system.
    #[must_use]
    pub fn context(mut self, context: Rc<dyn NodeContext>) -> Self {
        self.context = context;
        self
    }

    /// Answers HTTP on `service.listen`, and gRPC on `service.grpc_listen` if there is one, where
    /// the node has the role.
    #[must_use]
    pub fn serve(mut self, serve: bool) -> Self {
        self.serve = serve;
        self
    }

    /// Whether to train at all, or only to serve what the registry holds.
    #[must_use]
    pub fn train(mut self, train: bool) -> Self {
        self.train = train;
        self
    }

    /// Starts everything. Must be called within an actix system.
    ///
    /// # Errors
    /// See [`NodeError`]; what was started ends with the system.
    pub async fn start(self) -> Result<Node, NodeError> {
        roles::start(self).await
    }

    fn hello(&self) -> Hello {
        let name = self.name.clone().unwrap_or_else(|| "node".to_owned());
        hello(&self.config, name)
    }
}

/// How a process of this configuration introduces itself.
pub fn hello(config: &Config, node: String) -> Hello {
    // The digest is BLAKE3 in hexadecimal, so it always parses.
    let digest = blake3::Hash::from_hex(config.digest()).map(|hash| *hash.as_bytes());
    Hello {
        cluster: config.cluster.name.clone(),
        node,
        config_digest: ConfigDigest(digest.unwrap_or_default()),
        target: None,
    }
}

impl Node {
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The run, where this node has the coordinator.
    pub fn status(&self) -> Option<watch::Receiver<TrainingStatus>> {
        self.status.clone()
    }

    /// Where members are told to leave, where this node has a coordinator. It may not lead.
    pub fn drain(&self) -> Option<Recipient<Drain>> {
        self.drain.clone()
    }

    pub fn serving(&self) -> &Serving {
        &self.serving
    }

    /// Any of the registries, for changes too.
    pub fn registries(&self) -> &RegistryLinks {
        &self.registries
    }

    /// Where HTTP is answered.
    pub fn http_address(&self) -> Option<SocketAddr> {
        self.service.as_ref().map(|services| services.http.address())
    }

    /// Where gRPC is answered.
    pub fn grpc_address(&self) -> Option<SocketAddr> {
        self.service.as_ref().and_then(Services::grpc_address)
    }

    /// Waits until the run is published.
    ///
    /// # Errors
    /// The run failed, or this node doesn't coordinate one.
    pub async fn trained(&self) -> Result<(Published, TrainingStatus), NodeError> {
        let mut status = self.status().ok_or(NodeError::NoCoordinator)?;
        let status = status.wait_for(has_ended).await.map_err(|_| NodeError::Arbiter)?.clone();
        match status.progress.clone() {
            Progress::Done(published) => Ok((published, status)),
            Progress::Failed { cause } => Err(NodeError::Training { cause }),
            _ => Err(NodeError::Arbiter),
        }
    }

    /// Stops the service and the actors' threads. Nothing is lost: a later start goes on from the last
    /// checkpoint.
    pub async fn stop(self) {
        if let Some(services) = self.service {
            services.stop().await;
        }
        for arbiter in self.arbiters {
            arbiter.stop();
        }
    }
}

/// Whether a run is over, well or not.
fn has_ended(status: &TrainingStatus) -> bool {
    status.progress.is_over()
}

/// How long missing servers and workers are waited for before a run starts without them.
const GATHER_FOR: Duration = Duration::from_secs(5);
/// The same before it starts again from a checkpoint: a process that is started anew is there
/// within half a second.
const GATHER_AGAIN_FOR: Duration = Duration::from_secs(1);

/// Distinguishes the lives of a process on one machine: milliseconds since 1970, with room for
/// 65,536 restarts of an actor in each.
fn incarnation(unix_ms: u64) -> Incarnation {
    Incarnation(unix_ms << 16)
}

/// The folder of a relative path in the configuration.
fn base(config: &Config) -> PathBuf {
    config.folder.clone()
}

/// Roles of this process.
fn own_roles(config: &Config, name: Option<&str>) -> Result<Vec<Role>, NodeError> {
    let all = vec![Role::Coordinator, Role::Server, Role::Worker, Role::Registry, Role::Service];
    match (config.nodes.is_empty(), name) {
        (true, None) => Ok(all),
        (true, Some(name)) => Err(NodeError::NoNodes { name: name.to_owned() }),
        (false, None) => Err(NodeError::NameMissing { known: names(config) }),
        (false, Some(name)) => config
            .nodes
            .iter()
            .find(|node| node.name == name)
            .map(|node| node.roles.clone())
            .ok_or_else(|| NodeError::UnknownName { name: name.to_owned(), known: names(config) }),
    }
}

fn names(config: &Config) -> String {
    let names: Vec<&str> = config.nodes.iter().map(|node| node.name.as_str()).collect();
    names.join(", ")
}
