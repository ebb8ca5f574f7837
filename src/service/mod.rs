//! The service: the Open Inference Protocol, version 2, over HTTP and gRPC, a metrics page, and the
//! run's status.
//!
//! Over gRPC the same is answered by `GRPCInferenceService` of `proto/inference.proto`, and health
//! by `grpc.health.v1`; see `GrpcService`. Over HTTP:
//!
//! | verb and path | answer |
//! |---|---|
//! | `GET /` | these paths; only where [`Service`] listens, an application has its own |
//! | `GET /v2` | name and version of the server, and the protocol's extensions that it speaks |
//! | `GET /v2/health/live`, `/v2/health/ready` | whether it runs, whether it can answer |
//! | `GET /v2/models` | names of the models |
//! | `GET /v2/models/{m}[/versions/{v}]` | inputs, outputs and lineage |
//! | `GET /v2/models/{m}[/versions/{v}]/ready` | whether the version is served |
//! | `GET /v2/models/{m}[/versions/{v}]/config` | the same in the form of a Triton configuration |
//! | `GET /v2/models[/{m}[/versions/{v}]]/stats` | what was answered, and what that took |
//! | `POST /v2/models/{m}[/versions/{v}]/infer` | a prediction; tensors as JSON or raw |
//! | `POST /v2/repository/index` | all versions, and whether they are served |
//! | `POST /v2/repository/models/{m}/load`, `/unload` | serves a model or doesn't, in this process |
//! | `GET /metrics` | counters and the run's state, for Prometheus |
//! | `GET /metrics/triton` | the counters of `/v2/models/stats` under Triton's names |
//! | `GET /gradmesh/registry/events` | what happens in the registry, as a feed |
//! | `GET /gradmesh/status` | the run's state, as [`ClusterStatus`] |
//! | `/v1/embeddings`, `/v1/models[/{m}]` | text embeddings, as clients of OpenAI ask for them |
//! | `/api/2.0/mlflow/…` | the registry, as MLflow's clients speak to one |
//! | `/api/2.0/mlflow-artifacts/artifacts/…` | the files of its versions |
//!
//! `{v}` is a number, `latest` (which is also meant where there is none), or an alias. Whatever
//! goes wrong is answered with `{"error": "…"}`.

mod api_error;
mod callers;
mod events;
#[cfg(feature = "grpc")]
mod grpc;
mod keys;
mod mlflow;
mod oip;
mod openai;
mod request_id;
mod request_metrics;
mod rest;
mod status;
mod triton_metrics;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use actix::Recipient;
use actix_web::dev::ServerHandle;
use actix_web::{App, HttpServer, web};
use gradmesh_actors::in_memory::Followed;
use gradmesh_actors::messages::{
    DeleteVersion, EditRegistry, FetchModel, FindModel, GetStatus, ListModels, LoadModel, Predict,
    ReadRecords, RemoveAlias, SetAlias, UnloadModel,
};
use gradmesh_actors::offer::Offer;
use gradmesh_actors::version::VersionDescription;
use tokio::sync::{Semaphore, watch};
use tracing::{error, info};

use crate::metrics::Metrics;
use api_error::{ApiError, ErrorKind};
use callers::UnderWay;
use oip::Statistics;
use request_metrics::RequestMetrics;

#[cfg(feature = "grpc")]
pub use grpc::{GrpcError, GrpcService};
pub use keys::{KeyEntry, Keys, KeysError};
pub use status::{ClusterStatus, STATUS_PATH};

/// Connections of one HTTP thread, or of the gRPC server. Idle ones cost a few kilobytes each; more than this on one
/// node are a client that leaks them.
const CONNECTIONS_MAX: usize = 1024;

/// How long a connection stays open between two requests: longer than the minute after which
/// common load balancers close theirs, so that they never write into a closed one.
const KEEP_ALIVE: Duration = Duration::from_secs(75);

/// How long requests under way are waited for when the service stops.
const STOP_LIMIT_S: u64 = 10;

/// The longest wait for the registry, which answers from memory. Load balancers ask for readiness
/// every few seconds and take a slow answer for none.
const FIND_LIMIT: Duration = Duration::from_secs(2);

/// The longest wait for a change of the registry, which is a few small writes of its store's disk.
const CHANGE_LIMIT: Duration = Duration::from_secs(30);

/// The longest wait for the body of a request: 16 MiB at 4 Mbit/s. It counts against all others.
const BODY_LIMIT: Duration = Duration::from_secs(32);

/// The longest wait for the tensors of a version: a gigabyte over a slow link.
const FETCH_LIMIT: Duration = Duration::from_secs(120);

/// Models that are downloaded at a time: each is in memory, 255 MB at most, until the slowest caller has it.
const DOWNLOADS_MAX: usize = 4;

/// Bytes of a body that one permit stands for: the smallest request is worth one.
const PLACE: usize = 1024;

