//! A service on a thread, and the small models behind it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use actix::{Actor, Addr, Context, Handler, ResponseFuture};
use gradmesh::metrics::Metrics;
use gradmesh::service::{RegistryActors, Service, ServiceActors, ServiceLimits, ServiceState};
use gradmesh::store::{RegistryStore, open_store};
use gradmesh_actors::dataset::Scaling;
use gradmesh_actors::layout::{Init, TensorSpec};
use gradmesh_actors::log_seen::LogFeed;
use gradmesh_actors::messages::{
    FindError, FindModel, ListModels, LoadModel, ModelList, ModelLoaded, ModelUnloaded, Predict,
    PredictError, Prediction, PublishModel, RegistryStoreError, SetAlias, UnloadModel,
};
use gradmesh_actors::model::ModelKinds;
use gradmesh_actors::model::{Batch, Model, ModelDescription, Score};
use gradmesh_actors::model_registry::ModelRegistry;
use gradmesh_actors::new_version::NewVersion;
use gradmesh_actors::predictor::{Predictor, PredictorParts};
use gradmesh_actors::version::{TensorShape, VersionDescription};
use ndarray::{Array2, ArrayView2};
use object_store::ObjectStore;
use serde_json::{Value, json};
use tokio::sync::watch;

pub(crate) fn error(text: &str) -> Value {
    json!({ "error": text })
}

/// The sentence of an error, which is all that there is in it.
pub(crate) fn sentence(body: &Value) -> &str {
    assert_eq!(body.as_object().map(|body| body.len()), Some(1), "{body}");
    body["error"].as_str().unwrap()
}

/// A request with rows of two features.
pub(crate) fn rows(data: &[f32]) -> Value {
    let shape = [data.len() / 2, 2];
    json!({ "inputs": [{ "name": "input", "datatype": "FP32", "shape": shape, "data": data }] })
}

/// Waits for what is published, and looks at it again and again.
pub(crate) async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let look = async {
        let mut look = actix_rt::time::interval(Duration::from_millis(10));
        while !is_so() {
            look.tick().await;
        }
    };
    let looked = tokio::time::timeout(Duration::from_secs(60), look).await;
    looked.unwrap_or_else(|_| panic!("not in time: {what}"));
}

/// What the thread of a service tells of it.
struct Started {
    address: SocketAddr,
    #[cfg(feature = "grpc")]
    grpc_address: SocketAddr,
    registry: Addr<ModelRegistry>,
    system: actix_rt::System,
}

/// An answer with raw tensors behind its JSON, or without.
#[derive(Debug)]
pub(crate) struct Binary {
    pub(crate) status: u16,
    pub(crate) content_type: String,
    pub(crate) json: Value,
    pub(crate) tensors: Vec<u8>,
}

