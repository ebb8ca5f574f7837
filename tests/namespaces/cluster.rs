//! A cluster over three hosts: a server and a worker on each, a coordinator and a registry on one or
//! two of them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::network::{HOSTS, Network, address};

/// Far beyond what anything takes on a busy machine.
const WAIT_MAX: Duration = Duration::from_secs(120);
/// Of a host's own, where nobody listens.
const NOWHERE: &str = "127.0.0.1";
const PROGRAM: &str = env!("CARGO_BIN_EXE_node");

/// Steps of a run over three servers, so that a partition has a middle.
const EPOCHS: usize = 250;
/// One server and one worker take many times as many steps a second: more than a thousand while a
/// leader's silence is waited out.
const EPOCHS_OF_ONE: usize = 1000;

/// State at the servers: whatever is lost or counted twice changes the digest. No norm over all shards:
/// a primary that is cut off then holds a step that only its replica has not acknowledged.
const SETS: [&str; 5] = [
    "checkpoint.every_steps=50",
    "job.optimizer.kind=momentum",
    "job.virtual_workers=6",
    "detector.heartbeat_ms=100",
    "detector.dead_after_ms=1000",
];

/// Where things are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup {
    /// Hosts with a coordinator and a registry.
    pub(crate) coordinators: &'static [u8],
    /// Hosts with a server and a worker.
    pub(crate) members: &'static [u8],
    pub(crate) store: Store,
}

/// Where it is kept who coordinates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Store {
    /// In the folder that all hosts see.
    Folder,
    /// On the third host, at an address of its own.
    #[cfg(feature = "etcd")]
    Etcd,
}

impl Setup {
    fn epochs(self) -> usize {
        if self.members.len() == 1 { EPOCHS_OF_ONE } else { EPOCHS }
    }
}

pub(crate) const ONE_COORDINATOR: Setup =
    Setup { coordinators: &[1], members: &HOSTS, store: Store::Folder };

#[derive(Debug)]
pub(crate) struct Cluster<'a> {
    network: &'a Network,
    folder: TempDir,
    setup: Setup,
    nodes: Vec<(String, u8)>,
    children: Vec<Child>,
}

/// The digest of the same job in one process.
pub(crate) fn calm_digest(setup: Setup) -> String {
    static DIGESTS: Mutex<BTreeMap<usize, String>> = Mutex::new(BTreeMap::new());
    // Who waits for the lock wants the same digest.
    let mut digests = DIGESTS.lock().unwrap_or_else(PoisonError::into_inner);
    let train = || {
        let folder = tempfile::tempdir().unwrap();
        let config = configuration(folder.path(), &[], ONE_COORDINATOR);
        let mut command = node(Command::new(PROGRAM), &config, setup);
        let output = command.args(["train", "--json"]).output().unwrap();
        let summary: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
        summary["digest"].as_str().unwrap().to_owned()
    };
    digests.entry(setup.epochs()).or_insert_with(train).clone()
}

/// A shard for each host with a server and a worker.
fn node(mut command: Command, config: &Path, setup: Setup) -> Command {
    command.arg("--config").arg(config).args(SETS.iter().flat_map(|set| ["--set", set]));
    let members = setup.members.len();
    let replicas = usize::from(members > 1);
    let counts = [
        ("servers.shards", members),
        ("workers.count", members),
        ("servers.replicas", replicas),
        ("job.epochs", setup.epochs()),
    ];
    for (key, count) in counts {
        command.arg("--set").arg(format!("{key}={count}"));
    }
    command.env_remove("GRADMESH_LOG");
    command
}

fn configuration(folder: &Path, nodes: &[(String, u8)], setup: Setup) -> PathBuf {
    let mut text = include_str!("../../examples/digits.toml")
        .replace("../gradmesh-data/digits", "store")
        .replace("../data", &format!("{}/data", env!("CARGO_MANIFEST_DIR")));
    match setup.store {
        Store::Folder => {}
        #[cfg(feature = "etcd")]
        Store::Etcd => text = text.replace("store/coordination", &crate::etcd::place()),
    }
    for ((name, host), port) in nodes.iter().zip(7001..) {
        let (role, _) = name.split_once('-').unwrap();
        let roles = match role {
            "main" => r#"["coordinator", "registry"]"#,
            role => &format!("[\"{role}\"]"),
        };
        // Who is not to be asked can't be reached.
        let hidden = role == "main" && !setup.coordinators.contains(host);
        let at = if hidden { NOWHERE.to_owned() } else { address(*host) };
        write!(
            text,
            "\n[[nodes]]\nname = \"{name}\"\naddress = \"{at}:{port}\"\nroles = {roles}\n"
        )
        .unwrap();
    }
    let file = match setup.coordinators {
        [host] => format!("by-{host}.toml"),
        _ => "cluster.toml".to_owned(),
    };
    let file = folder.join(file);
    std::fs::write(&file, text).unwrap();
    file
}

/// Whether a coordinator says that it leads.
pub(crate) fn leads(status: &Value) -> bool {
    status["progress"]["phase"] != "following"
}

