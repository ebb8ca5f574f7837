//! Training: as processes, embedded in one, and the same loop without any actors.

use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, bail};
use gradmesh::config::{Config, NodeConfig, Role};
use gradmesh::node::{NodeBuilder, hello};
use gradmesh::peer::{Link, LinkPolicy, Peer};
use gradmesh::transport::TcpTransport;
use gradmesh::wire::{self, Target};
use gradmesh_actors::ids::{ShardId, Version, View};
use gradmesh_actors::messages::{PullError, PullParameters};
use gradmesh_actors::training::Progress;
use tokio::time::{Instant, sleep, timeout};

use super::Effort;
use super::limits::product_rate;
use super::plain::sample_rate;
use super::row::{Goal, Row, Unit, median};
use crate::chaos::cluster::{Cluster, Ways, stores_in};
use crate::chaos::ports::Ports;

const WORKERS: u32 = 2;
/// Rows of a worker and step: small, as in the peers' figures, and wide.
const ROWS: usize = 64;
const WIDE_ROWS: usize = 256;
const WIDE: [usize; 2] = [2048, 2048];
/// More than any measurement makes.
const EPOCHS: u64 = 1_000_000;
const START_MAX: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(5);
const ANSWER_MAX: Duration = Duration::from_millis(500);

/// What a run did.
struct Run {
    sample_rate: f64,
    /// From the start of its first process, or of its actors, to the first version.
    first_step: Duration,
}

pub(super) async fn rows(
    config: &Config,
    effort: Effort,
    folder: &Path,
) -> anyhow::Result<Vec<Row>> {
    let mut rows = small_rows(config, effort, folder).await?;
    rows.extend(wide_rows(config, effort, folder).await?);
    Ok(rows)
}

fn row(what: &str, limit: &'static str, goal: Goal) -> Row {
    Row::new(format!("training {what}"), limit, Unit::SamplesPerSecond, goal)
}

/// Beside a loop without actors, which sums the rows of a thread as one: so does a worker with one
/// slot. With the configuration's slots the same job could have as many workers.
async fn small_rows(config: &Config, effort: Effort, folder: &Path) -> anyhow::Result<Vec<Row>> {
    let slots = config.job.virtual_workers.max(WORKERS);
    let lean = sized(config, None, ROWS);
    let mut small = lean.clone();
    small.job.virtual_workers = slots;
    let plain = || sample_rate(&lean, WORKERS as usize, effort.training / 2, &config.folder);
    let mut rates = vec![plain()?];
    let (mut runs, mut start) = (Vec::new(), Duration::ZERO);
    for (config, cut) in [(&lean, String::new()), (&small, format!(", {slots} slots"))] {
        let folder = folder.join(format!("{} slots", config.job.virtual_workers));
        std::fs::create_dir(&folder).context("temporary folder")?;
        let run = embedded(config, effort, &folder.join("embedded")).await?;
        let goal = if cut.is_empty() { Goal::AtLeast(0.8) } else { Goal::None };
        runs.push((format!("MLP, one process{cut}"), goal, run.sample_rate));
        let run = processes(config, effort, &folder.join("processes"), &APART).await?;
        runs.push((format!("MLP, processes{cut}"), Goal::None, run.sample_rate));
        rates.push(plain()?);
        start = run.first_step;
    }
    let limit = median(rates.into_iter());
    let of_run =
        |(what, goal, rate): (String, Goal, f64)| row(&what, "no actors", goal).with(rate, limit);
    let mut rows: Vec<Row> = runs.into_iter().map(of_run).collect();
    let what = "start to first step, processes".to_owned();
    let first = Row::new(what, "goal", Unit::Milliseconds, Goal::AtMost(1.0));
    rows.push(first.with(start.as_secs_f64() * 1e3, 1e3));
    Ok(rows)
}

async fn wide_rows(config: &Config, effort: Effort, folder: &Path) -> anyhow::Result<Vec<Row>> {
    let wide = sized(config, Some(&WIDE), WIDE_ROWS);
    // Forward, and backward for weights and, but for the first layer, for inputs.
    let features = wide_features(&wide)?;
    let sizes = [features, WIDE[0], WIDE[1], 10];
    let weights: usize = sizes.windows(2).map(|pair| pair[0] * pair[1]).sum();
    let operations = (6 * weights - 2 * sizes[0] * sizes[1]) as f64;
    let products = || product_rate(WIDE[0], WORKERS as usize, effort.repeats) / operations;
    let mut rows = Vec::new();
    let cases: [(u32, &Nodes, &str, Goal); 2] = [
        (2, &PAIRS, "wide MLP, two processes, each a server and a worker", Goal::AtLeast(0.85)),
        (1, &APART, "wide MLP, processes", Goal::None),
    ];
    for (shards, nodes, what, goal) in cases {
        let mut config = wide.clone();
        config.servers.shards = shards;
        let before = products();
        let run = processes(&config, effort, &folder.join(format!("wide-{shards}")), nodes).await?;
        let limit = (before + products()) / 2.0;
        rows.push(row(what, "products", goal).with(run.sample_rate, limit));
    }
    Ok(rows)
}

fn wide_features(config: &Config) -> anyhow::Result<usize> {
    let job = &config.job;
    Ok(gradmesh::data::open(&job.data, job.model.loss, job.seed, &config.folder)?.shape().features)
}