/// A service on a thread of its own, stopped at the end of the test.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    #[cfg(feature = "grpc")]
    pub(crate) grpc_address: SocketAddr,
    pub(crate) folder: tempfile::TempDir,
    pub(crate) registry: Addr<ModelRegistry>,
    system: actix_rt::System,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub(crate) fn start() -> Self {
        Self::start_with(ServiceLimits::default())
    }

    pub(crate) fn start_with(limits: ServiceLimits) -> Self {
        Self::start_as(limits, true)
    }

    /// `control`: callers may load and unload models, and change the registry.
    pub(crate) fn start_as(limits: ServiceLimits, control: bool) -> Self {
        Self::run(async move |registry: Addr<ModelRegistry>, _| {
            let actors = registry_actors(&registry);
            let state = state(registry, limits, |_| {}).with_model_control(control);
            state.with_registry(actors, control)
        })
    }

    pub(crate) fn start_stub() -> Self {
        Self::run(async |_, _| stub_state())
    }

    pub(crate) fn run(
        state: impl AsyncFnOnce(Addr<ModelRegistry>, LogFeed) -> ServiceState + Send + 'static,
    ) -> Self {
        Self::run_over(|store| store, state)
    }

    /// `over`: what stands between the registry and its folder.
    pub(crate) fn run_over(
        over: impl FnOnce(Arc<dyn ObjectStore>) -> Arc<dyn ObjectStore>,
        state: impl AsyncFnOnce(Addr<ModelRegistry>, LogFeed) -> ServiceState + Send + 'static,
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store =
            open_store(&folder.path().display().to_string(), folder.path()).unwrap().objects;
        let store = over(store);
        let (sender, receiver) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let system = actix_rt::System::new();
            system.block_on(async move {
                let store = RegistryStore::new(store).start();
                let (seen, log) = watch::channel(None);
                let registry =
                    ModelRegistry::keeping(None, RegistryStore::link(&store), seen).start();
                for message in [sum("a", 1.0), sum("b", 2.0), pick()] {
                    registry.send(message).await.unwrap().unwrap();
                }
                let (model, alias) = ("sum".into(), "production".into());
                let set = SetAlias { model, alias, version: "1".parse().unwrap() };
                registry.send(set).await.unwrap().unwrap();
                let state = state(registry.clone(), log).await;
                let anywhere = ([127, 0, 0, 1], 0).into();
                let service = Service::start(anywhere, state.clone(), 2).unwrap();
                #[cfg(feature = "grpc")]
                let grpc = gradmesh::service::GrpcService::start(anywhere, state).unwrap();
                let started = Started {
                    address: service.address(),
                    #[cfg(feature = "grpc")]
                    grpc_address: grpc.address(),
                    registry,
                    system: actix_rt::System::current(),
                };
                sender.send(started).unwrap();
                // It ends where nobody could stop it any more.
                #[cfg(feature = "grpc")]
                actix_rt::spawn(async move {
                    std::future::pending::<()>().await;
                    drop(grpc);
                });
            });
            system.run().unwrap();
        });
        let started = receiver.recv().unwrap();
        Self {
            address: started.address,
            #[cfg(feature = "grpc")]
            grpc_address: started.grpc_address,
            folder,
            registry: started.registry,
            system: started.system,
            thread: Some(thread),
        }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) fn agent(&self) -> ureq::Agent {
        let config = ureq::Agent::config_builder().http_status_as_error(false);
        config.timeout_global(Some(Duration::from_secs(30))).build().into()
    }

    pub(crate) fn get(&self, path: &str) -> (u16, Value) {
        json_of(self.agent().get(self.url(path)).call().unwrap())
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        self.post_text(path, &body.to_string())
    }

    pub(crate) fn post_text(&self, path: &str, body: &str) -> (u16, Value) {
        json_of(self.agent().post(self.url(path)).send(body).unwrap())
    }

    pub(crate) fn infer(&self, model: &str, body: &Value) -> (u16, Value) {
        self.post(&format!("/v2/models/{model}/infer"), body)
    }

    /// Sends these bytes with `Inference-Header-Content-Length`.
    pub(crate) fn binary(&self, path: &str, json_length: &str, body: &[u8]) -> Binary {
        let request = self.agent().post(self.url(path));
        let sent = request.header("inference-header-content-length", json_length).send(body);
        let mut answer = sent.unwrap();
        let header = |name| answer.headers().get(name).map(|v| v.to_str().unwrap().to_owned());
        let content_type = header("content-type").unwrap();
        let json_length = header("inference-header-content-length");
        let bytes = answer.body_mut().read_to_vec().unwrap();
        let json_length = json_length.map_or(bytes.len(), |length| length.parse().unwrap());
        let (json, tensors) = bytes.split_at(json_length);
        Binary {
            status: answer.status().as_u16(),
            content_type,
            json: serde_json::from_slice(json).unwrap(),
            tensors: tensors.to_vec(),
        }
    }

    /// Inference requests that are counted as given up by their senders.
    pub(crate) fn given_up(&self) -> usize {
        let mut page = self.agent().get(self.url("/metrics")).call().unwrap();
        let page = page.body_mut().read_to_string().unwrap();
        let name = "gradmesh_inference_requests_total{model=\"\",code=\"499\"} ";
        let count = page.lines().find_map(|line| line.strip_prefix(name));
        count.map_or(0, |count| count.parse().unwrap())
    }

    pub(crate) fn still_answers(&self) {
        assert_eq!(self.infer("pick", &rows(&[0.5, 0.5])).0, 200);
    }

    /// Sends these bytes and returns all that comes back.
    pub(crate) fn raw(&self, request: &str) -> String {
        String::from_utf8(self.raw_bytes(request.as_bytes())).unwrap()
    }

    pub(crate) fn raw_bytes(&self, request: &[u8]) -> Vec<u8> {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        stream.write_all(request).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        answer
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.system.stop();
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

/// A service with one predictor, which is made of these parts after `change`.
pub(crate) fn state(
    registry: Addr<ModelRegistry>,
    limits: ServiceLimits,
    change: impl FnOnce(&mut PredictorParts),
) -> ServiceState {
    let (find, fetch) = (registry.clone().recipient(), registry.clone().recipient());
    let (offers, offer) = watch::channel(Default::default());
    let mut parts = PredictorParts::new(kinds(), offers, find.clone(), fetch);
    change(&mut parts);
    let predictor = Predictor::new(parts).start();
    let actors = ServiceActors {
        predict: predictor.clone().recipient(),
        load: predictor.clone().recipient(),
        unload: predictor.recipient(),
        offer,
        find,
        list: registry.recipient(),
    };
    ServiceState::new(actors, Metrics::new(), limits)
}

/// The whole registry, for callers who may change it.
pub(crate) fn registry_actors(registry: &Addr<ModelRegistry>) -> RegistryActors {
    RegistryActors {
        records: registry.clone().recipient(),
        edit: registry.clone().recipient(),
        set_alias: registry.clone().recipient(),
        remove_alias: registry.clone().recipient(),
        delete: registry.clone().recipient(),
        fetch: registry.clone().recipient(),
    }
}

fn json_of(mut answer: ureq::http::Response<ureq::Body>) -> (u16, Value) {
    assert_eq!(answer.headers()["content-type"], "application/json");
    (answer.status().as_u16(), answer.body_mut().read_json().unwrap())
}

pub(crate) fn stub_state() -> ServiceState {
    stub_state_within(Duration::from_millis(50))
}

/// The same, where predictions are waited for so long.
pub(crate) fn stub_state_within(infer: Duration) -> ServiceState {
    let stub = Stub.start();
    let limits = ServiceLimits { infer, ..ServiceLimits::default() };
    let actors = ServiceActors {
        predict: stub.clone().recipient(),
        load: stub.clone().recipient(),
        unload: stub.clone().recipient(),
        offer: watch::channel(Default::default()).1,
        find: stub.clone().recipient(),
        list: stub.recipient(),
    };
    ServiceState::new(actors, Metrics::new(), limits).with_model_control(true)
}

/// A registry whose store is gone, and a predictor that never ends for the model `slow`.
struct Stub;

impl Actor for Stub {
    type Context = Context<Self>;
}

impl Handler<Predict> for Stub {
    type Result = ResponseFuture<Result<Prediction, PredictError>>;

    fn handle(&mut self, predict: Predict, _: &mut Self::Context) -> Self::Result {
        Box::pin(async move {
            if predict.model == "slow" {
                std::future::pending::<()>().await;
            }
            Err(FindError::Store(RegistryStoreError::Gone).into())
        })
    }
}

impl Handler<LoadModel> for Stub {
    type Result = Result<ModelLoaded, PredictError>;

    fn handle(&mut self, _: LoadModel, _: &mut Self::Context) -> Self::Result {
        Err(FindError::Store(RegistryStoreError::Gone).into())
    }
}

impl Handler<UnloadModel> for Stub {
    type Result = Result<ModelUnloaded, PredictError>;

    fn handle(&mut self, _: UnloadModel, _: &mut Self::Context) -> Self::Result {
        Err(FindError::Store(RegistryStoreError::Gone).into())
    }
}

impl Handler<FindModel> for Stub {
    type Result = Result<VersionDescription, FindError>;

    fn handle(&mut self, _: FindModel, _: &mut Self::Context) -> Self::Result {
        Err(RegistryStoreError::Gone.into())
    }
}

impl Handler<ListModels> for Stub {
    type Result = Result<ModelList, FindError>;

    fn handle(&mut self, _: ListModels, _: &mut Self::Context) -> Self::Result {
        Err(RegistryStoreError::Gone.into())
    }
}

/// `sum` answers the sum of a row times its weight, and panics at 13; `pick` answers the row.
#[derive(Debug)]
struct Toy {
    outputs: usize,
}

impl Model for Toy {
    fn tensors(&self) -> Vec<TensorSpec> {
        vec![TensorSpec::new("w", vec![1], Init::Zeros)]
    }

    fn features(&self) -> usize {
        2
    }

    fn outputs(&self) -> usize {
        self.outputs
    }

    fn gradient(&self, _: &[f32], _: Batch<'_>, _: &mut [f32]) -> f64 {
        0.0
    }

    fn predict(&self, parameters: &[f32], inputs: ArrayView2<'_, f32>) -> Array2<f32> {
        assert!(inputs[[0, 0]] != 13.0, "thirteen");
        Array2::from_shape_fn((inputs.nrows(), self.outputs), |(row, output)| {
            if self.outputs == 1 {
                parameters[0] * inputs.row(row).sum()
            } else {
                inputs[[row, output]]
            }
        })
    }

    fn evaluate(&self, _: &[f32], _: Batch<'_>) -> Score {
        Score::default()
    }

    fn describe(&self) -> ModelDescription {
        toy(self.outputs)
    }
}

pub(crate) fn kinds() -> ModelKinds {
    let mut kinds = ModelKinds::builtin();
    kinds.register("toy", |settings| {
        let outputs = settings["outputs"].as_u64().unwrap_or(1) as usize;
        Ok(Arc::new(Toy { outputs }))
    });
    crate::tensors::register(&mut kinds);
    crate::openai::register(&mut kinds);
    kinds
}

fn toy(outputs: usize) -> ModelDescription {
    ModelDescription { kind: "toy".into(), settings: json!({ "outputs": outputs }) }
}

pub(crate) fn sum(run: &str, weight: f32) -> PublishModel {
    publication("sum", run, 1, weight)
}

fn pick() -> PublishModel {
    publication("pick", "a", 2, 0.0)
}

fn publication(model: &str, run: &str, outputs: usize, weight: f32) -> PublishModel {
    let description = NewVersion {
        model: model.into(),
        architecture: toy(outputs),
        tensors: vec![TensorShape { name: "w".into(), shape: vec![1] }],
        features: 2,
        outputs,
        classes: (outputs > 1).then_some(outputs),
        scaling: Scaling::None,
        job: json!({}),
        job_digest: "job".into(),
        data_digest: "data".into(),
        run: run.into(),
        digest: format!("state of {run}"),
        steps: 1,
        epochs: 1,
        metrics: [("loss".to_owned(), 0.5)].into(),
        created_unix_ms: 1,
        signature: None,
        made_of: Vec::new(),
        parent: None,
    };
    PublishModel { description, tensors: vec![vec![weight].into()], file: None }
}