impl<'a> Cluster<'a> {
    pub(crate) fn start(network: &'a Network, setup: Setup) -> Self {
        let on = |roles: &[&str], hosts: &[u8]| -> Vec<(String, u8)> {
            let named = |host: &u8| {
                roles.iter().map(|role| (format!("{role}-{host}"), *host)).collect::<Vec<_>>()
            };
            hosts.iter().flat_map(named).collect()
        };
        let nodes =
            [on(&["main"], setup.coordinators), on(&["server", "worker"], setup.members)].concat();
        let folder = tempfile::tempdir().unwrap();
        for host in setup.coordinators {
            // One coordinator is asked alone where the others may say something else.
            let coordinators = std::slice::from_ref(host);
            configuration(folder.path(), &nodes, Setup { coordinators, ..setup });
        }
        let file = configuration(folder.path(), &nodes, setup);
        let mut cluster = Self { network, folder, setup, nodes, children: Vec::new() };
        #[cfg(feature = "etcd")]
        if setup.store == Store::Etcd {
            let server = crate::etcd::start(network, cluster.folder.path());
            cluster.children.push(server);
        }
        for (name, host) in &cluster.nodes {
            let log = File::create(cluster.log_file(name)).unwrap();
            let mut command = cluster.command(*host, &file);
            command.args(["run", "--until-stdin-ends", "--name", name]);
            command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(log);
            cluster.children.push(command.spawn().unwrap());
        }
        cluster
    }

    fn command(&self, host: u8, file: &Path) -> Command {
        node(self.network.on(host, PROGRAM), file, self.setup)
    }

    fn log_file(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("{name}.log"))
    }

    /// Views to which a node has been appointed, in the order of its log.
    pub(crate) fn views_of(&self, name: &str) -> Vec<u64> {
        let log = std::fs::read_to_string(self.log_file(name)).unwrap();
        let appointed = log.lines().filter(|line| line.contains(" appointed "));
        let view = |line: &str| line.split_once("view=view ")?.1.split(' ').next()?.parse().ok();
        appointed.map(|line| view(line).unwrap_or_else(|| panic!("no view in {line}"))).collect()
    }

    /// Steps that were refused to a node because it is the primary no longer.
    pub(crate) fn fenced(&self, name: &str) -> usize {
        let log = std::fs::read_to_string(self.log_file(name)).unwrap();
        log.lines().filter(|line| line.contains("fenced: no longer the primary")).count()
    }

    /// Leaderships that a coordinator has begun.
    pub(crate) fn leaderships(&self, host: u8) -> usize {
        let log = std::fs::read_to_string(self.log_file(&format!("main-{host}"))).unwrap();
        log.lines().filter(|line| line.contains("leading term=")).count()
    }

    /// The host of the coordinator that leads, and that of another one.
    pub(crate) fn leader_and_other(&self) -> (u8, u8) {
        let until = Instant::now() + WAIT_MAX;
        let hosts = self.setup.coordinators;
        loop {
            let leads = |host: &&u8| self.status(**host).is_some_and(|status| leads(&status));
            if let Some(leader) = hosts.iter().find(leads) {
                let other = hosts.iter().find(|host| *host != leader);
                return (*leader, *other.unwrap_or(leader));
            }
            assert!(Instant::now() < until, "nobody leads in time\n{}", self.logs());
        }
    }

    /// What the coordinator of a host says, asked from there. `None` before it listens.
    fn status(&self, host: u8) -> Option<Value> {
        let file = self.folder.path().join(format!("by-{host}.toml"));
        let output = self.command(host, &file).args(["--json", "status"]).output().unwrap();
        let status: Value = serde_json::from_slice(&output.stdout).unwrap();
        status.get("error").is_none().then_some(status)
    }

    /// Asks the coordinator of a host until `reached`.
    #[track_caller]
    pub(crate) fn wait_until(
        &self,
        host: u8,
        what: &str,
        reached: impl Fn(&Value) -> bool,
    ) -> Value {
        let until = Instant::now() + WAIT_MAX;
        loop {
            let status = self.status(host);
            if let Some(status) = status.as_ref().filter(|status| reached(status)) {
                return status.clone();
            }
            let phase = status.as_ref().map(|status| &status["progress"]["phase"]);
            let over = phase.is_some_and(|phase| phase == "done" || phase == "failed");
            let said = || format!("{status:?}\n{}", self.logs());
            assert!(!over, "no {what}: {}", said());
            assert!(Instant::now() < until, "no {what} in time: {}", said());
        }
    }

    /// Waits for the digest, whoever leads in the end.
    #[track_caller]
    pub(crate) fn digest(&self) -> String {
        let until = Instant::now() + WAIT_MAX;
        loop {
            let all = self.setup.coordinators.iter().filter_map(|host| self.status(*host));
            for status in all {
                match status["progress"]["phase"].as_str() {
                    Some("done") => {
                        return status["progress"]["digest"].as_str().unwrap().to_owned();
                    }
                    Some("failed") => panic!("failed: {status}\n{}", self.logs()),
                    _ => {}
                }
            }
            assert!(Instant::now() < until, "no end in time\n{}", self.logs());
        }
    }

    /// The last lines of each node.
    fn logs(&self) -> String {
        let mut text = String::new();
        for name in self.nodes.iter().map(|(name, _)| name.as_str()).chain(["etcd"]) {
            let log = std::fs::read_to_string(self.log_file(name)).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            for line in &lines[lines.len().saturating_sub(12)..] {
                writeln!(text, "{name:>9} | {line}").unwrap();
            }
        }
        text
    }
}

impl Drop for Cluster<'_> {
    fn drop(&mut self) {
        for child in &mut self.children {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
