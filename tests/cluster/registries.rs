//! Two registries and three services over one folder: any of them may go.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use gradmesh::node::RegistryLinks;
use gradmesh::transport::TcpTransport;
use gradmesh_actors::messages::{
    FetchModel, FetchedModel, FindModel, ListModels, PublishModel, SetAlias, ask,
};
use gradmesh_actors::new_version::NewVersion;
use gradmesh_actors::version::{VersionDescription, VersionRef};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::support::{Job, Running};

const MODEL: &str = "digits";
const LIMIT: Duration = Duration::from_secs(20);

/// A trained version in the folder, and what runs over it.
struct Nodes {
    job: Job,
    running: BTreeMap<&'static str, Running>,
}

impl Nodes {
    fn start(names: &[&'static str]) -> Self {
        let job = Job::two_registries(&["job.epochs=1"]);
        // One process trains into the folder before there are any others.
        let trainer = Job::embedded(&["job.epochs=1"]);
        trainer.train();
        std::fs::create_dir_all(job.path("store")).unwrap();
        std::fs::rename(trainer.path("store/registry"), job.path("store/registry")).unwrap();
        let mut nodes = Self { job, running: BTreeMap::new() };
        for name in names {
            nodes.run(name);
        }
        nodes
    }

    fn run(&mut self, name: &'static str) {
        let mut node = self.job.start(&["run", "--name", name]);
        node.wait_for_line("serving on http://");
        self.running.insert(name, node);
    }

    fn kill(&mut self, name: &str) {
        self.running.remove(name).unwrap().kill();
    }

    fn url(&self, name: &str, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.job.port(&format!("http-{name}")))
    }

    fn get(&self, name: &str, path: &str) -> (u16, String) {
        let mut answer = agent().get(self.url(name, path)).call().unwrap();
        (answer.status().as_u16(), answer.body_mut().read_to_string().unwrap())
    }

    /// Predicts in a thread of its own, again and again.
    fn client(&self, name: &str, version: &str) -> Client {
        let version = if version.is_empty() { "" } else { &format!("/versions/{version}") };
        Client::start(self.url(name, &format!("/v2/models/{MODEL}{version}/infer")))
    }

    fn registries(&self) -> RegistryLinks {
        let transport = Rc::new(TcpTransport);
        RegistryLinks::of_cluster(&self.job.load(), "test", transport).unwrap()
    }
}

fn agent() -> ureq::Agent {
    let config = ureq::Agent::config_builder().http_status_as_error(false);
    config.timeout_global(Some(LIMIT)).build().into()
}

fn infer(agent: &ureq::Agent, url: &str) -> Result<u64, String> {
    let row = json!({ "inputs": [{
        "name": "input", "datatype": "FP32", "shape": [1, 64], "data": vec![0.5; 64],
    }] });
    let mut answer = agent.post(url).send(row.to_string()).map_err(|error| error.to_string())?;
    let text = answer.body_mut().read_to_string().map_err(|error| error.to_string())?;
    let body: Value = serde_json::from_str(&text).map_err(|error| format!("{error}: {text}"))?;
    body["model_version"].as_str().and_then(|version| version.parse().ok()).ok_or(text)
}

/// What a client has seen.
#[derive(Default)]
struct Seen {
    stop: AtomicBool,
    answers: AtomicU64,
    newest: AtomicU64,
    slowest_us: AtomicU64,
}

struct Client {
    seen: Arc<Seen>,
    thread: JoinHandle<Vec<String>>,
}

impl Client {
    fn start(url: String) -> Self {
        let seen = Arc::new(Seen::default());
        let shared = Arc::clone(&seen);
        let thread = std::thread::spawn(move || {
            let (agent, mut failed) = (agent(), Vec::new());
            while !shared.stop.load(Ordering::Relaxed) {
                let began = Instant::now();
                match infer(&agent, &url) {
                    Ok(version) => drop(shared.newest.fetch_max(version, Ordering::Relaxed)),
                    Err(error) => failed.push(error),
                }
                let took = began.elapsed().as_micros().try_into().unwrap();
                shared.slowest_us.fetch_max(took, Ordering::Relaxed);
                shared.answers.fetch_add(1, Ordering::Relaxed);
            }
            failed
        });
        Self { seen, thread }
    }