/// What requests may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceLimits {
    /// The largest body, after decompression. 16 MiB are two thousand rows of 784 features in
    /// JSON, five thousand raw; a larger batch is better sent as several requests.
    pub body_bytes_max: usize,
    /// The longest wait for a prediction; 10 s is past what a caller waits for.
    pub infer: Duration,
    /// Bodies of all requests under way, ≥ `body_bytes_max`. Read into numbers, a body takes up to
    /// ten times its size: 64 MiB at most 640 MiB of memory.
    pub bodies_bytes_max: usize,
}

impl Default for ServiceLimits {
    fn default() -> Self {
        Self {
            body_bytes_max: 16 << 20,
            infer: Duration::from_secs(10),
            bodies_bytes_max: 64 << 20,
        }
    }
}

/// Whom the service asks.
#[derive(Clone, Debug)]
pub struct ServiceActors {
    pub predict: Recipient<Predict>,
    pub load: Recipient<LoadModel>,
    pub unload: Recipient<UnloadModel>,
    /// What the predictor behind `load` and `unload` offers.
    pub offer: watch::Receiver<Offer>,
    pub find: Recipient<FindModel>,
    pub list: Recipient<ListModels>,
}

/// The registry, for callers who search and change it.
#[derive(Clone, Debug)]
pub struct RegistryActors {
    pub records: Recipient<ReadRecords>,
    pub edit: Recipient<EditRegistry>,
    pub set_alias: Recipient<SetAlias>,
    pub remove_alias: Recipient<RemoveAlias>,
    pub delete: Recipient<DeleteVersion>,
    /// Hands out the files of versions.
    pub fetch: Recipient<FetchModel>,
}

/// Starts a predictor on the thread that asks for one.
#[derive(Clone)]
pub struct PredictorFactory {
    start: Arc<dyn Fn() -> Recipient<Predict> + Send + Sync>,
}

impl PredictorFactory {
    pub fn new(start: impl Fn() -> Recipient<Predict> + Send + Sync + 'static) -> Self {
        Self { start: Arc::new(start) }
    }
}

impl fmt::Debug for PredictorFactory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PredictorFactory").finish_non_exhaustive()
    }
}

/// Who answers, and within which limits. Clones share all of it.
#[derive(Clone, Debug)]
pub struct ServiceState {
    actors: ServiceActors,
    /// `cluster.name`; empty where nobody has said it.
    cluster: String,
    /// The coordinator of the run, here or elsewhere.
    coordinators: Vec<Recipient<GetStatus>>,
    metrics: Metrics,
    requests: RequestMetrics,
    statistics: Arc<Mutex<Statistics>>,
    limits: ServiceLimits,
    /// One permit for each KiB of `bodies_bytes_max`.
    places: Arc<Semaphore>,
    /// Whether the registry has ever answered.
    ready: Arc<AtomicBool>,
    /// Whether the service stops: who waits for news is answered.
    stops: Arc<AtomicBool>,
    /// Whether callers may unload models and load them again.
    model_control: bool,
    /// What the running training has made, which is the newest version of its model.
    followed: Option<Followed>,
    registry: Option<RegistryActors>,
    /// One permit for each model that may be downloaded at a time.
    downloads: Arc<Semaphore>,
    /// Whether callers may change the registry.
    registry_writes: bool,
    /// Without any, whoever reaches the service may ask.
    keys: Option<Keys>,
    /// Without it, only queues bound what is under way.
    under_way: Option<UnderWay>,
    /// Starts one on each thread that answers.
    predictors: Option<PredictorFactory>,
    /// That of this thread.
    here: Option<Recipient<Predict>>,
}

impl ServiceState {
    /// Registers the service's counters in `metrics`: make one state for each.
    pub fn new(actors: ServiceActors, metrics: Metrics, limits: ServiceLimits) -> Self {
        Self {
            actors,
            cluster: String::new(),
            coordinators: Vec::new(),
            requests: RequestMetrics::new(&metrics),
            statistics: Arc::default(),
            metrics,
            places: Arc::new(Semaphore::new(limits.bodies_bytes_max / PLACE)),
            limits,
            ready: Arc::default(),
            stops: Arc::default(),
            model_control: false,
            followed: None,
            registry: None,
            downloads: Arc::new(Semaphore::new(DOWNLOADS_MAX)),
            registry_writes: false,
            keys: None,
            under_way: None,
            predictors: None,
            here: None,
        }
    }

    /// Asks a predictor on the thread where a request comes in, which spares two changes of threads,
    /// and the one of [`ServiceActors`] only where that one is gone.
    #[must_use]
    pub fn with_predictors(self, predictors: PredictorFactory) -> Self {
        Self { predictors: Some(predictors), ..self }
    }

    /// Answers at once whoever waits for news here, from now on, with none: a server that stops waits for the
    /// requests under way, and such a one may take half a minute. [`Service::stop`] does so itself.
    pub fn tell_that_it_stops(&self) {
        self.stops.store(true, Ordering::Relaxed);
    }

    /// For the thread that calls it, on which actors can run.
    fn on_this_thread(self) -> Self {
        Self { here: self.predictors.as_ref().map(|predictors| (predictors.start)()), ..self }
    }

