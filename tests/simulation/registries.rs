//! Two registries over one store, two coordinators that publish the same runs, somebody who sets
//! aliases and deletes, and somebody who serves. Under whatever faults: each run is published once,
//! numbers are never given again, and what is served was published.

#![allow(clippy::print_stderr, reason = "says what was seen where a check fails")]

use std::collections::{BTreeMap, BTreeSet};
use std::future::pending;
use std::path::Path;
use std::time::Duration;

use actix::{Actor, Addr, Recipient};
use gradmesh::actors::catalog::{Catalog, CatalogError, LogEntry};
use gradmesh::actors::dataset::Scaling;
use gradmesh::actors::messages::{
    ChangeError, DeleteVersion, FetchModel, FindError, FindModel, PublishModel, ReadLog, Sealed,
    SetAlias, TryAnother, WireMessage, ask,
};
use gradmesh::actors::model::ModelDescription;
use gradmesh::actors::model_registry::ModelRegistry;
use gradmesh::actors::new_version::NewVersion;
use gradmesh::actors::version::{TensorShape, VersionRef};
use gradmesh::node::NodeContext;
use gradmesh::peer::{AnyOf, Proxy, Standing};
use gradmesh::router::Router;
use gradmesh::sim::{Sim, SimNode, Swarm, World};
use gradmesh::store::RegistryStore;
use gradmesh::wire::{Role, Target};

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

/// Lets names mean the newest version, and deletes the first one.
async fn operator(node: SimNode) -> Result<(), String> {
    let registries = Registries::new(&node, 0);
    let (set, delete) = (registries.any::<SetAlias>(), registries.any::<DeleteVersion>());
    loop {
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
    };
    let mark = run.bytes().map(f32::from).sum::<f32>();
    PublishModel { description, tensors: vec![vec![mark, 1.0].into()] }
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
        of("service").is_none() || of("service") == of("auditor")
    })
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
        .at_end("what is served was published", served_was_published)
}
