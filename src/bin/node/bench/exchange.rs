//! Push and pull between two processes: a server node as in any cluster, and this one as its
//! worker, over the links that workers use.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Recipient};
use actix_rt::Arbiter;
use anyhow::{Context, bail};
use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use gradmesh::config::{Config, NodeConfig, Role};
use gradmesh::node::hello;
use gradmesh::peer::{Link, LinkPolicy, Peer, Proxy};
use gradmesh::transport::{Connection, Listener, TcpTransport, Transport};
use gradmesh::wire::{self, Hello, Target};
use gradmesh_actors::dataset::{DatasetShape, Scaling};
use gradmesh_actors::ids::{
    CoordinatorId, ServerId, ShardCopy, ShardId, Slot, Version, View, WorkerId,
};
use gradmesh_actors::job::{CodecKind, Loss};
use gradmesh_actors::ledger::SlotReport;
use gradmesh_actors::messages::{
    Appointment, Duty, PartHeader, Payload, PushGradient, RestoreShard, ask,
};
use gradmesh_actors::model::{ModelKinds, describe};
use gradmesh_actors::plan::JobOffer;
use gradmesh_actors::reduction::Span;
use tokio::process::Child;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

use super::Effort;
use super::limits::RawPeer;
use super::row::{Goal, Row, Unit, median};
use crate::chaos::cluster::{command, log_file, stores_in};
use crate::chaos::ports::Ports;

/// More than any measurement makes.
pub(super) const STEPS: usize = 100_000_000;
const ANSWER_MAX: Duration = Duration::from_secs(10);
pub(super) const SMALL: usize = 4 << 10;
const SIZES: [usize; 4] = [SMALL, 1 << 20, 16 << 20, 64 << 20];
/// Exchanges until all memory that is used again is there.
const WARM_UP: usize = 8;
const REPEATS_MIN: usize = 3;

/// A shard of so many bytes in one process.
pub(super) struct Server {
    process: Child,
    worker: Arbiter,
    push: Recipient<PushGradient>,
    gradient: Arc<Vec<f32>>,
    step: Version,
}

pub(super) async fn rows(
    config: &Config,
    effort: Effort,
    folder: &Path,
) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    let apart = [false, true].into_iter().flat_map(|apart| SIZES.map(|bytes| (bytes, apart)));
    for (bytes, apart) in apart {
        // What is short goes through the socket in any case.
        if bytes > effort.largest || (apart && bytes == SMALL) {
            continue;
        }
        let mut server = Server::start(config, folder, bytes, apart).await?;
        server.measure(WARM_UP, Duration::ZERO).await?;
        let mut raw = RawPeer::start(bytes)?;
        // Each side twice, in turns.
        let (mut ours, mut limits) = (Vec::new(), Vec::new());
        for _ in 0..2 {
            limits.push(raw.measure(effort.repeats / 2)?.as_secs_f64());
            ours.push(server.measure(REPEATS_MIN, effort.repeats / 2).await?.as_secs_f64());
        }
        let (ours, limit) = (median(ours.into_iter()), median(limits.into_iter()));
        rows.push(if bytes == SMALL {
            let (what, goal) = ("push and pull of 4 KiB".to_owned(), Goal::AtMost(1.5));
            Row::new(what, "TCP", Unit::Microseconds, goal).with(ours * 1e6, limit * 1e6)
        } else {
            let way = if apart { " through the socket" } else { "" };
            let what = format!("push and pull of {} MiB{way}", bytes >> 20);
            let rate = |time: f64| 2.0 * bytes as f64 / time / 1e9;
            let row = Row::new(what, "TCP", Unit::GigabytesPerSecond, Goal::AtLeast(0.85));
            row.with(rate(ours), rate(limit))
        });
    }
    Ok(rows)
}

impl Drop for Server {
    fn drop(&mut self) {
        self.worker.stop();
    }
}

impl Server {
    /// `apart`: as if the worker were on another machine, and nobody could read anybody's memory.
    pub(super) async fn start(
        config: &Config,
        folder: &Path,
        bytes: usize,
        apart: bool,
    ) -> anyhow::Result<Self> {
        let config = configure(config, folder, &mut Ports::new())?;
        let name = format!("exchange-{bytes}-{apart}");
        let file = folder.join(format!("{name}.toml"));
        std::fs::write(&file, config.to_toml()?)?;
        let mut command = command(&file)?;
        command.args(["run", "--until-stdin-ends", "--name", "ps-0"]);
        command.stdout(Stdio::null()).stderr(log_file(&folder.join(format!("{name}.log")))?);
        let process = command.spawn().context("starting the server")?;
        let peer = Peer { node: "ps-0".to_owned(), address: config.nodes[1].address };
        let own = hello(&config, "bench".to_owned());
        let link = Link::open(peer.clone(), own, Rc::new(TcpTransport), LinkPolicy::default());
        let target = Target::new(wire::Role::ParameterServer, 0);
        let restore = restore(&config, bytes)?;
        let until = Instant::now() + ANSWER_MAX;
        while let Err(error) = link.request(target, restore.clone()).await {
            if Instant::now() > until {
                bail!("the server does not take its shard: {error}");
            }
            sleep(Duration::from_millis(20)).await;
        }
        // From a thread of its own to the shard's, as a worker's.
        let own = Hello { target: Some(target), ..hello(&config, "bench".to_owned()) };
        let (opened, push) = oneshot::channel();
        let worker = Arbiter::new();
        worker.spawn_fn(move || {
            let transport: Rc<dyn Transport> =
                if apart { Rc::new(Apart) } else { Rc::new(TcpTransport) };
            let link = Link::open(peer, own, transport, LinkPolicy::default());
            drop(opened.send(Proxy { link, target }.start().recipient()));
        });
        let push = push.await.context("the measuring thread")?;
        let gradient = Arc::new(vec![1e-6; bytes / size_of::<f32>()]);
        Ok(Self { process, worker, push, gradient, step: Version(0) })
    }

