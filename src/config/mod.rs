//! `cluster.toml` → environment → `--set` → one typed [`Config`].
//!
//! `schema.rs` is the one list of keys; `layers.rs` merges the sources, `check.rs` is the gate after
//! which ranges and relations may be relied on.

mod check;
mod error;
mod kind;
mod layers;
mod lookup;
mod nodes;
mod schema;

use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use gradmesh_actors::job::JobSpec;
use gradmesh_actors::membership::Patience;
use gradmesh_actors::request_queue::Batching;
use serde::{Deserialize, Serialize};

pub use error::{ConfigError, Problem};
pub use kind::{Interval, Kind, NAME_MAX, PATH_MAX, TABLE_DEPTH_MAX, TABLE_MAX};
pub use nodes::{NodeConfig, Role};
pub use schema::{Fallback, Key};

use layers::{Layer, Merged};

/// Largest configuration file, in bytes: 4,096 nodes take a tenth of it.
const FILE_MAX: u64 = 4 << 20;

/// A node whose address refuses calls and whose connections have ended is gone. A link that has lost its
/// connection calls at once and again after 50 ms; until then a node that lives has called again too.
const GONE_AFTER: Duration = Duration::from_millis(50);

/// How a cluster is built and what it trains. Ranges and relations hold, see [`Config::keys`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub cluster: ClusterConfig,
    pub job: JobSpec,
    pub servers: ServersConfig,
    pub workers: WorkersConfig,
    pub checkpoint: CheckpointConfig,
    pub coordination: CoordinationConfig,
    pub registry: RegistryConfig,
    pub service: ServiceConfig,
    pub detector: DetectorConfig,
    pub supervisor: SupervisorConfig,
    /// Empty: one process runs everything.
    pub nodes: Vec<NodeConfig>,
    /// Of the configuration file; what paths are relative to.
    #[serde(skip)]
    pub folder: PathBuf,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterConfig {
    pub name: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServersConfig {
    pub shards: u32,
    /// See [`Config::replicas`].
    pub replicas: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkersConfig {
    pub count: u32,
    /// Slow ones get fewer slots.
    pub rebalance: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckpointConfig {
    /// See [`Config::path`].
    pub store: String,
    pub every_steps: u64,
    /// Newest checkpoints that stay.
    pub keep: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CoordinationConfig {
    /// See [`CoordinationStore::open`](crate::store::coordination::CoordinationStore::open).
    pub store: String,
    /// Four renewals.
    pub lease_ms: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegistryConfig {
    /// See [`Config::path`].
    pub store: String,
    /// Versions of a model; 0: all.
    pub keep: usize,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceConfig {
    pub listen: SocketAddr,
    /// `None`: no gRPC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grpc_listen: Option<SocketAddr>,
    /// Whether callers may unload models and load them again.
    pub model_control: bool,
    /// Whether callers may change the registry.
    pub registry_writes: bool,
    /// `None`: callers need no key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys: Option<String>,
    /// Predictions of one model at a time; 0 is no limit.
    pub model_requests: usize,
    /// Rows of one run of a model.
    pub batch_rows: usize,
    /// How long a request waits for others.
    pub batch_wait_ms: u64,
    /// Requests that wait for one version.
    pub queue: usize,
    /// Threads for runs of models that take long.
    pub instances: usize,
    pub follow: Follow,
    /// Of all models in memory; a megabyte has 2²⁰ bytes.
    pub memory_mb: u64,
}

/// What answers a request that names no version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Follow {
    /// The newest version of the registry.
    Published,
    /// The newest checkpoint of the cluster's job while it runs.
    Job,
}

impl ServiceConfig {
    pub fn batching(&self) -> Batching {
        let wait = Duration::from_millis(self.batch_wait_ms);
        Batching { rows_max: self.batch_rows, wait, queue: self.queue }
    }

    /// Bytes of all models in memory.
    pub fn memory(&self) -> u64 {
        self.memory_mb.saturating_mul(1 << 20)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DetectorConfig {
    pub heartbeat_ms: u64,
    /// At least three heartbeats.
    pub dead_after_ms: u64,
}

impl DetectorConfig {
    /// A node whose address refuses calls is believed dead when one heartbeat is missing, and half
    /// of another one for those that are late; a moment after its connections ended, where they did.
    pub fn patience(&self) -> Patience {
        Patience {
            dead_after: Duration::from_millis(self.dead_after_ms),
            refused_after: Duration::from_millis(self.heartbeat_ms * 3 / 2),
            gone_after: GONE_AFTER,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SupervisorConfig {
    pub restarts_max: u32,
    pub window_seconds: u64,
    /// Before the first restart; doubles with each one in the window.
    pub backoff_ms: u64,
}

impl Config {
    /// Reads a file, lays the environment's `GRADMESH__KEY__SUB` over it, then each `KEY=VALUE` of
    /// `sets`.
    ///
    /// # Errors
    /// The file can't be read, or any value of any source can't be used: all problems at once.
    pub fn load(
        file: &Path,
        sets: &[String],
        env: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let source = file.display().to_string();
        let text = read(file)?;
        let folder = match file.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        Self::build(&text, &source, folder, vec![Layer::environment(env), Layer::sets(sets)])
    }

    /// Reads the text of a configuration file; paths in it are relative to `folder`.
    ///
    /// # Errors
    /// As [`Config::load`]; the text is called `configuration`.
    pub fn from_toml(text: &str, folder: &Path) -> Result<Self, ConfigError> {
        Self::build(text, "configuration", folder, Vec::new())
    }

    /// Nodes with the role server; 1 where one process runs everything.
    #[must_use]
    pub fn servers(&self) -> u32 {
        let is_server = |node: &&NodeConfig| node.roles.contains(&Role::Server);
        let count = self.nodes.iter().filter(is_server).count();
        u32::try_from(count).unwrap_or(u32::MAX).max(1)
    }

    /// Nodes with the role coordinator; 1 where one process runs everything.
    #[must_use]
    pub fn coordinators(&self) -> u32 {
        let coordinates = |node: &&NodeConfig| node.roles.contains(&Role::Coordinator);
        let count = self.nodes.iter().filter(coordinates).count();
        u32::try_from(count).unwrap_or(u32::MAX).max(1)
    }

    /// Copies of each shard beside its primary: never more than there are other servers.
    #[must_use]
    pub fn replicas(&self) -> u32 {
        self.servers.replicas.min(self.servers() - 1)
    }

    /// Every key, those of one node (`nodes.name`) last.
    pub fn keys() -> impl Iterator<Item = &'static Key> {
        schema::KEYS.iter().chain(schema::NODE_KEYS)
    }

    /// Where a path of the configuration lies; an absolute one stays as it is.
    pub fn path(&self, relative: &str) -> PathBuf {
        self.folder.join(relative)
    }

    /// As a file that means the same wherever it lies: every key, and paths from the root.
    ///
    /// # Errors
    /// A number is beyond what TOML has: a seed above 2⁶³.
    #[cfg(feature = "sim")]
    pub fn to_toml(&self) -> Result<String, toml::ser::Error> {
        let mut absolute = self.clone();
        let path = |relative: &str| {
            let path = self.path(relative);
            std::path::absolute(&path).unwrap_or(path).to_string_lossy().into_owned()
        };
        let data = &mut absolute.job.data;
        data.train = path(&data.train);
        for file in [&mut data.train_labels, &mut data.test, &mut data.test_labels] {
            *file = file.as_deref().map(path);
        }
        for store in [
            &mut absolute.checkpoint.store,
            &mut absolute.coordination.store,
            &mut absolute.registry.store,
        ] {
            if !store.contains("://") {
                *store = path(store);
            }
        }
        toml::to_string(&absolute)
    }

    /// BLAKE3 over what all nodes of a cluster must agree on, in hexadecimal: the cluster's name,
    /// the job, the numbers of shards and workers, the steps between checkpoints, the lease of who
    /// coordinates (one with a shorter lease would depose all others), and which node has which
    /// roles. Not where anything lies: data is compared by its content, and each node
    /// may have a way of its own to another one.
    pub fn digest(&self) -> String {
        #[derive(Serialize)]
        struct Agreed<'a> {
            cluster: &'a str,
            job: String,
            servers: &'a ServersConfig,
            workers: &'a WorkersConfig,
            checkpoint_every_steps: u64,
            lease_ms: u64,
            nodes: Vec<(&'a str, &'a [Role])>,
        }
        let agreed = Agreed {
            cluster: &self.cluster.name,
            job: self.job.digest(),
            servers: &self.servers,
            workers: &self.workers,
            checkpoint_every_steps: self.checkpoint.every_steps,
            lease_ms: self.coordination.lease_ms,
            nodes: self.nodes.iter().map(|node| (&*node.name, &*node.roles)).collect(),
        };
        // Strings, numbers and enums always serialise; see `JobSpec::digest`.
        let text = serde_json::to_string(&agreed).unwrap_or_default();
        blake3::hash(text.as_bytes()).to_hex().to_string()
    }

    fn build(
        text: &str,
        source: &str,
        folder: &Path,
        over: Vec<Layer>,
    ) -> Result<Self, ConfigError> {
        let mut layers = vec![Layer::file(text, source)?];
        layers.extend(over);
        let mut problems: Vec<_> = layers.iter_mut().flat_map(Layer::take_problems).collect();
        let merged = Merged::new(layers).map_err(|error| Problem {
            problem: format!("the sources can't be merged: {error}"),
            what_to_do: "report it with this file".to_owned(),
            source: source.to_owned(),
            ..Problem::default()
        })?;
        match check::check(&merged, source) {
            Ok(tree) if problems.is_empty() => {
                let config = serde_json::from_value::<Self>(tree)
                    .map_err(|error| check::unreadable(&error, source))?;
                Ok(Self { folder: folder.to_owned(), ..config })
            }
            Ok(_) => Err(ConfigError { problems }),
            Err(more) => {
                problems.extend(more);
                Err(ConfigError { problems })
            }
        }
    }
}

/// The variables of this process that are text, for [`Config::load`].
///
/// Others can't be meant for it; [`std::env::vars`] would panic at the first of them.
pub fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)))
}

fn read(file: &Path) -> Result<String, Problem> {
    let problem = |problem: String, what_to_do: &str| Problem {
        problem,
        what_to_do: what_to_do.to_owned(),
        source: file.display().to_string(),
        ..Problem::default()
    };
    let unreadable = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            problem("there is no such file".to_owned(), "name the configuration file with --config")
        }
        std::io::ErrorKind::InvalidData => {
            problem("the file is not UTF-8 text".to_owned(), "name another file with --config")
        }
        _ => problem(error.to_string(), "make it readable or name another file with --config"),
    };
    let mut text = String::new();
    let opened = std::fs::File::open(file).map_err(unreadable)?;
    opened.take(FILE_MAX + 1).read_to_string(&mut text).map_err(unreadable)?;
    if text.len() as u64 > FILE_MAX {
        let found = format!("the file is larger than {FILE_MAX} bytes");
        return Err(problem(found, "name another file with --config"));
    }
    Ok(text)
}
