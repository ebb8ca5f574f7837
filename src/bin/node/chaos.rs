//! `node chaos`: a fault plan against real processes, and the digest beside the calm run's.

mod calm;
mod changes;
mod cluster;
mod outcome;
mod ports;
mod recoveries;

use std::io::IsTerminal;
use std::path::Path;
use std::pin::pin;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use futures_util::FutureExt;
use gradmesh::config::Config;
use gradmesh::node::{NodeContext, OperatingSystem};
use gradmesh::progress;
use gradmesh::sim::{FaultPlan, one_role_each, read_plan};
use gradmesh_actors::training::{Progress, TrainingStatus};
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{error, info, warn};

use crate::run::stopped;
use crate::status::Coordinators;
use calm::Calm;
use changes::Changes;
use cluster::Cluster;
use outcome::{Outcome, Verdict};
use ports::Ports;
use recoveries::Recoveries;

/// Between two looks at processes and plan.
const LOOK_EVERY: Duration = Duration::from_millis(20);
const ASK_EVERY: Duration = Duration::from_millis(50);
/// What shells answer for a command that Ctrl-C has ended.
const INTERRUPTED: u8 = 130;

pub(crate) async fn chaos(
    mut config: Config,
    plan: &Path,
    limit: Duration,
    json: bool,
) -> anyhow::Result<ExitCode> {
    if limit.is_zero() {
        bail!("nothing is trained in 0 s; raise --for");
    }
    let plan = read_plan(plan)?;
    if config.nodes.is_empty() {
        config.nodes = one_role_each(&config);
    }
    let names: Vec<&str> = config.nodes.iter().map(|node| &*node.name).collect();
    plan.check_nodes(&names)?;
    // Polled once it listens: no signal may end this process when there is something to tidy up.
    let mut stop = pin!(stopped());
    if stop.as_mut().now_or_never().is_some() {
        return Ok(ExitCode::from(INTERRUPTED));
    }
    // A number of a process comes again, a time does not.
    let (process, time) = (OperatingSystem.entropy(), OperatingSystem.unix_time().as_micros());
    let folder = std::env::temp_dir().join(format!("gradmesh-chaos-{process}-{time}"));
    std::fs::create_dir(&folder)
        .with_context(|| format!("folder {} can't be made; set TMPDIR", folder.display()))?;
    let outcome = in_folder(&config, &plan, limit, &folder, stop).await;
    let said = || format!("what the nodes said is in {}", folder.display());
    let Some(outcome) = outcome.with_context(said)? else {
        discard(&folder);
        warn!("stopped before the end; nothing is known of the plan");
        return Ok(ExitCode::from(INTERRUPTED));
    };
    outcome.show(json)?;
    if let Some(cause) = outcome.cause() {
        error!("{cause}; {}", said());
        return Ok(ExitCode::FAILURE);
    }
    discard(&folder);
    Ok(ExitCode::SUCCESS)
}

/// Runs both; no process of it is left afterwards. `None` where the user stopped it.
async fn in_folder(
    config: &Config,
    plan: &FaultPlan,
    limit: Duration,
    folder: &Path,
    stop: impl Future<Output = std::io::Result<()>>,
) -> anyhow::Result<Option<Outcome>> {
    let mut ports = Ports::new();
    let mut calm = Calm::start(config, folder, &mut ports)?;
    let cluster = Cluster::prepare(config, folder, &mut ports).await;
    let (mut cluster, config) = match cluster {
        Ok(cluster) => cluster,
        Err(error) => {
            calm.end().await;
            return Err(error);
        }
    };
    let both = async {
        let calm_digest = calm.digest(limit).await?;
        info!(digest = calm_digest, "calm run done; now under faults");
        run(&config, plan, &mut cluster, limit, calm_digest).await
    };
    let outcome = tokio::select! { biased;
        _ = stop => Ok(None),
        outcome = both => outcome.map(Some),
    };
    calm.end().await;
    cluster.end().await;
    outcome
}

fn discard(folder: &Path) {
    if let Err(error) = std::fs::remove_dir_all(folder) {
        warn!(folder = %folder.display(), %error, "temporary folder not removed");
    }
}

async fn run(
    config: &Config,
    plan: &FaultPlan,
    cluster: &mut Cluster,
    limit: Duration,
    calm_digest: String,
) -> anyhow::Result<Outcome> {
    let mut changes = Changes::new(plan);
    let mut recoveries = Recoveries::default();
    let coordinators = Coordinators::of(config)?;
    let (sender, mut heard) = watch::channel(None);
    // Beside this loop: a coordinator that is stopped answers nothing, and its fault must end.
    let asking = Aborted(actix_rt::spawn(ask(coordinators, sender)));
    let started = Instant::now();
    cluster.start_all()?;
    let (verdict, digest) = loop {
        changes.make(started.elapsed(), recoveries.at_step(), cluster)?;
        cluster.look()?;
        if heard.has_changed().unwrap_or(false)
            && let Some(status) = &*heard.borrow_and_update()
        {
            recoveries.note(status);
            match &status.progress {
                Progress::Done(published) if published.digest == calm_digest => {
                    break (Verdict::Same, Some(published.digest.clone()));
                }
                Progress::Done(published) => {
                    break (Verdict::OtherDigest, Some(published.digest.clone()));
                }
                Progress::Failed { cause } => break (Verdict::Failed(cause.clone()), None),
                _ => {}
            }
        }
        if started.elapsed() > limit {
            break (Verdict::NotTrained { limit }, None);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    };
    drop(asking);
    let verdict = match verdict {
        Verdict::Same if changes.none_of_some() => Verdict::NoFault,
        verdict => verdict,
    };
    Ok(Outcome {
        verdict,
        digest,
        calm_digest,
        seconds: started.elapsed().as_secs_f64(),
        begun: changes.begun(),
        faults: changes.told(),
        restarts: cluster.restarts(),
        recoveries,
        frames: cluster.frames(),
    })
}

/// A task that ends with whoever holds it.
struct Aborted(actix_rt::task::JoinHandle<()>);

impl Drop for Aborted {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn ask(coordinators: Coordinators, heard: watch::Sender<Option<TrainingStatus>>) {
    let mut shown: Option<watch::Sender<TrainingStatus>> = None;
    loop {
        if let Ok(status) = coordinators.status().await {
            match &shown {
                Some(shown) => drop(shown.send_replace(status.clone())),
                // Elsewhere the log lines of faults and recoveries are enough.
                None if std::io::stderr().is_terminal() => {
                    let (sender, receiver) = watch::channel(status.clone());
                    actix_rt::spawn(progress::show(receiver));
                    shown = Some(sender);
                }
                None => {}
            }
            heard.send_replace(Some(status));
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
}
