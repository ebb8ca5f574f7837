//! The processes of a cluster, and the links between them.

use std::fs::File;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use gradmesh::config::{Config, Role};
use gradmesh::sim::{ANY, Fault, FaultKind, FaultyLink, FrameCounts, SharedFrameCounts};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::info;

use super::operator::Operator;
use super::ports::Ports;
use crate::failure::LASTING;

/// Before a process that ended by itself is started again; as in a simulation.
const RESTART_AFTER: Duration = Duration::from_millis(200);
/// What a cluster stores, in the temporary folder.
pub(crate) const STORES: &str = "chaos";
/// For which a slow process runs at a time: of what the loop that stops it can keep, the shortest.
const RUNS: Duration = Duration::from_millis(20);

/// How nodes reach each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ways {
    Direct,
    /// Each way through a proxy, which has the faults of the network.
    Faulty,
}

pub(crate) struct Cluster {
    nodes: Vec<Node>,
    /// Faults of the network that are active.
    faults: watch::Sender<Vec<FaultKind>>,
    frames: SharedFrameCounts,
    restarts: usize,
    /// Processes that lived when they were hit.
    killed: usize,
    paused: usize,
    stores: PathBuf,
    slowed: Vec<Slowed>,
    /// Without links: as an operator reaches the nodes.
    config: Config,
    operator: Operator,
}

/// Processes that are slow.
struct Slowed {
    name: String,
    times: u16,
    stopped: bool,
    since: Instant,
    /// Until it is stopped, or goes on.
    waits: Duration,
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

impl Cluster {
    /// Makes a configuration for each node, in which the way to each other one leads through a link
    /// where `ways` says so. Also gives the cluster's own configuration, without links.
    pub(crate) async fn prepare(
        config: &Config,
        folder: &Path,
        ports: &mut Ports,
        ways: Ways,
    ) -> anyhow::Result<(Self, Config)> {
        let stores = folder.join(STORES);
        let mut config = stores_in(config, &stores);
        for node in &mut config.nodes {
            node.address = ports.take()?;
            if node.roles.contains(&Role::Service) {
                node.listen = Some(ports.take()?);
            }
            node.grpc_listen = None;
        }
        config.service.listen = ports.take()?;
        config.service.grpc_listen = None;
        let (faults, active) = watch::channel(Vec::new());
        let frames = SharedFrameCounts::default();
        let mut nodes = Vec::new();
        for (own, node) in config.nodes.iter().enumerate() {
            let mut seen = config.clone();
            for (other, callee) in seen.nodes.iter_mut().enumerate() {
                if other == own || ways == Ways::Direct {
                    continue;
                }
                let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
                let to_address = std::mem::replace(&mut callee.address, listener.local_addr()?);
                let (from, to) = (node.name.clone(), callee.name.clone());
                // Each link draws numbers of its own, whatever the others do.
                let seed = (own * config.nodes.len() + other) as u64;
                let (faults, counts) = (active.clone(), frames.clone());
                FaultyLink { from, to, to_address, faults, counts, seed }.serve(listener);
            }
            if !node.roles.contains(&Role::Service) {
                seen.service.listen = ports.take()?;
            }
            let file = folder.join(format!("{}.toml", node.name));
            std::fs::write(&file, seen.to_toml()?)?;
            nodes.push(Node {
                name: node.name.clone(),
                config: file,
                log: folder.join(format!("{}.log", node.name)),
                child: None,
                down: 0,
                start_at: None,
            });
        }
        let cluster = Self {
            nodes,
            faults,
            frames,
            restarts: 0,
            killed: 0,
            paused: 0,
            stores,
            slowed: Vec::new(),
            config: config.clone(),
            operator: Operator::default(),
        };
        Ok((cluster, config))
    }

    pub(crate) fn start_all(&mut self) -> anyhow::Result<()> {
        self.nodes.iter_mut().try_for_each(Node::start)
    }

    pub(crate) fn restarts(&self) -> usize {
        self.restarts
    }

    pub(crate) fn killed(&self) -> usize {
        self.killed
    }

    pub(crate) fn paused(&self) -> usize {
        self.paused
    }

    /// Lines of the nodes' logs with this text.
    pub(crate) fn said(&self, text: &str) -> usize {
        let lines = |node: &Node| {
            // A log that is not there says nothing.
            let log = std::fs::read_to_string(&node.log).unwrap_or_default();
            log.lines().filter(|line| line.contains(text)).count()
        };
        self.nodes.iter().map(lines).sum()
    }

