//! `node chaos`: a fault plan against real processes, and the digest beside the calm run's.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use gradmesh::config::{Config, Role};
use gradmesh::node::{NodeContext, OperatingSystem};
use gradmesh::sim::{ANY, Fault, FaultKind, FaultPlan, FaultyLink, one_role_each, read_plan};
use gradmesh_actors::training::{Progress, TrainingStatus};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::run::stopped;
use crate::status::{ask_status, coordinator};

/// Between two looks at processes and plan.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Looks between two questions for the status.
const ASK_EVERY: u32 = 5;
/// Before a process that ended by itself is started again.
const RESTART_AFTER: Duration = Duration::from_millis(200);

/// What came of it.
#[derive(Debug, Serialize)]
struct Outcome {
    digest: String,
    calm_digest: String,
    same: bool,
    seconds: f64,
    /// Faults that began before the end.
    faults: usize,
    /// Of nodes.
    restarts: usize,
    /// Faults that real processes can't be given.
    not_done: Vec<String>,
}

pub(crate) async fn chaos(
    mut config: Config,
    plan: &Path,
    limit: Duration,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let plan = read_plan(plan)?;
    if config.nodes.is_empty() {
        config.nodes = one_role_each(&config);
    }
    let names: Vec<&str> = config.nodes.iter().map(|node| &*node.name).collect();
    plan.check_nodes(&names)?;
    let folder = std::env::temp_dir().join(format!("gradmesh-chaos-{}", OperatingSystem.entropy()));
    std::fs::create_dir_all(&folder).with_context(|| format!("folder {}", folder.display()))?;
    let calm_digest = calm_digest(&config, &folder).await?;
    info!(digest = calm_digest, "calm run done");
    let outcome = tokio::select! { biased;
        _ = stopped() => bail!("stopped; what the nodes said is in {}", folder.display()),
        outcome = run(&config, &plan, &folder, limit, calm_digest) => outcome,
    };
    let outcome =
        outcome.with_context(|| format!("what the nodes said is in {}", folder.display()))?;
    if json {
        crate::answer::line(serde_json::to_string(&outcome)?)?;
    } else {
        crate::answer::line(format_args!(
            "{} faults, {} restarts, {:.1} s: digest {} ({}the calm run's)",
            outcome.faults,
            outcome.restarts,
            outcome.seconds,
            outcome.digest,
            if outcome.same { "" } else { "not " }
        ))?;
    }
    if outcome.same {
        // Of no use any more; a folder that stays is no failure.
        let _ = std::fs::remove_dir_all(&folder);
        return Ok(ExitCode::SUCCESS);
    }
    bail!("another digest than the calm run's {}; see {}", outcome.calm_digest, folder.display())
}

/// Trains in one process, in stores of its own.
async fn calm_digest(config: &Config, folder: &Path) -> anyhow::Result<String> {
    let mut calm = in_folder(config, &folder.join("calm"));
    calm.nodes.clear();
    let file = folder.join("calm.toml");
    std::fs::write(&file, calm.to_toml()?)?;
    let mut train = command(&file)?;
    train.args(["--json", "train"]).stdout(Stdio::piped());
    let output = train.spawn()?.wait_with_output().await?;
    if !output.status.success() {
        bail!("the calm run failed ({}): nothing to compare with", output.status);
    }
    let summary: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let digest = summary.get("digest").and_then(serde_json::Value::as_str);
    Ok(digest.context("the calm run's summary has no digest")?.to_owned())
}

fn in_folder(config: &Config, folder: &Path) -> Config {
    let mut config = config.clone();
    config.checkpoint.store = folder.join("checkpoints").to_string_lossy().into_owned();
    config.registry.store = folder.join("registry").to_string_lossy().into_owned();
    config
}

fn command(config: &Path) -> anyhow::Result<Command> {
    let mut command = Command::new(std::env::current_exe().context("path of this program")?);
    command.arg("--config").arg(config).arg("--log").arg("info").kill_on_drop(true);
    // The file says all; what was set for this process is in it.
    for (key, _) in std::env::vars_os() {
        if key.to_string_lossy().starts_with("GRADMESH__") {
            command.env_remove(key);
        }
    }
    Ok(command)
}

