//! The cluster of a `cluster.toml` as a simulation.

use std::collections::BTreeSet;
use std::future::pending;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use gradmesh_actors::clock::StandsStill;
use gradmesh_actors::dataset::{Dataset, DatasetError};
use gradmesh_actors::layout::TensorSpec;
use gradmesh_actors::model::{Backward, Batch, Model, ModelDescription, ModelKinds, Score};
use ndarray::{Array2, ArrayView2};
use tokio::task::spawn_local;

use super::memory_dataset::MemoryDataset;
use super::network::Network;
use super::operator::operate;
use super::{Ending, Main, NodeSpec, Sim, SimNode};
use crate::config::{Config, NodeConfig, Role};
use crate::data::{self, DataError};
use crate::node::NodeBuilder;

impl Sim {
    /// The nodes of a configuration. Where it has none: one for the coordinator and the registry,
    /// one for each shard, one for each worker. The run ends when the model is published.
    ///
    /// The data is read once, from its real files.
    ///
    /// # Errors
    /// The data can't be read.
    pub fn cluster(config: Config) -> Result<Self, ClusterError> {
        let (job, folder) = (&config.job, &config.folder);
        let data = data::open(&job.data, job.model.loss, job.seed, folder)?;
        Self::cluster_with(config, &*data, ModelKinds::builtin())
    }

    /// The same with a job of about `steps` steps in two epochs: as many of the first rows as that
    /// takes, and six checkpoints. For many seeds of a job that is long.
    ///
    /// # Errors
    /// The data can't be read.
    pub fn short_cluster(mut config: Config, steps: u64) -> Result<Self, ClusterError> {
        let (job, folder) = (&mut config.job, &config.folder);
        let data = data::open(&job.data, job.model.loss, job.seed, folder)?;
        job.epochs = 2;
        let rows = usize::try_from(steps.div_ceil(job.epochs)).unwrap_or(usize::MAX);
        let rows = rows.saturating_mul(job.batch_size).max(1);
        let tested = rows / 4;
        config.checkpoint.every_steps = config.checkpoint.every_steps.min((steps / 6).max(1));
        let first = MemoryDataset::first(&*data, rows, tested)?;
        Self::cluster_with(config, &first, ModelKinds::builtin())
    }

    /// The same with rows and models of one's own. All rows are loaded at once.
    ///
    /// # Errors
    /// The data can't be read.
    pub fn cluster_with(
        mut config: Config,
        data: &dyn Dataset,
        kinds: ModelKinds,
    ) -> Result<Self, ClusterError> {
        let data = Arc::new(MemoryDataset::load(data)?);
        if config.nodes.is_empty() {
            config.nodes = one_role_each(&config);
        }
        let names: BTreeSet<String> = config.nodes.iter().map(|node| node.name.clone()).collect();
        debug_assert_eq!(names.len(), config.nodes.len());
        let mut sim = Self { ending: Ending::Trained, has_cluster: true, ..Self::new() };
        for node in config.nodes.clone() {
            let (config, kinds) = (config.clone(), kinds.clone());
            let data: Arc<dyn Dataset> = Arc::clone(&data) as _;
            let own = node.name.clone();
            let main: Main = Arc::new(move |node| {
                let builder = NodeBuilder::new(config.clone())
                    .name(Some(own.clone()))
                    .data(Arc::clone(&data))
                    .kinds(fragile(&kinds, &config.job.model.kind, &node))
                    .context(Rc::new(node.clone()));
                live(builder, node).boxed_local()
            });
            sim.nodes.push(NodeSpec { name: node.name, main });
        }
        Ok(sim)
    }
}

