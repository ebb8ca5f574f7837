//! Two registries over one store, two coordinators that publish the same runs, somebody who sets
//! aliases and deletes, and somebody who serves. Under whatever faults: each run is published once,
//! numbers are never given again, and what is served was published.

#![allow(clippy::print_stderr, reason = "says what was seen where a check fails")]

use std::collections::{BTreeMap, BTreeSet};
use std::future::pending;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Addr, Recipient};
use gradmesh::actors::catalog::{Catalog, CatalogError, LogEntry};
use gradmesh::actors::dataset::Scaling;
use gradmesh::actors::in_memory::Models;
use gradmesh::actors::layout::{Init, TensorSpec};
use gradmesh::actors::messages::{
    ChangeError, DeleteVersion, FetchModel, FindError, FindModel, FindRoute, Predict, PredictError,
    PublishModel, ReadLog, Sealed, SetAlias, SetRoute, TryAnother, WireMessage, ask,
};
use gradmesh::actors::model::{Batch, Model, ModelDescription, ModelKinds, Score};
use gradmesh::actors::model_registry::ModelRegistry;
use gradmesh::actors::new_version::NewVersion;
use gradmesh::actors::predictor::{Predictor, PredictorParts};
use gradmesh::actors::route::{Route, Split};
use gradmesh::actors::version::{TensorShape, VersionRef};
use gradmesh::node::NodeContext;
use gradmesh::peer::{AnyOf, Proxy, Standing};
use gradmesh::router::Router;
use gradmesh::sim::{Sim, SimNode, Swarm, World};
use gradmesh::store::RegistryStore;
use gradmesh::wire::{Role, Target};
use ndarray::{Array2, ArrayView2};
use tokio::sync::watch;

const REGISTRY: Target = Target { role: Role::Registry, index: 0 };
const REGISTRIES: [&str; 2] = ["registry-0", "registry-1"];
const PUBLISHERS: [&str; 2] = ["publisher-0", "publisher-1"];
/// Runs of each publisher alone, and as many of both.
const RUNS: u64 = 6;
const LIMIT: Duration = Duration::from_secs(2);
const FAULTS_UNTIL: Duration = Duration::from_millis(1500);

fn store(node: &SimNode) -> Result<Addr<RegistryStore>, String> {
    let store = node.open_store("registry", Path::new(".")).map_err(|error| error.to_string())?;
    Ok(RegistryStore::new(store).start())
}

async fn registry(node: SimNode) -> Result<(), String> {
    let link = RegistryStore::link(&store(&node)?);
    let registry = ModelRegistry::new(link).start();
    let router = Router::new();
    router.route(REGISTRY, registry.clone().recipient::<PublishModel>());
    router.route(REGISTRY, registry.clone().recipient::<FindModel>());
    router.route(REGISTRY, registry.clone().recipient::<FetchModel>());
    router.route(REGISTRY, registry.clone().recipient::<SetAlias>());
    router.route(REGISTRY, registry.clone().recipient::<SetRoute>());
    router.route(REGISTRY, registry.clone().recipient::<FindRoute>());
    router.route(REGISTRY, registry.recipient::<DeleteVersion>());
    node.serve(&router).await.map_err(|error| error.to_string())?;
    pending().await
}

/// The registries as a client sees them. `first`: whom it asks first.
struct Registries {
    proxies: Vec<Addr<Proxy>>,
    standing: Standing,
}

impl Registries {
    fn new(node: &SimNode, first: usize) -> Self {
        let proxy = |name| Proxy { link: node.link(name), target: REGISTRY }.start();
        let names = REGISTRIES.map(str::to_owned).to_vec();
        Self {
            proxies: REGISTRIES.map(proxy).to_vec(),
            standing: Standing::new(names, None, first),
        }
    }

    fn any<M>(&self) -> Recipient<M>
    where
        M: WireMessage + Clone,
        M::Result: Send,
        M::Refusal: TryAnother,
    {
        let receivers = self.proxies.iter().map(|proxy| proxy.clone().recipient());
        AnyOf::start(receivers.collect(), self.standing.clone(), Duration::from_millis(300))
    }
}