async fn run(
    config: &Config,
    plan: &FaultPlan,
    folder: &Path,
    limit: Duration,
    calm_digest: String,
) -> anyhow::Result<Outcome> {
    let mut config = in_folder(config, &folder.join("chaos"));
    for node in &mut config.nodes {
        node.address = free_address().await?;
    }
    config.service.listen = free_address().await?;
    let (faults, active) = watch::channel(Vec::new());
    let nodes = start_links(&config, folder, &active).await?;
    let mut cluster = Cluster { nodes, faults, restarts: 0, store: folder.join("chaos") };
    let mut changes = Changes::new(plan);
    let link = coordinator(&config)?;
    let started = Instant::now();
    for node in 0..cluster.nodes.len() {
        cluster.start(node)?;
    }
    let status: TrainingStatus = 'ended: loop {
        for _ in 0..ASK_EVERY {
            while let Some((fault, begins)) = changes.due(started.elapsed()) {
                info!("{fault} {}", if begins { "begins" } else { "is over" });
                cluster.change(&fault, begins)?;
            }
            cluster.look()?;
            tokio::time::sleep(LOOK_EVERY).await;
        }
        if let Ok(status) = ask_status(&link).await
            && matches!(status.progress, Progress::Done(_) | Progress::Failed { .. })
        {
            break 'ended status;
        }
        if started.elapsed() > limit {
            bail!("not trained within {} s; raise --for", limit.as_secs_f64());
        }
    };
    let seconds = started.elapsed().as_secs_f64();
    let digest = match status.progress {
        Progress::Done(published) => published.digest,
        other => bail!("training ended without a model: {other:?}"),
    };
    let same = digest == calm_digest;
    let (faults, restarts, not_done) = (changes.begun, cluster.restarts, changes.not_done);
    Ok(Outcome { digest, calm_digest, same, seconds, faults, restarts, not_done })
}

/// A port that is free now, for a process that starts at once.
async fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?.local_addr()?)
}

/// A configuration for each node, in which the way to each other one leads through a proxy.
async fn start_links(
    config: &Config,
    folder: &Path,
    active: &watch::Receiver<Vec<FaultKind>>,
) -> anyhow::Result<Vec<Node>> {
    let mut nodes = Vec::new();
    for (own, node) in config.nodes.iter().enumerate() {
        let mut seen = config.clone();
        for (other, callee) in seen.nodes.iter_mut().enumerate() {
            if other == own {
                continue;
            }
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
            let to_address = std::mem::replace(&mut callee.address, listener.local_addr()?);
            let (from, to) = (node.name.clone(), callee.name.clone());
            let seed = (own * config.nodes.len() + other) as u64;
            FaultyLink { from, to, to_address, faults: active.clone(), seed }.serve(listener);
        }
        if !node.roles.contains(&Role::Service) {
            seen.service.listen = free_address().await?;
        }
        let file = folder.join(format!("{}.toml", node.name));
        std::fs::write(&file, seen.to_toml()?)?;
        let log = folder.join(format!("{}.log", node.name));
        nodes.push(Node {
            name: node.name.clone(),
            config: file,
            log,
            child: None,
            down: 0,
            start_at: None,
        });
    }
    Ok(nodes)
}

/// A node's process.
struct Node {
    name: String,
    config: PathBuf,
    log: PathBuf,
    child: Option<Child>,
    /// Faults that keep it down.
    down: usize,
    start_at: Option<Instant>,
}

struct Cluster {
    nodes: Vec<Node>,
    /// Faults of the network that are active.
    faults: watch::Sender<Vec<FaultKind>>,
    restarts: usize,
    store: PathBuf,
}

impl Cluster {
    fn start(&mut self, node: usize) -> anyhow::Result<()> {
        let node = &mut self.nodes[node];
        let log = std::fs::File::options().create(true).append(true).open(&node.log)?;
        let mut command = command(&node.config)?;
        command.args(["run", "--until-stdin-ends", "--name"]).arg(&node.name);
        command.stdin(Stdio::piped()).stdout(log.try_clone()?).stderr(log);
        node.child = Some(command.spawn().with_context(|| format!("starting {}", node.name))?);
        node.start_at = None;
        Ok(())
    }

    /// Starts again what ended by itself, or what a fault has let go.
    fn look(&mut self) -> anyhow::Result<()> {
        for index in 0..self.nodes.len() {
            let node = &mut self.nodes[index];
            if let Some(child) = &mut node.child
                && let Some(ended) = child.try_wait()?
            {
                info!(node = node.name, %ended, "ended");
                node.child = None;
                node.start_at = Some(Instant::now() + RESTART_AFTER);
            }
            let due = node.start_at.is_some_and(|at| at <= Instant::now());
            if node.child.is_none() && node.down == 0 && due {
                self.restarts += 1;
                self.start(index)?;
            }
        }
        Ok(())
    }

