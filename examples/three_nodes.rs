//! Kills a process of a cluster while it trains, and shows that the model has the same bits.
//!
//! What it shows: the job of `three-nodes.toml` on five processes of this machine, started by
//! `node up --train`. Once in peace; once with `kill -9` for a worker as soon as an epoch is done.
//! Ports and folders are free ones. Fails if the digests differ.
//!
//! ```sh
//! cargo build && cargo run --example three_nodes
//! ```
//!
//! It prints, in about ten seconds:
//!
//! ```text
//! calm:   digest a3767696e770f974, test accuracy 85.70 %
//! epoch 1 is done: kill -9 12345 (worker-1)
//! killed: digest a3767696e770f974, test accuracy 85.70 %
//! the same bits
//! ```
#![allow(clippy::print_stdout, reason = "an example shows what it does")]
#![allow(clippy::disallowed_methods, reason = "real processes have a real clock")]

use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

const VICTIM: &str = "worker-1";

/// Of one run. It takes seconds, most of them on a slow machine without optimisation.
const LIMIT: Duration = Duration::from_secs(120);

fn main() -> anyhow::Result<()> {
    let node = node_binary()?;
    let calm = run(&node, None)?;
    println!("calm:   {}", describe(&calm));
    let killed = run(&node, Some(VICTIM))?;
    println!("killed: {}", describe(&killed));
    ensure!(calm["digest"] == killed["digest"], "the digests differ");
    println!("the same bits");
    Ok(())
}

/// `target/{profile}/node`, of this program's `target/{profile}/examples/three_nodes`.
fn node_binary() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe()?;
    let profile = own.ancestors().nth(2).context("a program in no folder")?;
    let node = profile.join("node");
    ensure!(node.is_file(), "there is no {}; run `cargo build` first", node.display());
    Ok(node)
}

fn describe(summary: &Value) -> String {
    let digest = summary["digest"].as_str().unwrap_or_default();
    let accuracy = summary["test_accuracy"].as_f64().unwrap_or_default();
    format!("digest {digest:.16}, test accuracy {:.2} %", 100.0 * accuracy)
}

/// Trains on a cluster of its own; returns what `node up --train --json` says of it.
fn run(node: &Path, victim: Option<&str>) -> anyhow::Result<Value> {
    let folder = tempfile::tempdir()?;
    let config = folder.path().join("cluster.toml");
    std::fs::write(&config, configuration(folder.path())?)?;
    let mut cluster = Cluster::start(node, &config)?;
    let deadline = Instant::now() + LIMIT;
    let mut died = false;
    let mut to_kill = victim;
    let mut pid = None;
    while let Some(line) = cluster.line(deadline)? {
        if let Some(started) = line.started(VICTIM) {
            pid = Some(started);
        } else if line.is("ended, starting it again") {
            died = true;
        } else if let (true, Some(pid), Some(name)) = (line.is("epoch done"), pid, to_kill) {
            println!("epoch 1 is done: kill -9 {pid} ({name})");
            kill(Pid::from_raw(pid), Signal::SIGKILL)?;
            to_kill = None;
        }
    }
    let summary = cluster.summary()?;
    ensure!(died == victim.is_some(), "a process that ended: {died}");
    Ok(summary)
}

/// `three-nodes.toml` with free ports, stores in `folder`, data where it is.
fn configuration(folder: &Path) -> anyhow::Result<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(root.join("examples/three-nodes.toml"))?;
    let mut text = text
        .replace("../gradmesh-data", &folder.display().to_string())
        .replace("../data", &root.join("data").display().to_string());
    // All of them held at once, so that they differ.
    let free = (0..5).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<Vec<_>, _>>()?;
    for (index, listener) in free.iter().enumerate() {
        let port = listener.local_addr()?.port();
        text = text.replace(&format!(":{}\"", 7100 + index), &format!(":{port}\""));
    }
    Ok(text)
}

/// `node up` and its log lines. It stops with its nodes when this is dropped.
struct Cluster {
    up: Child,
    lines: Receiver<String>,
}

impl Cluster {
    fn start(node: &Path, config: &Path) -> anyhow::Result<Self> {
        let mut up = Command::new(node)
            .arg("--config")
            .arg(config)
            .args(["--json", "--log", "json:info", "--set", "service.listen=127.0.0.1:0"])
            .args(["up", "--train"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let errors = up.stderr.take().context("no standard error")?;
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(errors).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Ok(Self { up, lines })
    }

    /// The next log line; `None` when the cluster has ended.
    fn line(&self, deadline: Instant) -> anyhow::Result<Option<Line>> {
        use std::sync::mpsc::RecvTimeoutError;
        match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => Ok(Some(Line::parse(&line))),
            Err(RecvTimeoutError::Disconnected) => Ok(None),
            Err(RecvTimeoutError::Timeout) => bail!("the run took longer than {LIMIT:?}"),
        }
    }

    fn summary(&mut self) -> anyhow::Result<Value> {
        let status = self.up.wait()?;
        ensure!(status.success(), "`node up --train` failed: {status}");
        let mut text = String::new();
        self.up.stdout.take().context("no standard output")?.read_to_string(&mut text)?;
        Ok(serde_json::from_str(&text)?)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing left to stop.
        if let (Ok(None), Ok(pid)) = (self.up.try_wait(), i32::try_from(self.up.id())) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
            let _ = self.up.wait();
        }
    }
}

/// Fields of a log line. Those of a node come with its name before them: `worker-1 | {…}`.
struct Line(Value);

impl Line {
    fn parse(line: &str) -> Self {
        let json = line.find('{').map(|start| &line[start..]).unwrap_or_default();
        let mut line: Value = serde_json::from_str(json).unwrap_or_default();
        Self(line["fields"].take())
    }

    fn is(&self, message: &str) -> bool {
        self.0["message"] == message
    }

    /// The process of a node, if this line says that it was started.
    fn started(&self, node: &str) -> Option<i32> {
        let is_it = self.is("started") && self.0["node"] == node;
        self.0["pid"].as_i64().filter(|_| is_it).and_then(|pid| i32::try_from(pid).ok())
    }
}