/// Publishes its runs and those of both; starts from the beginning in each life.
async fn publisher(node: SimNode, which: usize) -> Result<(), String> {
    let registries = Registries::new(&node, which);
    let (publish, find) = (registries.any::<PublishModel>(), registries.any::<FindModel>());
    for number in 0..RUNS {
        for run in [format!("shared {number}"), format!("{which} {number}")] {
            let version = loop {
                match ask(&publish, new_version(&run), LIMIT).await {
                    Ok(published) => break Some(published.version),
                    Err(ChangeError::Catalog(CatalogError::RunDeleted { .. })) => break None,
                    Err(error) if error.may_pass() => {}
                    Err(error) => {
                        eprintln!("{run}: {error}");
                        node.show("refused", 1);
                        pending::<()>().await;
                    }
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            };
            let Some(version) = version else { continue };
            node.show(&run, version.cast_signed());
            let asked = FindModel { model: "m".into(), version: VersionRef::Number(version) };
            // Only the first one is ever deleted.
            if let Err(FindError::Catalog(_)) = ask(&find, asked, LIMIT).await
                && version > 1
            {
                node.show("lost", 1);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    node.show("done", 1);
    pending().await
}

/// Lets names mean the newest version, splits requests among them, and deletes the first one.
async fn operator(node: SimNode) -> Result<(), String> {
    let registries = Registries::new(&node, 0);
    let (set, delete) = (registries.any::<SetAlias>(), registries.any::<DeleteVersion>());
    let route = registries.any::<SetRoute>();
    let split = |version, weight| Split { version, weight };
    let mut weight = 0;
    loop {
        weight = (weight + 1) % 4;
        let stable = VersionRef::Alias("stable".to_owned());
        let splits = vec![split(stable, 3), split(VersionRef::Latest, weight)];
        let shadow = (weight == 2).then_some(VersionRef::Latest);
        let set_route = SetRoute { model: "m".to_owned(), route: Some(Route { splits, shadow }) };
        let _ = ask(&route, set_route, LIMIT).await;
        for alias in ["stable", "next"] {
            let (model, alias) = ("m".to_owned(), alias.to_owned());
            let _ = ask(&set, SetAlias { model, alias, version: VersionRef::Latest }, LIMIT).await;
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
        let _ = ask(&delete, DeleteVersion { model: "m".to_owned(), version: 1 }, LIMIT).await;
    }
}

/// Fetches what names mean, as a predictor does, and shows what it got.
async fn service(node: SimNode) -> Result<(), String> {
    let registries = Registries::new(&node, 1);
    let fetch = registries.any::<FetchModel>();
    loop {
        for version in ["latest", "stable"] {
            let version = version.parse().map_err(|error| format!("{error}"))?;
            match ask(&fetch, FetchModel { model: "m".to_owned(), version }, LIMIT).await {
                Ok(fetched) => {
                    let description = &fetched.description;
                    node.show(&format!("version {}", description.version), mark(&description.run));
                    if fetched.tensors != new_version(&description.run).tensors {
                        node.show("foreign", 1);
                    }
                }
                Err(error) if error.may_pass() => {}
                Err(FindError::Catalog(_)) => {}
                Err(error) => {
                    eprintln!("not served: {error}");
                    node.show("damaged", 1);
                }
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
    }
}

/// Multiplies a row by its weights.
#[derive(Debug)]
struct Toy;

impl Model for Toy {
    fn tensors(&self) -> Vec<TensorSpec> {
        vec![TensorSpec::new("w", vec![2], Init::Zeros)]
    }

    fn features(&self) -> usize {
        2
    }

    fn outputs(&self) -> usize {
        1
    }

    fn gradient(&self, _: &[f32], _: Batch<'_>, _: &mut [f32]) -> f64 {
        0.0
    }

    fn predict(&self, parameters: &[f32], inputs: ArrayView2<'_, f32>) -> Array2<f32> {
        let sum = |(row, _)| inputs[[row, 0]] * parameters[0] + inputs[[row, 1]] * parameters[1];
        Array2::from_shape_fn((inputs.nrows(), 1), sum)
    }

    fn evaluate(&self, _: &[f32], _: Batch<'_>) -> Score {
        Score::default()
    }

    fn describe(&self) -> ModelDescription {
        ModelDescription { kind: "toy".into(), settings: serde_json::json!({}) }
    }
}

/// Asks a predictor by name and by route while versions come and go, computes each answer again, and
/// shows which version gave it.
async fn predictor(node: SimNode) -> Result<(), String> {
    let registries = Registries::new(&node, 0);
    let mut kinds = ModelKinds::builtin();
    kinds.register("toy", |_| Ok(Arc::new(Toy)));
    let (find, fetch) = (registries.any::<FindModel>(), registries.any::<FetchModel>());
    let mut parts = PredictorParts::new(kinds, watch::Sender::default(), find, fetch);
    parts.find_route = Some(registries.any::<FindRoute>());
    // Two models have room: versions leave for each other.
    parts.models = Models::new(600);
    let predict = Predictor::new(parts).start().recipient();
    for request in 0u32.. {
        let row = [request as f32, 0.5];
        let version = if request % 3 == 0 { "stable" } else { "latest" };
        let version = version.parse().map_err(|error| format!("{error}"))?;
        let asked = Predict::of_rows("m", version, 1, 2, row.to_vec().into());
        let asked = asked.map_err(|error| format!("{error}"))?;
        let routed = (request % 3 == 1).then(|| format!("{}", request % 16));
        let asked = Predict { routed, ..asked };
        match ask(&predict, asked, LIMIT).await {
            Ok(answer) => {
                let run = answer.digest.strip_prefix("state of ").unwrap_or_default();
                node.show(&format!("version {}", answer.version), mark(run));
                let published = &new_version(run).tensors[0];
                if answer.values().0[..] != [row[0] * published[0] + row[1] * published[1]] {
                    node.show("torn", 1);
                }
            }
            Err(PredictError::Load { .. } | PredictError::Model { .. }) => {
                node.show("damaged", 1);
            }
            // No registry answers, or there is no such version now.
            Err(_) => {}
        }
        tokio::time::sleep(Duration::from_millis(7)).await;
    }
    Ok(())
}

/// Reads the whole log again and again, past the registries.
async fn auditor(node: SimNode) -> Result<(), String> {
    let store = store(&node)?;
    let mut before: Vec<Sealed> = Vec::new();
    loop {
        let read = store.send(ReadLog { known: 0 }).await.map_err(|error| error.to_string())?;
        match read.map_err(|error| error.to_string()).and_then(|log| audit(&before, log)) {
            Ok((log, runs)) => {
                for (version, run) in &runs {
                    node.show(&format!("version {version}"), mark(run));
                }
                node.show("versions", runs.len() as i64);
                before = log;
            }
            Err(problem) => {
                eprintln!("audit: {problem}");
                node.show("problem", 1);
            }
        }
        tokio::time::sleep(Duration::from_millis(15)).await;
    }
}

/// The log and the run of each version in it, if it goes on from the log before.
fn audit(
    before: &[Sealed],
    log: Vec<Sealed>,
) -> Result<(Vec<Sealed>, BTreeMap<u64, String>), String> {
    if !log.starts_with(before) {
        return Err("an entry was changed".to_owned());
    }
    let (mut previous, mut catalog) = (None, Catalog::default());
    let (mut runs, mut seen) = (BTreeMap::new(), BTreeSet::new());
    for sealed in &log {
        if sealed.previous != previous {
            return Err("the chain is broken".to_owned());
        }
        previous = Some(sealed.seal.clone());
        if let LogEntry::Published { description } = &sealed.entry {
            if !seen.insert(description.run.clone()) {
                return Err(format!("{} was published twice", description.run));
            }
            if runs.insert(description.version, description.run.clone()).is_some() {
                return Err(format!("number {} was given twice", description.version));
            }
        }
        catalog.apply(&sealed.entry).map_err(|error| error.to_string())?;
    }
    Ok((log, runs))
}

/// A number for a run.
fn mark(run: &str) -> i64 {
    let hash = blake3::hash(run.as_bytes());
    i64::from_le_bytes(std::array::from_fn(|at| hash.as_bytes()[at]))
}

fn new_version(run: &str) -> PublishModel {
    let description = NewVersion {
        model: "m".into(),
        architecture: ModelDescription { kind: "toy".into(), settings: serde_json::json!({}) },
        tensors: vec![TensorShape { name: "w".into(), shape: vec![2] }],
        features: 2,
        outputs: 1,
        classes: None,
        scaling: Scaling::None,
        job: serde_json::json!({}),
        job_digest: "job".into(),
        data_digest: "data".into(),
        run: run.into(),
        digest: format!("state of {run}"),
        steps: 1,
        epochs: 1,
        metrics: BTreeMap::new(),
        created_unix_ms: 1,
        signature: None,
        made_of: Vec::new(),
        parent: None,
    };
    let mark = run.bytes().map(f32::from).sum::<f32>();
    PublishModel { description, tensors: vec![vec![mark, 1.0].into()], file: None }
}

fn none(node: &'static str, key: &'static str) -> impl Fn(&World<'_>) -> bool + Send + Sync {
    move |world| world.value(node, key).is_none()
}

/// Two coordinators have heard the same number of a run that both have published.
fn agree(world: &World<'_>) -> bool {
    (0..RUNS).all(|number| {
        let heard = PUBLISHERS.map(|name| world.value(name, &format!("shared {number}")));
        heard[0].is_none() || heard[1].is_none() || heard[0] == heard[1]
    })
}

/// Each version that was served is in the log, as the same run's.
fn served_was_published(world: &World<'_>) -> bool {
    (1..=20 * RUNS).all(|version| {
        let of = |node| world.value(node, &format!("version {version}"));
        let published = of("auditor");
        ["service", "predictor"].iter().all(|node| of(node).is_none() || of(node) == published)
    })
}

/// Versions that have answered requests.
fn answered(world: &World<'_>) -> usize {
    let of = |version: &u64| world.value("predictor", &format!("version {version}"));
    (1..=20 * RUNS).filter(|version| of(version).is_some()).count()
}

pub(crate) fn two_registries() -> Sim {
    let mut sim = Sim::new();
    for name in REGISTRIES {
        sim = sim.node(name, registry);
    }
    for (which, name) in PUBLISHERS.into_iter().enumerate() {
        sim = sim.node(name, move |node| publisher(node, which));
        sim = sim.always("no publication is refused for good", none(name, "refused"));
        sim = sim.always("what was acknowledged is found", none(name, "lost"));
    }
    sim.node("operator", operator)
        .node("service", service)
        .node("predictor", predictor)
        .node("auditor", auditor)
        .swarm(Swarm::default().until(FAULTS_UNTIL).faults_max(24))
        .until(|world| {
            let done = PUBLISHERS.iter().all(|name| world.value(name, "done").is_some());
            let all = world.value("auditor", "versions") == Some(3 * RUNS.cast_signed());
            done && all && world.now() > FAULTS_UNTIL + Duration::from_millis(500)
        })
        .limit(Duration::from_secs(60))
        .always("the log is a chain in which each run has one number", none("auditor", "problem"))
        .always("a run has one number wherever it is published", agree)
        .always("a version that is served is whole", none("service", "damaged"))
        .always("a version that is served has its own tensors", none("service", "foreign"))
        .always("a version that answers is whole", none("predictor", "damaged"))
        .always("an answer is that of the version it names", none("predictor", "torn"))
        .sometimes("several versions answer", |world| answered(world) > 3)
        .at_end("what is served was published", served_was_published)
}