    fn change(&mut self, fault: &Fault, begins: bool) -> anyhow::Result<()> {
        match &fault.kind {
            FaultKind::Kill { node } | FaultKind::PowerLoss { node } => {
                self.hold_down(node, begins, Signal::SIGKILL);
            }
            FaultKind::Stop { node } => self.hold_down(node, begins, Signal::SIGTERM),
            FaultKind::Pause { node } => {
                let signal = if begins { Signal::SIGSTOP } else { Signal::SIGCONT };
                self.each(node, |node| node.signal(signal));
            }
            FaultKind::FlipBit { path } if begins => flip_bit(&self.store, path)?,
            FaultKind::FlipBit { .. }
            | FaultKind::FailWrites { .. }
            | FaultKind::SlowDisk { .. }
            | FaultKind::Panic { .. }
            | FaultKind::Clock { .. } => {}
            network => self.faults.send_modify(|active| {
                if begins {
                    active.push(network.clone());
                } else if let Some(at) = active.iter().position(|active| active == network) {
                    active.remove(at);
                }
            }),
        }
        Ok(())
    }

    fn hold_down(&mut self, name: &str, begins: bool, signal: Signal) {
        self.each(name, |node| {
            if begins {
                node.down += 1;
                node.signal(signal);
            } else {
                node.down = node.down.saturating_sub(1);
                node.start_at = Some(Instant::now());
            }
        });
    }

    fn each(&mut self, name: &str, act: impl Fn(&mut Node)) {
        self.nodes.iter_mut().filter(|node| name == ANY || node.name == name).for_each(act);
    }
}

impl Node {
    fn signal(&self, signal: Signal) {
        let pid = self.child.as_ref().and_then(Child::id);
        if let Some(pid) = pid.and_then(|pid| i32::try_from(pid).ok()) {
            // It may have ended by itself.
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }
}

/// Flips the lowest bit in the middle of the first file whose path contains `part`.
fn flip_bit(folder: &Path, part: &str) -> anyhow::Result<()> {
    let mut folders = vec![folder.to_owned()];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        let Ok(entries) = folder.read_dir() else { continue };
        for entry in entries.flatten() {
            let path = entry.path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    files.sort();
    let Some(file) = files.into_iter().find(|file| file.to_string_lossy().contains(part)) else {
        warn!(part, "no file to flip a bit in");
        return Ok(());
    };
    let mut bytes = std::fs::read(&file)?;
    let middle = bytes.len() / 2;
    if let Some(byte) = bytes.get_mut(middle) {
        *byte ^= 1;
    }
    std::fs::write(&file, bytes)?;
    Ok(())
}

/// Beginnings and ends of a plan's faults, in their order.
struct Changes {
    /// The next one last.
    to_come: Vec<(u64, Fault, bool)>,
    begun: usize,
    not_done: Vec<String>,
}

impl Changes {
    fn new(plan: &FaultPlan) -> Self {
        let mut to_come = Vec::new();
        let mut not_done = Vec::new();
        for fault in &plan.faults {
            if matches!(
                fault.kind,
                FaultKind::FailWrites { .. }
                    | FaultKind::SlowDisk { .. }
                    | FaultKind::Panic { .. }
                    | FaultKind::Clock { .. }
            ) {
                warn!("{fault} is left out: it needs a simulation");
                not_done.push(fault.to_string());
                continue;
            }
            to_come.push((fault.at_ms, fault.clone(), true));
            to_come.push((fault.at_ms.saturating_add(fault.for_ms), fault.clone(), false));
        }
        // Stable: of the same time, what was planned first comes first.
        to_come.sort_by_key(|(at, _, _)| *at);
        to_come.reverse();
        Self { to_come, begun: 0, not_done }
    }

    fn due(&mut self, now: Duration) -> Option<(Fault, bool)> {
        let (at, _, _) = self.to_come.last()?;
        if Duration::from_millis(*at) > now {
            return None;
        }
        let (_, fault, begins) = self.to_come.pop()?;
        self.begun += usize::from(begins);
        Some((fault, begins))
    }
}