    /// The server's process.
    pub(super) fn process(&self) -> anyhow::Result<u32> {
        self.process.id().context("the server has ended")
    }

    /// Median time from a push to the parameters that come of it, asked as a worker does: from a
    /// thread of its own.
    pub(super) async fn measure(
        &mut self,
        at_least: usize,
        lasts: Duration,
    ) -> anyhow::Result<Duration> {
        let (push, gradient, mut step) = (self.push.clone(), Arc::clone(&self.gradient), self.step);
        let (done, measured) = oneshot::channel();
        let started = Instant::now();
        self.worker.spawn(async move {
            let mut times = Vec::new();
            let ended = loop {
                if started.elapsed() >= lasts && times.len() >= at_least {
                    break Ok((median(times.into_iter()), step));
                }
                let began = Instant::now();
                match ask(&push, one(step, &gradient), ANSWER_MAX).await {
                    Ok(pushed) => step = pushed.version,
                    Err(error) => break Err(error),
                }
                times.push(began.elapsed().as_secs_f64());
            };
            // Nobody waits for it only where the measurement was stopped.
            let _ = done.send(ended);
        });
        let (time, step) = measured.await.context("the measuring thread")??;
        self.step = step;
        Ok(Duration::from_secs_f64(time))
    }
}

/// TCP as between machines.
#[derive(Debug)]
struct Apart;

impl Transport for Apart {
    fn connect(&self, address: SocketAddr) -> LocalBoxFuture<'_, io::Result<Connection>> {
        async move { Ok(Connection { same_host: None, ..TcpTransport.connect(address).await? }) }
            .boxed_local()
    }

    fn listen(&self, address: SocketAddr) -> LocalBoxFuture<'_, io::Result<Box<dyn Listener>>> {
        async move { TcpTransport.listen(address).await }.boxed_local()
    }
}

/// The only push of a step.
pub(super) fn one(step: Version, gradient: &Arc<Vec<f32>>) -> PushGradient {
    PushGradient {
        view: View(1),
        worker: WorkerId(0),
        shard: ShardId(0),
        step,
        parts: vec![PartHeader { span: Span { first: 0, end: 1 }, rows: 1 }],
        reports: vec![SlotReport { slot: Slot(0), rows: 1, loss: 1.0, score: None }],
        payload: vec![Payload::Dense(Arc::clone(gradient))],
    }
}

/// The job of a linear model on one server, and this process in the place of everybody else.
fn configure(config: &Config, folder: &Path, ports: &mut Ports) -> anyhow::Result<Config> {
    let mut config = stores_in(config, folder);
    config.servers.shards = 1;
    config.servers.replicas = 0;
    config.workers.count = 1;
    config.service.listen = ports.take()?;
    config.service.grpc_listen = None;
    let mut node = |name: &str, roles: &[Role]| -> anyhow::Result<NodeConfig> {
        let (name, address) = (name.to_owned(), ports.take()?);
        Ok(NodeConfig { name, address, roles: roles.to_vec(), listen: None, grpc_listen: None })
    };
    let others = [Role::Coordinator, Role::Worker, Role::Registry, Role::Service];
    config.nodes = vec![node("bench", &others)?, node("ps-0", &[Role::Server])?];
    Ok(config)
}

fn restore(config: &Config, bytes: usize) -> anyhow::Result<RestoreShard> {
    let offer = offer(config, bytes)?;
    let copy = ShardCopy { shard: ShardId(0), server: ServerId(0) };
    let duty = Duty::Primary { replicas: Vec::new(), learners: Vec::new() };
    let (first, leader) = (ServerId(0), CoordinatorId(0));
    let appointment = Appointment { view: View(1), copy, duty, first, leader };
    let checkpoint_every = STEPS as u64;
    Ok(RestoreShard { appointment, version: Version(0), offer, shards: 1, checkpoint_every })
}

/// A linear model of so many bytes: a square of weights, nearly, and the offsets. A row a step.
pub(super) fn offer(config: &Config, bytes: usize) -> anyhow::Result<JobOffer> {
    let mut job = config.job.clone();
    job.virtual_workers = 1;
    job.batch_size = 1;
    job.epochs = 1;
    job.model.kind = "linear".to_owned();
    job.model.loss = Loss::Squared;
    job.gradient.clip_value = 0.0;
    job.gradient.clip_norm = 0.0;
    job.gradient.codec = CodecKind::None;
    let parameters = bytes / size_of::<f32>();
    let outputs = 1usize << (parameters.ilog2() / 2);
    let features = parameters / outputs - 1;
    let data = DatasetShape {
        train_rows: STEPS,
        test_rows: 0,
        features,
        classes: None,
        target_width: outputs,
        digest: String::new(),
    };
    let architecture = describe(&job.model, &data)?;
    let model = ModelKinds::builtin().build(&architecture)?;
    let (tensors, outputs) = (model.tensors(), model.outputs());
    Ok(JobOffer { job, data, scaling: Scaling::None, architecture, tensors, outputs })
}
