//! The processes, and the configuration that they share.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use gradmesh::config::{Config, NodeConfig, Role};
use tokio::process::{Child, Command};
use tokio::time::Instant;

/// A shard a server, a process a node.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) coordinators: usize,
    pub(crate) servers: usize,
    pub(crate) replicas: usize,
    pub(crate) workers: usize,
    /// Rows of a step.
    pub(crate) batch: usize,
}

/// As `node up`.
const RESTART_AFTER: Duration = Duration::from_millis(200);

pub(crate) struct Cluster {
    config: PathBuf,
    folder: PathBuf,
    nodes: Vec<Node>,
}

struct Node {
    name: String,
    child: Option<Child>,
    start_at: Instant,
}

/// The configuration of the cluster, and the file of the calm run.
pub(crate) fn prepare(folder: &Path, epochs: usize, shape: Shape) -> (Config, PathBuf) {
    let sets = [
        format!("job.epochs={epochs}"),
        format!("servers.shards={}", shape.servers),
        format!("servers.replicas={}", shape.replicas),
        format!("workers.count={}", shape.workers),
        format!("job.batch_size={}", shape.batch),
        format!("checkpoint.store={}", folder.join("checkpoints").display()),
        format!("coordination.store={}", folder.join("coordination").display()),
        format!("registry.store={}", folder.join("registry").display()),
        format!("service.listen={}", free_address()),
    ];
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("cluster.toml");
    let mut config = Config::load(&file, &sets, std::iter::empty()).unwrap();
    let mut calm = config.clone();
    calm.checkpoint.store = folder.join("calm").display().to_string();
    calm.registry.store = folder.join("calm-registry").display().to_string();
    let calm_file = folder.join("calm.toml");
    std::fs::write(&calm_file, calm.to_toml().unwrap()).unwrap();
    let mut node = |name: String, roles: &[Role]| {
        let (address, roles) = (free_address(), roles.to_vec());
        config.nodes.push(NodeConfig { name, address, roles, listen: None, grpc_listen: None });
    };
    for at in 0..shape.coordinators {
        node(format!("main-{at}"), &[Role::Coordinator, Role::Registry]);
    }
    (0..shape.servers).for_each(|at| node(format!("ps-{at}"), &[Role::Server]));
    (0..shape.workers).for_each(|at| node(format!("worker-{at}"), &[Role::Worker]));
    std::fs::write(folder.join("cluster.toml"), config.to_toml().unwrap()).unwrap();
    (config, calm_file)
}

fn free_address() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap()
}

fn node(config: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_node"));
    command.arg("--config").arg(config).kill_on_drop(true).stdin(Stdio::piped());
    command
}

impl Cluster {
    pub(crate) fn start(config: &Config, folder: &Path) -> Self {
        let fresh = |node: &NodeConfig| Node {
            name: node.name.clone(),
            child: None,
            start_at: Instant::now(),
        };
        let nodes = config.nodes.iter().map(fresh).collect();
        let mut cluster =
            Self { config: folder.join("cluster.toml"), folder: folder.to_owned(), nodes };
        cluster.look();
        cluster
    }

    /// Starts again what has ended.
    pub(crate) fn look(&mut self) {
        for node in &mut self.nodes {
            if let Some(child) = &mut node.child
                && child.try_wait().unwrap().is_some()
            {
                node.child = None;
                node.start_at = Instant::now() + RESTART_AFTER;
            }
            if node.child.is_none() && node.start_at <= Instant::now() {
                node.child = Some(start(&self.config, &self.folder, &node.name));
            }
        }
    }

    pub(crate) fn kill(&mut self, name: &str) {
        let node = self.nodes.iter_mut().find(|node| node.name == name).unwrap();
        node.child.as_mut().unwrap().start_kill().unwrap();
    }

    pub(crate) async fn end(&mut self) {
        for child in self.nodes.iter_mut().filter_map(|node| node.child.as_mut()) {
            child.kill().await.unwrap();
        }
    }
}

fn start(config: &Path, folder: &Path, name: &str) -> Child {
    let log = File::options().create(true).append(true).open(folder.join(format!("{name}.log")));
    let mut command = node(config);
    // Ends with this process, however that ends.
    command.args(["run", "--until-stdin-ends", "--name", name]);
    command.stdout(Stdio::null()).stderr(log.unwrap()).spawn().unwrap()
}

/// The same job in one process.
pub(crate) async fn calm_digest(config: &Path) -> String {
    let mut command = node(config);
    command.args(["--json", "--log", "error", "train"]);
    let output = command.stdout(Stdio::piped()).spawn().unwrap().wait_with_output().await.unwrap();
    let summary: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    summary["digest"].as_str().expect("the calm run's digest").to_owned()
}