/// A cluster can't be simulated.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    #[error(transparent)]
    Data(#[from] DataError),
    #[error(transparent)]
    Rows(#[from] DatasetError),
}

/// The same kinds, but that a model of the job's kind panics, or is slow, when it is told to.
fn fragile(kinds: &ModelKinds, kind: &str, node: &SimNode) -> ModelKinds {
    let mut fragile = kinds.clone();
    let (kinds, name) = (kinds.clone(), kind.to_owned());
    let (panics, slow) = (Arc::clone(&node.panics), Arc::clone(&node.slow));
    fragile.register(kind, move |settings| {
        let described = ModelDescription { kind: name.clone(), settings: settings.clone() };
        let model = kinds.build(&described)?;
        let faults = ModelFaults { panics: Arc::clone(&panics), slow: Arc::clone(&slow) };
        Ok(Arc::new(Fragile { model, faults }))
    });
    fragile
}

/// A model whose next gradient panics where `panics` says so, and takes time where `slow` does.
#[derive(Debug)]
struct Fragile {
    model: Arc<dyn Model>,
    faults: ModelFaults,
}

/// What is done to each gradient of a node.
#[derive(Clone, Debug)]
struct ModelFaults {
    panics: Arc<AtomicBool>,
    slow: Arc<AtomicU16>,
}

impl ModelFaults {
    fn strike(&self) {
        if self.panics.swap(false, Ordering::Relaxed) {
            // As a panic, but that nothing is printed: it is meant.
            std::panic::resume_unwind(Box::new("the fault plan says so"));
        }
        self.slow_down();
    }

    fn slow_down(&self) {
        take_time(self.slow.load(Ordering::Relaxed));
    }
}

#[derive(Debug)]
struct FragileBackward {
    backward: Box<dyn Backward>,
    faults: ModelFaults,
}

impl Backward for FragileBackward {
    fn run(&mut self, parameters: &[f32], batch: Batch<'_>) {
        self.backward.run(parameters, batch);
    }

    fn loss(&self, rows: Range<usize>) -> f64 {
        self.backward.loss(rows)
    }

    fn gradient(
        &mut self,
        parameters: &[f32],
        batch: Batch<'_>,
        rows: Range<usize>,
        range: Range<usize>,
        gradient: &mut [f32],
    ) {
        // Once for each gradient: its beginning comes last, when other shards have theirs already. Those take
        // time as well, in which answers come.
        if range.start == 0 {
            self.faults.strike();
        } else {
            self.faults.slow_down();
        }
        self.backward.gradient(parameters, batch, rows, range, gradient);
    }
}

impl Model for Fragile {
    fn tensors(&self) -> Vec<TensorSpec> {
        self.model.tensors()
    }

    fn features(&self) -> usize {
        self.model.features()
    }

    fn outputs(&self) -> usize {
        self.model.outputs()
    }

    fn gradient(&self, parameters: &[f32], batch: Batch<'_>, gradient: &mut [f32]) -> f64 {
        self.faults.strike();
        self.model.gradient(parameters, batch, gradient)
    }

    fn backward(&self) -> Option<Box<dyn Backward>> {
        let backward = self.model.backward()?;
        Some(Box::new(FragileBackward { backward, faults: self.faults.clone() }))
    }

    fn predict(&self, parameters: &[f32], inputs: ArrayView2<'_, f32>) -> Array2<f32> {
        self.model.predict(parameters, inputs)
    }

    fn evaluate(&self, parameters: &[f32], batch: Batch<'_>) -> Score {
        self.model.evaluate(parameters, batch)
    }

    fn describe(&self) -> ModelDescription {
        self.model.describe()
    }
}

/// A computation that takes time holds up its node, which is one thread. Here it holds up all nodes:
/// nothing else can happen in the middle of a poll.
fn take_time(times: u16) {
    if times > 1 {
        let more = Duration::from_millis(u64::from(times) - 1);
        // The clock goes on at once; the rest of it is that others may run, later.
        let _ = tokio::time::advance(more).now_or_never();
        StandsStill::look_again();
        Network::with(|wires| wires.look_at_clock());
    }
}

async fn live(builder: NodeBuilder, node: SimNode) -> Result<(), String> {
    let running = builder.start().await.map_err(|error| error.to_string())?;
    if let Some(coordinator) = running.drain() {
        spawn_local(operate(running.config().clone(), coordinator, node.wishes.clone()));
    }
    if let Some(status) = running.status() {
        node.show_training(status);
    }
    pending().await
}

/// The nodes of a configuration that has none: one for the coordinator and the registry, one for
/// each shard, one for each worker, on ports from 7000 on.
#[must_use]
pub fn one_role_each(config: &Config) -> Vec<NodeConfig> {
    let mut nodes = vec![("main".to_owned(), vec![Role::Coordinator, Role::Registry])];
    nodes.extend((0..config.servers.shards).map(|i| (format!("ps-{i}"), vec![Role::Server])));
    nodes.extend((0..config.workers.count).map(|i| (format!("worker-{i}"), vec![Role::Worker])));
    let node = |(port, (name, roles))| NodeConfig {
        name,
        address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
        roles,
        listen: None,
        grpc_listen: None,
    };
    (7000u16..).zip(nodes).map(node).collect()
}