    pub(crate) fn frames(&self) -> FrameCounts {
        self.frames.get()
    }

    /// Starts again what ended by itself, or what a fault has let go.
    pub(crate) fn look(&mut self) -> anyhow::Result<()> {
        self.look_at_slowed();
        for node in &mut self.nodes {
            if let Some(child) = &mut node.child
                && let Some(ended) = child.try_wait()?
            {
                if ended.code() == Some(i32::from(LASTING)) {
                    bail!("node {} failed for good; see {}", node.name, node.log.display());
                }
                info!(node = node.name, %ended, "ended");
                node.child = None;
                node.start_at = Some(Instant::now() + RESTART_AFTER);
            }
            let due = node.start_at.is_some_and(|at| at <= Instant::now());
            if node.child.is_none() && node.down == 0 && due {
                self.restarts += 1;
                node.start()?;
                info!(node = node.name, "started again");
            }
        }
        Ok(())
    }

    /// Makes a change, and says what was done.
    pub(crate) fn change(&mut self, fault: &Fault, begins: bool) -> anyhow::Result<String> {
        let kind = &fault.kind;
        Ok(match kind {
            FaultKind::Kill { node } => self.hold_down(node, begins, Signal::SIGKILL),
            FaultKind::PowerLoss { node } => {
                // No kernel of it may say a word.
                self.change_network(kind, begins);
                self.hold_down(node, begins, Signal::SIGKILL)
            }
            FaultKind::Stop { node } => self.hold_down(node, begins, Signal::SIGTERM),
            FaultKind::Pause { node } => {
                let signal = if begins { Signal::SIGSTOP } else { Signal::SIGCONT };
                let hit = self.each(node, |node| node.signal(signal));
                self.paused += if begins { hit } else { 0 };
                told(signal, hit)
            }
            FaultKind::Slow { node, times } => self.slow(node, *times, begins),
            FaultKind::Drain { node } => {
                for name in self.nodes.iter().map(|node| &node.name) {
                    if node == ANY || node == name {
                        self.operator.wish(&self.config, name, begins);
                    }
                }
                "asked for".to_owned()
            }
            FaultKind::FlipBit { path } if begins => flip_bit(&self.stores, path)?,
            FaultKind::FlipBit { .. }
            | FaultKind::FailWrites { .. }
            | FaultKind::SlowDisk { .. }
            | FaultKind::Panic { .. }
            | FaultKind::Clock { .. } => String::new(),
            network => {
                self.change_network(network, begins);
                "began".to_owned()
            }
        })
    }

    fn change_network(&mut self, fault: &FaultKind, begins: bool) {
        self.faults.send_modify(|active| {
            if begins {
                active.push(fault.clone());
            } else if let Some(at) = active.iter().position(|active| active == fault) {
                active.remove(at);
            }
        });
    }

    /// Lets a process run for a part of the time only.
    fn slow(&mut self, name: &str, times: u16, begins: bool) -> String {
        if begins {
            let (name, since) = (name.to_owned(), Instant::now());
            self.slowed.push(Slowed { name, times, stopped: false, since, waits: RUNS });
            let stopped = times.max(1) - 1;
            return format!("{} for {stopped} of {times} parts of the time", Signal::SIGSTOP);
        }
        self.slowed.retain(|slowed| slowed.name != name || slowed.times != times);
        told(Signal::SIGCONT, self.each(name, |node| node.signal(Signal::SIGCONT)))
    }

    /// Stops those that have run, and continues those that have stood for `times - 1` times as long.
    fn look_at_slowed(&mut self) {
        let mut due = Vec::new();
        for slowed in &mut self.slowed {
            let signal = if slowed.stopped { Signal::SIGCONT } else { Signal::SIGSTOP };
            let passed = slowed.since.elapsed();
            if passed >= slowed.waits {
                let stops = passed * u32::from(slowed.times.max(1) - 1);
                slowed.waits = if slowed.stopped { RUNS } else { stops };
                (slowed.stopped, slowed.since) = (!slowed.stopped, Instant::now());
                due.push((slowed.name.clone(), signal));
            }
        }
        for (name, signal) in due {
            self.each(&name, |node| node.signal(signal));
        }
    }

