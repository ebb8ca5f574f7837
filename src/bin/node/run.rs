//! `node run` and `node train`: one process's part of the cluster.

use std::process::ExitCode;

use gradmesh::config::{Config, Role};
use gradmesh::node::{Node, NodeBuilder, NodeError};
use gradmesh::progress;
use gradmesh::store::{CheckpointStore, StoreLock, open_store};
use gradmesh_actors::training::Progress;
use tokio::time::Instant;
use tracing::info;

use crate::summary::Summary;

/// What shells answer for a command that Ctrl-C has ended.
pub(crate) const INTERRUPTED: u8 = 130;

/// Trains, publishes, exits.
pub(crate) async fn train(config: Config, fresh: bool, json: bool) -> anyhow::Result<ExitCode> {
    if !config.nodes.is_empty() {
        anyhow::bail!("the configuration has [[nodes]]; use `node up --train`");
    }
    begin(&config, fresh).await?;
    let node = NodeBuilder::new(config).start().await?;
    finish(&node, json).await?;
    node.stop().await;
    Ok(ExitCode::SUCCESS)
}

/// Runs a node until Ctrl-C, or until `ends`.
pub(crate) async fn serve(
    config: Config,
    name: Option<String>,
    fresh: bool,
    json: bool,
    ends: impl Future<Output = ()>,
) -> anyhow::Result<ExitCode> {
    // The first of several coordinators: another one would discard what this one's run has written.
    let mut coordinators = config.nodes.iter().filter(|n| n.roles.contains(&Role::Coordinator));
    let first = coordinators.next().map(|node| &node.name);
    if fresh && name.as_ref().is_none_or(|name| first == Some(name)) {
        discard(&config).await?;
    }
    let node = NodeBuilder::new(config).name(name).serve(true).start().await?;
    if let Some(address) = node.http_address() {
        info!("serving on http://{address}/v2 and http://{address}/metrics");
    }
    let served = async {
        if node.status().is_some() {
            finish(&node, json).await?;
            if let Some(address) = node.http_address() {
                let model = &node.config().job.model.name;
                info!("http://{address}/v2/models/{model} serves it, Ctrl-C ends");
            }
        }
        std::future::pending::<anyhow::Result<()>>().await
    };
    tokio::select! { biased;
        _ = stopped() => info!("{}", last_word(&node)),
        () = ends => info!("stopping with the process that started this one"),
        failed = served => failed?,
    }
    node.stop().await;
    Ok(ExitCode::SUCCESS)
}

fn last_word(node: &Node) -> &'static str {
    let training = node.status().is_some_and(|status| {
        !matches!(status.borrow().progress, Progress::Done(_) | Progress::Failed { .. })
    });
    if training { "stopping; a restart goes on from the last checkpoint" } else { "stopping" }
}

/// Waits for the run and shows it.
async fn finish(node: &Node, json: bool) -> anyhow::Result<()> {
    let started = Instant::now();
    let watched = node.status().map(|status| actix_rt::spawn(progress::show(status)));
    let trained = node.trained().await;
    if let Some(watched) = watched {
        let _ = watched.await;
    }
    let (published, status) = trained?;
    Summary::new(node.config(), &published, &status, started.elapsed()).show(json)
}

/// Before a command that says to train: a job that is finished is trained again, one that was
/// interrupted goes on, unless `fresh`.
pub(crate) async fn begin(config: &Config, fresh: bool) -> anyhow::Result<()> {
    if fresh {
        return discard(config).await;
    }
    let _lock = lock(config).await?;
    Ok(checkpoints(config)?.forget_finished().await?)
}

pub(crate) async fn discard(config: &Config) -> anyhow::Result<()> {
    let _lock = lock(config).await?;
    Ok(checkpoints(config)?.discard().await?)
}

/// Makes sure that no other process writes checkpoints now. Whoever then coordinates takes the lock
/// itself.
pub(crate) async fn lock(config: &Config) -> Result<StoreLock, NodeError> {
    let lock = StoreLock::take(&config.checkpoint.store, &config.folder, None).await;
    lock.map_err(NodeError::store("checkpoint.store"))
}

fn checkpoints(config: &Config) -> anyhow::Result<CheckpointStore> {
    let store = open_store(&config.checkpoint.store, &config.folder);
    let store = store.map_err(NodeError::store("checkpoint.store"))?;
    Ok(CheckpointStore::new(store, config.checkpoint.store.clone(), config.checkpoint.keep))
}

/// Asks for a SIGCONT when the process that started this one has gone. Kernels continue a process group
/// that becomes an orphan only where all threads of a process have stopped by then.
pub(crate) fn continue_without_parent() {
    #[cfg(target_os = "linux")]
    if let Err(error) = nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGCONT) {
        tracing::debug!(%error, "whoever stops this process has to continue it");
    }
}

/// The end of standard input where that is watched; never elsewhere.
#[expect(clippy::disallowed_methods, reason = "a read of standard input can't be called off")]
pub(crate) async fn ended(watched: bool) {
    if !watched {
        return std::future::pending().await;
    }
    let (ended, wait) = tokio::sync::oneshot::channel::<()>();
    // The thread dies with the process.
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        drop(ended);
    });
    // The channel closes and carries nothing.
    let _ = wait.await;
}

/// Ctrl-C or SIGTERM from now on: afterwards no signal ends this process while there is something
/// to tidy up. `None` where one came already.
#[cfg(feature = "sim")]
pub(crate) fn stop() -> Option<futures_util::future::LocalBoxFuture<'static, std::io::Result<()>>> {
    use futures_util::FutureExt;
    let mut stop = stopped().boxed_local();
    // Polled once, it listens.
    stop.as_mut().now_or_never().is_none().then_some(stop)
}

/// Ctrl-C or SIGTERM.
pub(crate) async fn stopped() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! { biased;
        interrupted = tokio::signal::ctrl_c() => interrupted,
        _ = terminate.recv() => Ok(()),
    }
}
