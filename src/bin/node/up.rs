//! `node up`: each of the `[[nodes]]` as a process of its own on this machine.

use std::io::IsTerminal;
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use gradmesh::config::{Config, NodeConfig};
use gradmesh::progress;
use gradmesh_actors::training::{Progress, TrainingStatus};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;
use tracing::{info, warn};

use crate::args::Args;
use crate::failure::LASTING;
use crate::run::{INTERRUPTED, stopped};
use crate::status::Coordinators;
use crate::summary::Summary;

/// A node that dies at once again and again is not restarted faster than this.
const RESTART_AFTER: Duration = Duration::from_millis(200);
const RESTART_AFTER_MAX: Duration = Duration::from_secs(5);
/// A node that lived this long starts again without delay.
const LIVED: Duration = Duration::from_secs(10);
/// Deaths in a row, each within [`LIVED`], after which a node is given up: its own words say why.
const DEATHS_MAX: u32 = 20;
const ASK_EVERY: Duration = Duration::from_millis(100);
/// What a node has to end itself in after SIGTERM, before it is killed.
const STOP_MAX: Duration = Duration::from_secs(5);

/// What a node that fails answers.
#[derive(serde::Deserialize)]
struct Failed {
    error: String,
}

pub(crate) async fn up(
    args: &Args,
    config: Config,
    train: bool,
    fresh: bool,
) -> anyhow::Result<ExitCode> {
    if config.nodes.is_empty() {
        bail!("{} has no [[nodes]]; examples/three-nodes.toml shows some", args.config.display());
    }
    crate::addresses::are_free(&config).await?;
    match (train, fresh) {
        (true, fresh) => crate::run::begin(&config, fresh).await?,
        (false, true) => crate::run::discard(&config).await?,
        (false, false) => drop(crate::run::lock(&config).await?),
    }
    let started = Instant::now();
    let (stop, stopping) = watch::channel(false);
    let mut keepers = Vec::new();
    for node in &config.nodes {
        let keeper = keep(args.clone(), node.clone(), stopping.clone());
        keepers.push(actix_rt::spawn(keeper));
    }
    let outcome = tokio::select! { biased;
        _ = stopped() => Ok(None),
        outcome = watch_run(&config, train) => outcome.map(Some),
        gave_up = first_end(&mut keepers) => gave_up.map(|()| None),
    };
    stop.send_replace(true);
    for keeper in keepers {
        if !keeper.is_finished() {
            let _ = keeper.await;
        }
    }
    let outcome = outcome?;
    if train && outcome.is_none() {
        // A script that goes on with the model has to know that there is none.
        let stopped =
            "stopped before the model was published; the next start goes on from a checkpoint";
        warn!("{stopped}");
        if args.json {
            crate::answer::line(serde_json::json!({ "error": stopped }))?;
        }
        return Ok(ExitCode::from(INTERRUPTED));
    }
    if let Some(status) = outcome {
        let Progress::Done(published) = status.progress.clone() else {
            bail!("training ended without a model: {:?}", status.progress)
        };
        Summary::new(&config, &published, &status, started.elapsed()).show(args.json)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Waits until a node is given up, or has failed for good.
async fn first_end(
    keepers: &mut [actix_rt::task::JoinHandle<anyhow::Result<()>>],
) -> anyhow::Result<()> {
    let (ended, _, _) = futures_util::future::select_all(keepers.iter_mut()).await;
    ended.context("a keeper panicked")?
}

/// Follows the run; returns when it has ended, if `train`.
async fn watch_run(config: &Config, train: bool) -> anyhow::Result<TrainingStatus> {
    let coordinators = Coordinators::of(config)?;
    let mut shown: Option<watch::Sender<TrainingStatus>> = None;
    loop {
        if let Ok(status) = coordinators.status().await {
            match &shown {
                Some(shown) => {
                    shown.send_replace(status.clone());
                }
                None => {
                    let (sender, receiver) = watch::channel(status.clone());
                    // The coordinator's own log lines say it where there is no terminal.
                    if std::io::stderr().is_terminal() {
                        actix_rt::spawn(progress::show(receiver));
                    }
                    shown = Some(sender);
                }
            }
            match &status.progress {
                Progress::Failed { cause } if train => bail!("training failed: {cause}"),
                Progress::Done(_) if train => return Ok(status),
                _ => {}
            }
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
}

/// Keeps one node running until told to stop.
async fn keep(
    args: Args,
    node: NodeConfig,
    mut stopping: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let mut deaths = 0;
    loop {
        let started = Instant::now();
        let (mut child, last_word) = spawn(&args, &node)?;
        // Taken, since waiting for a child closes what it reads. It closes when this process dies,
        // by `kill -9` too, and the node ends: nobody else would know that it still runs.
        let _lifeline = child.stdin.take();
        info!(node = node.name, pid = child.id(), "started");
        let ended = tokio::select! { biased;
            _ = stopping.wait_for(|stop| *stop) => {
                end(&mut child).await;
                return Ok(());
            }
            ended = child.wait() => ended?,
        };
        if ended.code() == Some(i32::from(LASTING)) {
            let last_word = last_word.await.ok().flatten();
            let last_word = last_word.unwrap_or_else(|| "failed for good; see its log".to_owned());
            bail!("node {}: {last_word}", node.name);
        }
        deaths = if started.elapsed() < LIVED { deaths + 1 } else { 1 };
        if deaths >= DEATHS_MAX {
            bail!("node {} ended {deaths} times in a row ({ended}); see its last words", node.name);
        }
        let pause = (RESTART_AFTER * (1 << (deaths - 1).min(5))).min(RESTART_AFTER_MAX);
        warn!(node = node.name, %ended, pause_ms = pause.as_millis() as u64, "ended, starting it again");
        tokio::select! { biased;
            _ = stopping.wait_for(|stop| *stop) => return Ok(()),
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// The process, and how it says that it failed, at its end.
fn spawn(
    args: &Args,
    node: &NodeConfig,
) -> anyhow::Result<(Child, oneshot::Receiver<Option<String>>)> {
    let program = std::env::current_exe().context("path of this program")?;
    let mut command = Command::new(program);
    command.arg("--config").arg(&args.config).arg("--log").arg(&args.log);
    for set in &args.set {
        command.arg("--set").arg(set);
    }
    command.arg("run").arg("--name").arg(&node.name).arg("--until-stdin-ends");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.kill_on_drop(true);
    let mut child = command.spawn().with_context(|| format!("starting node {}", node.name))?;
    let (said, last_word) = oneshot::channel();
    if let Some(output) = child.stdout.take() {
        let answers = answers(node.name.clone(), output);
        // Nobody waits for it where the node ended well.
        actix_rt::spawn(async move { said.send(answers.await) });
    }
    if let Some(output) = child.stderr.take() {
        actix_rt::spawn(prefix(node.name.clone(), output));
    }
    Ok((child, last_word))
}

/// Copies what a node answers to standard error, without its failure, which the log has.
async fn answers(name: String, output: impl AsyncRead + Unpin) -> Option<String> {
    let mut last_word = None;
    let mut lines = BufReader::new(output).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        match serde_json::from_str(&line) {
            Ok(Failed { error }) => last_word = Some(error),
            Err(_) => eprintln_line(&name, &line),
        }
    }
    last_word
}

/// Copies a node's lines to standard error, its name before each.
async fn prefix(name: String, output: impl AsyncRead + Unpin) {
    let mut lines = BufReader::new(output).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        eprintln_line(&name, &line);
    }
}

#[allow(clippy::print_stderr, reason = "other processes' log lines, as they are")]
fn eprintln_line(name: &str, line: &str) {
    eprintln!("{name:>10} | {line}");
}

async fn end(child: &mut Child) {
    if let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok()) {
        let pid = nix::unistd::Pid::from_raw(pid);
        // It may have ended by itself.
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
    }
    if tokio::time::timeout(STOP_MAX, child.wait()).await.is_err() {
        let _ = child.kill().await;
    }
}