    /// Until it has had so many more answers.
    fn wait_for(&self, more: u64) {
        let goal = self.seen.answers.load(Ordering::Relaxed) + more;
        self.wait(|seen| seen.answers.load(Ordering::Relaxed) >= goal);
    }

    fn wait(&self, reached: impl Fn(&Seen) -> bool) {
        let until = Instant::now() + LIMIT;
        while !reached(&self.seen) {
            assert!(Instant::now() < until, "not reached in time");
            assert!(!self.thread.is_finished(), "the client has ended");
            std::thread::yield_now();
        }
    }

    /// The slowest answer so far; counts anew.
    fn slowest(&self) -> Duration {
        Duration::from_micros(self.seen.slowest_us.swap(0, Ordering::Relaxed))
    }

    /// Ends it. None of its answers may have been an error.
    #[track_caller]
    fn end(self) {
        self.seen.stop.store(true, Ordering::Relaxed);
        let failed = self.thread.join().unwrap();
        assert_eq!(failed, [""; 0], "{} of {:?}", failed.len(), self.seen.answers);
    }
}

fn new_version(of: &VersionDescription, run: String) -> NewVersion {
    NewVersion { run, ..of.clone().into() }
}

/// Publishes runs of one model, whoever answers.
struct Publisher {
    links: RegistryLinks,
    first: FetchedModel,
    versions: BTreeMap<String, u64>,
}

impl Publisher {
    async fn new(nodes: &Nodes) -> Self {
        let links = nodes.registries();
        let fetch = FetchModel { model: MODEL.into(), version: VersionRef::Latest };
        let first = ask(&links.fetch, fetch, LIMIT).await.unwrap();
        let versions = [(first.description.run.clone(), first.description.version)].into();
        Self { links, first, versions }
    }

    /// One more run, published twice as by somebody who lost the first answer, and an alias on it.
    async fn publish(&mut self) -> u64 {
        let run = format!("run {}", self.versions.len());
        let description = new_version(&self.first.description, run.clone());
        let message = PublishModel { description, tensors: self.first.tensors.clone(), file: None };
        let published = ask(&self.links.publish, message.clone(), LIMIT).await.unwrap();
        let again = ask(&self.links.publish, message, LIMIT).await.unwrap();
        assert_eq!((again.version, again.already), (published.version, true));
        let alias = "production".to_owned();
        let version = VersionRef::Number(published.version);
        let set = SetAlias { model: MODEL.into(), alias, version };
        assert_eq!(
            ask(&self.links.set_alias, set, LIMIT).await.unwrap().version,
            published.version
        );
        assert_eq!(self.versions.insert(run, published.version), None);
        published.version
    }

    /// What the registries say is what they have answered.
    async fn check(&self) {
        let list = ask(&self.links.list, ListModels {}, LIMIT).await.unwrap();
        let mut expected: Vec<u64> = self.versions.values().copied().collect();
        expected.sort_unstable();
        assert_eq!(list.models[0].versions, expected);
        let newest = expected.last().copied().unwrap();
        assert_eq!(list.models[0].aliases["production"], newest);
        for (run, version) in &self.versions {
            let version = VersionRef::Number(*version);
            let find = FindModel { model: MODEL.into(), version };
            assert_eq!(ask(&self.links.find, find, LIMIT).await.unwrap().run, *run);
        }
    }
}

#[test]
fn a_killed_registry_fails_no_request_of_the_services_that_are_left() {
    let mut nodes = Nodes::start(&["a", "b", "c"]);
    actix_rt::System::new().block_on(async {
        let mut publisher = Publisher::new(&nodes).await;
        for (victim, survivor) in [("a", "b"), ("b", "a")] {
            publisher.publish().await;
            let clients = [
                nodes.client(survivor, ""),
                nodes.client(survivor, "production"),
                // It has no registry of its own.
                nodes.client("c", ""),
                nodes.client("c", "production"),
            ];
            clients.iter().for_each(|client| client.wait_for(50));
            let calm = clients.each_ref().map(Client::slowest);

            nodes.kill(victim);
            let killed = Instant::now();
            publisher.publish().await;
            let published = killed.elapsed();
            for _ in 0..5 {
                publisher.publish().await;
            }
            let newest = publisher.publish().await;
            for client in &clients {
                client.wait(|seen| seen.newest.load(Ordering::Relaxed) == newest);
                client.wait_for(50);
            }
            let slowest = clients.each_ref().map(Client::slowest);
            eprintln!(
                "{victim} killed: published twice and named after {published:?}; slowest prediction {slowest:?}, before {calm:?}"
            );
            clients.into_iter().for_each(Client::end);
            publisher.check().await;

            nodes.run(victim);
            let back = nodes.client(victim, "production");
            back.wait(|seen| seen.newest.load(Ordering::Relaxed) == newest);
            back.end();
            publisher.check().await;
        }
    });
}

