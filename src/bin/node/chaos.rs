//! `node chaos`: a fault plan against real processes, and the digest beside the calm run's.

pub(crate) mod calm;
mod changes;
pub(crate) mod cluster;
mod operator;
mod outcome;
pub(crate) mod ports;
pub(crate) mod random;
pub(crate) mod recoveries;
mod rounds;

use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use gradmesh::config::Config;
use gradmesh::progress;
use gradmesh::sim::{FaultPlan, one_role_each, read_plan};
use gradmesh_actors::training::{Progress, TrainingStatus};
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{error, info, warn};

use crate::run::{INTERRUPTED, stop};
use crate::status::Coordinators;
use crate::temporary;
use calm::Calm;
use changes::Changes;
use cluster::{Cluster, Ways, stores_in};
use outcome::{Outcome, Verdict};
use ports::Ports;
use recoveries::Recoveries;
pub(crate) use rounds::random as random_rounds;

/// Between two looks at processes and plan.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(20);
const ASK_EVERY: Duration = Duration::from_millis(50);

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
    give_nodes(&mut config);
    let names: Vec<&str> = config.nodes.iter().map(|node| &*node.name).collect();
    plan.check_nodes(&names)?;
    let Some(stop) = stop() else { return Ok(ExitCode::from(INTERRUPTED)) };
    let folder = temporary::make("chaos")?;
    let outcome = in_folder(&config, &plan, limit, &folder, stop).await;
    let said = || format!("what the nodes said is in {}", folder.display());
    let Some(outcome) = outcome.with_context(said)? else {
        temporary::discard(&folder);
        warn!("stopped before the end; nothing is known of the plan");
        return Ok(ExitCode::from(INTERRUPTED));
    };
    outcome.show(json)?;
    if let Some(cause) = outcome.cause() {
        error!("{cause}; {}", said());
        return Ok(ExitCode::FAILURE);
    }
    temporary::discard(&folder);
    Ok(ExitCode::SUCCESS)
}

/// A process each, where the configuration has no `[[nodes]]`.
fn give_nodes(config: &mut Config) {
    if config.nodes.is_empty() {
        config.nodes = one_role_each(config);
    }
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
    let mut calm = Calm::start(&stores_in(config, &folder.join("calm")), folder, &mut ports)?;
    let cluster = Cluster::prepare(config, folder, &mut ports, Ways::Faulty).await;
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
pub(crate) struct Aborted(pub(crate) actix_rt::task::JoinHandle<()>);

impl Drop for Aborted {
    fn drop(&mut self) {
        self.0.abort();
    }
}

pub(crate) async fn ask(coordinators: Coordinators, heard: watch::Sender<Option<TrainingStatus>>) {
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