    /// Whom to ask for a prediction.
    fn predictor(&self) -> &Recipient<Predict> {
        self.here.as_ref().filter(|here| here.connected()).unwrap_or(&self.actors.predict)
    }

    /// Whether whoever reaches the service may unload models and load them again; nobody may where
    /// this is not called.
    #[must_use]
    pub fn with_model_control(self, model_control: bool) -> Self {
        Self { model_control, ..self }
    }

    /// Answers only callers who have one of these keys, and each as its entry says. Health, metrics, the
    /// run's status and the documents of the interface are for all.
    #[must_use]
    pub fn with_keys(self, keys: Keys) -> Self {
        Self { keys: Some(keys), ..self }
    }

    /// Refuses what is beyond so many predictions of one model at a time, ≥ 1.
    #[must_use]
    pub fn with_model_requests(self, limit: usize) -> Self {
        Self { under_way: Some(UnderWay::new(limit)), ..self }
    }

    /// Describes the state of a running training where the newest version of its model is asked for:
    /// the predictors answer with it too.
    #[must_use]
    pub fn with_followed(self, followed: Option<Followed>) -> Self {
        Self { followed, ..self }
    }

    /// The description of the state that is followed.
    fn followed(&self) -> Option<VersionDescription> {
        let served = self.followed.as_ref()?.borrow();
        served.as_ref().map(|served| served.description().clone())
    }

    /// Answers MLflow's clients from this registry, and lets them change it where `writes` is set.
    #[must_use]
    pub fn with_registry(self, registry: RegistryActors, writes: bool) -> Self {
        Self { registry: Some(registry), registry_writes: writes, ..self }
    }

    /// Says on [`STATUS_PATH`] which cluster this is, and how far its run is; `None` where it
    /// trains nothing.
    #[must_use]
    pub fn with_status(self, cluster: String, coordinators: Vec<Recipient<GetStatus>>) -> Self {
        Self { cluster, coordinators, ..self }
    }

    /// Why a request whose body has no place is refused.
    fn bodies_full(&self) -> ApiError {
        let limit = self.limits.bodies_bytes_max;
        let text =
            format!("requests of {limit} bytes are under way already; try again in a second");
        ApiError::new(ErrorKind::Busy, text)
    }
}

/// Mounts `/v2`, `/v1`, `/api/2.0/mlflow`, `/metrics` and `/gradmesh` in an application of the caller's own.
///
/// Called on each of its threads, as actix-web does.
pub fn configure(cfg: &mut web::ServiceConfig, state: ServiceState) {
    let state = state.on_this_thread();
    cfg.service(rest::scope(state.clone()))
        .service(mlflow::scope(state.clone()))
        .service(mlflow::artifacts_scope(state.clone()))
        .service(openai::scope(state.clone()))
        .service(rest::metrics_page(state.clone()))
        .service(rest::triton_metrics_page(state.clone()))
        .service(status::scope(state));
}

/// The service could not start.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    #[error(
        "{listen} is in use by another program; change service.listen or the listen of its node"
    )]
    InUse { listen: SocketAddr },
    #[error("can't listen on {listen}: {source}; change service.listen or the listen of its node")]
    Listen { listen: SocketAddr, source: io::Error },
}

/// A running HTTP server.
#[derive(Clone, Debug)]
pub struct Service {
    address: SocketAddr,
    handle: ServerHandle,
    state: ServiceState,
}

impl Service {
    /// Starts to listen, with `workers` threads that read and write requests (≥ 1).
    ///
    /// # Errors
    /// The address can't be listened on.
    pub fn start(
        listen: SocketAddr,
        state: ServiceState,
        workers: usize,
    ) -> Result<Self, ServiceError> {
        let own = state.clone();
        let app = move || {
            App::new()
                .configure(|cfg| configure(cfg, own.clone()))
                .service(rest::root())
                .default_service(web::to(rest::no_such_path))
        };
        let server = HttpServer::new(app)
            .workers(workers)
            .max_connections(CONNECTIONS_MAX)
            .keep_alive(KEEP_ALIVE)
            // Whoever closes its side has gone, as a proxy and a process that ends do: what it asked
            // for is not computed, and has no place in a queue. One that only says that it
            // sends nothing more, which clients of HTTP don't, gets no answer.
            .h1_allow_half_closed(false)
            .shutdown_timeout(STOP_LIMIT_S)
            // The node decides when it stops.
            .disable_signals()
            .bind(listen)
            .map_err(|source| match source.kind() {
                io::ErrorKind::AddrInUse => ServiceError::InUse { listen },
                _ => ServiceError::Listen { listen, source },
            })?;
        let address = server.addrs().first().copied().unwrap_or(listen);
        let server = server.run();
        let handle = server.handle();
        actix_rt::spawn(async move {
            if let Err(error) = server.await {
                error!(%error, "the HTTP server failed");
            }
        });
        info!(%address, "service listens");
        Ok(Self { address, handle, state })
    }

    /// Where it listens: the port that was given, or the one that was chosen for port 0.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes no new connections and waits for the requests under way.
    pub async fn stop(&self) {
        self.state.tell_that_it_stops();
        self.handle.stop(true).await;
    }
}