#[test]
fn a_stopped_registry_costs_a_service_a_moment_and_wakes_up_with_what_the_other_did() {
    let nodes = Nodes::start(&["a", "b", "c"]);
    actix_rt::System::new().block_on(async {
        let mut publisher = Publisher::new(&nodes).await;
        publisher.publish().await;
        for (victim, survivor) in [("a", "b"), ("b", "a")] {
            let clients = [nodes.client(survivor, ""), nodes.client("c", "production")];
            clients.iter().for_each(|client| client.wait_for(50));
            nodes.running[victim].signal(Signal::SIGSTOP);
            let stopped = Instant::now();
            let newest = publisher.publish().await;
            let published = stopped.elapsed();
            for client in &clients {
                client.wait(|seen| seen.newest.load(Ordering::Relaxed) == newest);
            }
            let slowest = clients.each_ref().map(Client::slowest);
            eprintln!("{victim} stopped: published after {published:?}; slowest {slowest:?}");
            nodes.running[victim].signal(Signal::SIGCONT);
            // The first answer of the one that slept is not one of the time before.
            let url = nodes.url(victim, &format!("/v2/models/{MODEL}/infer"));
            assert_eq!(infer(&agent(), &url), Ok(newest));
            clients.into_iter().for_each(Client::end);
            publisher.check().await;
        }
    });
}

#[test]
fn without_any_registry_a_service_answers_with_what_it_has_and_says_so() {
    let mut nodes = Nodes::start(&["a", "b", "c"]);
    let client = nodes.client("c", "");
    client.wait_for(20);
    nodes.kill("a");
    nodes.kill("b");
    client.wait_for(200);
    assert_eq!(nodes.get("c", "/v2/health/ready").0, 200);
    let metrics = nodes.get("c", "/metrics").1;
    assert!(metrics.contains("gradmesh_registry_away 1\n"), "{metrics}");
    // What it has never heard of it can't answer.
    let unknown = nodes.url("c", &format!("/v2/models/{MODEL}/versions/staging/infer"));
    let refused = infer(&agent(), &unknown).unwrap_err();
    let unanswered = ["broke or can't be made", "no answer within"];
    assert!(unanswered.iter().any(|words| refused.contains(words)), "{refused}");

    nodes.run("a");
    client.wait(|_| nodes.get("c", "/metrics").1.contains("gradmesh_registry_away 0\n"));
    client.end();

    // One that starts while there is none is not ready, and is once there is.
    nodes.kill("a");
    nodes.kill("c");
    nodes.run("c");
    assert_eq!(nodes.get("c", "/v2/health/ready").0, 503);
    nodes.run("b");
    assert_eq!(nodes.get("c", "/v2/health/ready").0, 200);
}

#[test]
fn models_are_asked_of_any_registry_that_answers_and_of_the_store_where_none_does() {
    let mut nodes = Nodes::start(&["a", "b"]);
    let versions = |nodes: &Nodes, elsewhere: bool| {
        // A machine that doesn't have the store.
        let store = format!("registry.store={}", nodes.job.path("elsewhere").display());
        let set = if elsewhere { vec!["--set", store.as_str()] } else { vec![] };
        let asked = nodes.job.run(&[&["models", "list", "--json"][..], &set].concat());
        assert_eq!(asked.status.code(), Some(0), "{asked}");
        let list: Value = serde_json::from_str(&asked.stdout).unwrap();
        list[0]["versions"].clone()
    };
    assert_eq!(versions(&nodes, true), json!([1]));
    nodes.kill("a");
    assert_eq!(versions(&nodes, true), json!([1]));
    let named = nodes.job.run(&["models", "alias", MODEL, "production", "1"]);
    assert!(named.stdout.contains("production of digits is version 1 now"), "{named}");
    nodes.kill("b");
    assert_eq!(versions(&nodes, false), json!([1]));
}