/// The configuration's data and optimizer with a model of these widths, the peers' where none are
/// given; one slot a worker, of so many rows. The limits train and don't test: a hundredth of the
/// rows is left for tests.
fn sized(config: &Config, hidden: Option<&[usize]>, rows: usize) -> Config {
    let mut config = config.clone();
    config.job.model.kind = "mlp".to_owned();
    config.job.model.hidden = hidden.unwrap_or(&[64, 32]).to_vec();
    config.job.batch_size = rows * WORKERS as usize;
    (config.job.data.test, config.job.data.test_labels) = (None, None);
    config.job.data.test_fraction = 0.01;
    config.job.virtual_workers = WORKERS;
    config.job.epochs = EPOCHS;
    config.workers.count = WORKERS;
    config.servers.shards = 1;
    config.servers.replicas = 0;
    config
}

async fn embedded(config: &Config, effort: Effort, folder: &Path) -> anyhow::Result<Run> {
    let mut config = stores_in(config, folder);
    config.nodes.clear();
    let rows = config.job.batch_size;
    let started = Instant::now();
    let node = NodeBuilder::new(config).serve(false).start().await?;
    let mut status = node.status().context("an embedded node has a coordinator")?;
    let mut measured = Measured::default();
    loop {
        let known = status.borrow_and_update().clone();
        if let Progress::Failed { cause } = &known.progress {
            bail!("training failed: {cause}");
        }
        if measured.saw(known.version, started, effort) {
            break;
        }
        if timeout(START_MAX, status.changed()).await.is_err() {
            bail!("training stands still");
        }
    }
    node.stop().await;
    measured.run(rows)
}

/// The nodes of a cluster with their roles; shard 0 is at the second one.
type Nodes = [(&'static str, &'static [Role])];

const MAIN: (&str, &[Role]) = ("main", &[Role::Coordinator, Role::Registry]);
/// One server, two workers and a coordinator, each a process.
const APART: [(&str, &[Role]); 4] =
    [MAIN, ("ps-0", &[Role::Server]), ("worker-0", &[Role::Worker]), ("worker-1", &[Role::Worker])];
/// A server and a worker in each of two processes, as others that sum gradients without a server do,
/// and a coordinator.
const PAIRS: [(&str, &[Role]); 3] =
    [MAIN, ("both-0", &[Role::Server, Role::Worker]), ("both-1", &[Role::Server, Role::Worker])];

async fn processes(
    config: &Config,
    effort: Effort,
    folder: &Path,
    nodes: &Nodes,
) -> anyhow::Result<Run> {
    std::fs::create_dir(folder).context("temporary folder")?;
    let rows = config.job.batch_size;
    let mut config = config.clone();
    let address = ([127, 0, 0, 1], 0).into();
    let node = |&(name, roles): &(&str, &[Role])| NodeConfig {
        name: name.to_owned(),
        address,
        roles: roles.to_vec(),
        listen: None,
        grpc_listen: None,
    };
    config.nodes = nodes.iter().map(node).collect();
    let (mut cluster, config) =
        Cluster::prepare(&config, folder, &mut Ports::new(), Ways::Direct).await?;
    let started = Instant::now();
    cluster.start_all()?;
    let measured = watch(&config, started, effort).await;
    cluster.end().await;
    measured?.run(rows)
}

async fn watch(config: &Config, started: Instant, effort: Effort) -> anyhow::Result<Measured> {
    let NodeConfig { name, address, .. } = &config.nodes[1];
    let peer = Peer { node: name.clone(), address: *address };
    let own = hello(config, "bench".to_owned());
    // Calls that are refused while it starts are made again soon.
    let policy =
        LinkPolicy { backoff_min: LOOK_EVERY, backoff_max: LOOK_EVERY, ..LinkPolicy::default() };
    let server = Link::open(peer, own, Rc::new(TcpTransport), policy);
    let mut measured = Measured::default();
    let mut heard = Instant::now();
    loop {
        if let Some(version) = version(&server).await {
            heard = Instant::now();
            if measured.saw(version, started, effort) {
                return Ok(measured);
            }
        }
        if heard.elapsed() > START_MAX {
            bail!("the server is not heard of");
        }
        // Whoever asks often takes time from those that are asked.
        let pause = if measured.first.is_some() { LOOK_EVERY * 20 } else { LOOK_EVERY };
        sleep(pause).await;
    }
}

/// Asks for a version that no job has: a primary refuses that with the one that it has.
async fn version(server: &Link) -> Option<Version> {
    let target = Target::new(wire::Role::ParameterServer, 0);
    let (view, version) = (View(u64::MAX), Some(Version(u64::MAX)));
    let pull = PullParameters { view, shard: ShardId(0), version };
    match timeout(ANSWER_MAX, server.request(target, pull)).await {
        Ok(Err(PullError::OutOfWindow { version, .. })) => Some(version),
        _ => None,
    }
}

/// When which version was seen.
#[derive(Default)]
struct Measured {
    first: Option<(Instant, Duration)>,
    /// When the start was over.
    from: Option<(Instant, Version)>,
    to: Option<(Instant, Version)>,
}

impl Measured {
    /// Whether it has seen enough. The first quarter is warm-up.
    fn saw(&mut self, version: Version, started: Instant, effort: Effort) -> bool {
        let now = Instant::now();
        if version == Version(0) {
            return false;
        }
        let (first, _) = *self.first.get_or_insert((now, now - started));
        let moved = self.to.is_none_or(|(_, last)| last != version);
        if now >= first + effort.training / 4 && moved {
            self.from.get_or_insert((now, version));
            self.to = Some((now, version));
        }
        self.from.is_some_and(|(from, at)| now >= from + effort.training && version > at)
    }

    fn run(&self, rows: usize) -> anyhow::Result<Run> {
        let (Some((_, first_step)), Some((from, first)), Some((to, last))) =
            (self.first, self.from, self.to)
        else {
            bail!("no step was made");
        };
        let samples = (last.0 - first.0) as f64 * rows as f64;
        Ok(Run { sample_rate: samples / (to - from).as_secs_f64(), first_step })
    }
}