    fn hold_down(&mut self, name: &str, begins: bool, signal: Signal) -> String {
        let hit = self.each(name, |node| {
            if begins {
                node.down += 1;
                node.signal(signal)
            } else {
                node.down = node.down.saturating_sub(1);
                node.start_at = Some(Instant::now());
                false
            }
        });
        self.killed += if signal == Signal::SIGKILL { hit } else { 0 };
        told(signal, hit)
    }

    /// SIGKILL to one node, which [`Cluster::look`] starts again; whether it lived.
    pub(crate) fn kill(&mut self, name: &str) -> bool {
        let hit = self.each(name, |node| node.signal(Signal::SIGKILL));
        self.killed += hit;
        hit > 0
    }

    /// To how many processes something happened.
    fn each(&mut self, name: &str, act: impl Fn(&mut Node) -> bool) -> usize {
        let named = self.nodes.iter_mut().filter(|node| name == ANY || node.name == name);
        named.map(act).filter(|hit| *hit).count()
    }

    /// Kills all, also those that are stopped, and waits for their ends.
    pub(crate) async fn end(&mut self) {
        for node in &mut self.nodes {
            if let Some(mut child) = node.child.take() {
                // It may have ended by itself.
                let _ = child.kill().await;
            }
        }
    }
}

impl Node {
    fn start(&mut self) -> anyhow::Result<()> {
        let log = log_file(&self.log)?;
        let mut command = command(&self.config)?;
        command.args(["run", "--until-stdin-ends", "--name"]).arg(&self.name);
        command.stdout(log.try_clone()?).stderr(log);
        self.child = Some(command.spawn().with_context(|| format!("starting {}", self.name))?);
        self.start_at = None;
        Ok(())
    }

    /// Whether there was a process.
    fn signal(&self, signal: Signal) -> bool {
        let pid = self.child.as_ref().and_then(Child::id);
        let pid = pid.and_then(|pid| i32::try_from(pid).ok());
        pid.is_some_and(|pid| kill(Pid::from_raw(pid), signal).is_ok())
    }
}

fn told(signal: Signal, hit: usize) -> String {
    match hit {
        0 => format!("{signal} to no process: it was down"),
        1 => format!("{signal} to 1 process"),
        hit => format!("{signal} to {hit} processes"),
    }
}

/// The same, but that nothing is stored elsewhere.
pub(crate) fn stores_in(config: &Config, folder: &Path) -> Config {
    let mut config = config.clone();
    config.checkpoint.store = folder.join("checkpoints").to_string_lossy().into_owned();
    config.coordination.store = folder.join("coordination").to_string_lossy().into_owned();
    config.registry.store = folder.join("registry").to_string_lossy().into_owned();
    config
}

/// A process that ends with this one, however that ends: its standard input then closes. One that
/// is stopped reads nothing, but kernels continue it then, for it has asked for that
/// (`run::continue_without_parent`). In a process group of its own it hears no Ctrl-C that is meant for this process.
pub(crate) fn command(config: &Path) -> anyhow::Result<Command> {
    let mut command = Command::new(std::env::current_exe().context("path of this program")?);
    command.arg("--config").arg(config).arg("--log").arg("info");
    command.kill_on_drop(true).stdin(Stdio::piped()).process_group(0);
    // The file says all; what was set for this process is in it.
    for (key, _) in std::env::vars_os() {
        if key.to_string_lossy().starts_with("GRADMESH__") {
            command.env_remove(key);
        }
    }
    Ok(command)
}

pub(crate) fn log_file(path: &Path) -> anyhow::Result<File> {
    File::options()
        .create(true)
        .append(true)
        .open(path)
        .with_context(|| format!("log {}", path.display()))
}

/// Flips the lowest bit in the middle of the first file with content whose path contains `part`.
fn flip_bit(folder: &Path, part: &str) -> anyhow::Result<String> {
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
    for file in files {
        let relative = file.strip_prefix(folder).unwrap_or(&file).to_string_lossy();
        if !relative.contains(part) {
            continue;
        }
        // The cluster removes old files meanwhile.
        let Ok(mut bytes) = std::fs::read(&file) else { continue };
        let middle = bytes.len() / 2;
        let Some(byte) = bytes.get_mut(middle) else { continue };
        *byte ^= 1;
        std::fs::write(&file, bytes).with_context(|| format!("flip in {}", file.display()))?;
        return Ok(format!("flipped a bit of {relative}"));
    }
    Ok(format!("found no file with {part:?} to flip a bit in"))
}
