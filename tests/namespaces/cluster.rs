//! A cluster over three hosts: a server and a worker on each, coordinator and registry on the first.

use std::fmt::Write as _;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::network::{HOSTS, Network};

/// Far beyond what anything takes on a busy machine.
const WAIT_MAX: Duration = Duration::from_secs(120);
const PROGRAM: &str = env!("CARGO_BIN_EXE_node");

/// State at the servers: whatever is lost or counted twice changes the digest. Some thousand steps, so
/// that a partition has a middle. No norm over all shards: a primary that is cut off then holds a
/// step that only its replica has not acknowledged.
const SETS: [&str; 9] = [
    "job.epochs=150",
    "servers.shards=3",
    "servers.replicas=1",
    "workers.count=3",
    "checkpoint.every_steps=50",
    "job.optimizer.kind=momentum",
    "job.virtual_workers=6",
    "detector.heartbeat_ms=100",
    "detector.dead_after_ms=1000",
];

#[derive(Debug)]
pub(crate) struct Cluster<'a> {
    network: &'a Network,
    folder: TempDir,
    nodes: Vec<(String, u8)>,
    children: Vec<Child>,
}

/// The digest of the same job in one process.
pub(crate) fn calm_digest() -> &'static str {
    static DIGEST: OnceLock<String> = OnceLock::new();
    DIGEST.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let config = configuration(folder.path(), &[]);
        let output = node(Command::new(PROGRAM), &config).args(["train", "--json"]).output();
        let output = output.unwrap();
        let summary: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
        summary["digest"].as_str().unwrap().to_owned()
    })
}

fn node(mut command: Command, config: &Path) -> Command {
    command.arg("--config").arg(config).args(SETS.iter().flat_map(|set| ["--set", set]));
    command.env_remove("GRADMESH_LOG");
    command
}

fn configuration(folder: &Path, nodes: &[(String, u8)]) -> PathBuf {
    let mut text = include_str!("../../examples/digits.toml")
        .replace("../gradmesh-data/digits", "store")
        .replace("../data", &format!("{}/data", env!("CARGO_MANIFEST_DIR")));
    for ((name, host), port) in nodes.iter().zip(7001..) {
        let roles = match name.split_once('-').unwrap().0 {
            "main" => r#"["coordinator", "registry"]"#,
            role => &format!("[\"{role}\"]"),
        };
        let address = format!("10.77.0.{host}:{port}");
        write!(text, "\n[[nodes]]\nname = \"{name}\"\naddress = \"{address}\"\nroles = {roles}\n")
            .unwrap();
    }
    let file = folder.join("cluster.toml");
    std::fs::write(&file, text).unwrap();
    file
}

impl<'a> Cluster<'a> {
    pub(crate) fn start(network: &'a Network) -> Self {
        let mut nodes = vec![("main-1".to_owned(), 1)];
        for host in HOSTS {
            nodes.extend(["server", "worker"].map(|role| (format!("{role}-{host}"), host)));
        }
        let folder = tempfile::tempdir().unwrap();
        configuration(folder.path(), &nodes);
        let mut cluster = Self { network, folder, nodes, children: Vec::new() };
        for (name, host) in &cluster.nodes {
            let log = File::create(cluster.log_file(name)).unwrap();
            let mut command = cluster.command(*host);
            command.args(["run", "--until-stdin-ends", "--name", name]);
            command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(log);
            cluster.children.push(command.spawn().unwrap());
        }
        cluster
    }

    fn command(&self, host: u8) -> Command {
        node(self.network.on(host, PROGRAM), &self.folder.path().join("cluster.toml"))
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

    /// Asks the coordinator, from its own host, until `reached`.
    #[track_caller]
    pub(crate) fn wait_until(&self, what: &str, reached: impl Fn(&Value) -> bool) -> Value {
        let until = Instant::now() + WAIT_MAX;
        loop {
            let output = self.command(1).args(["--json", "status"]).output().unwrap();
            let status: Value = serde_json::from_slice(&output.stdout).unwrap();
            // Before it listens, and while who leads changes, there is no status.
            if status.get("error").is_none() && reached(&status) {
                return status;
            }
            let phase = &status["progress"]["phase"];
            assert!(phase != "done" && phase != "failed", "no {what}: {status}\n{}", self.logs());
            assert!(Instant::now() < until, "no {what} in time: {status}\n{}", self.logs());
        }
    }

    /// Waits for the digest.
    #[track_caller]
    pub(crate) fn digest(&self) -> String {
        let done = self.wait_until("end", |status| status["progress"]["phase"] == "done");
        done["progress"]["digest"].as_str().unwrap().to_owned()
    }

    /// The last lines of each node.
    fn logs(&self) -> String {
        let mut text = String::new();
        for (name, _) in &self.nodes {
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
