//! `node demo`: a cluster that trains and serves while its processes are killed, and the digest
//! beside a calm run's.

mod client;
mod killer;
mod nodes;
mod outcome;
mod questions;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use futures_util::future::LocalBoxFuture;
use gradmesh::config::{Config, Role};
use gradmesh::node::{NodeContext, OperatingSystem};
use gradmesh_actors::training::{Progress, Published};
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{error, info, warn};

use crate::chaos::calm::Calm;
use crate::chaos::cluster::{Cluster, STORES, Ways, stores_in};
use crate::chaos::ports::Ports;
use crate::chaos::recoveries::Recoveries;
use crate::chaos::{Aborted, LOOK_EVERY, ask};
use crate::run::{INTERRUPTED, stop};
use crate::status::Coordinators;
use crate::temporary;
use client::Client;
use killer::Killer;
use outcome::Outcome;
use questions::questions;

/// What a cluster under kills takes for an epoch, in times of what one process takes that does
/// nothing else; measured on two cores.
const SLOWER: f64 = 1.5;
/// A run that is not done in so many times what it should last hangs.
const HANGS_AFTER: u32 = 10;
/// And never before this: a start takes its time, whatever comes after it.
const HANGS_AFTER_MIN: Duration = Duration::from_secs(60);
/// In which services find the version that was just published: they look ten times a second.
const SERVED_WITHIN: Duration = Duration::from_secs(10);

/// What the command line asks for.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) lasts: Duration,
    pub(crate) every: Duration,
    pub(crate) seed: Option<u64>,
    /// Whom to kill; everyone where there are none.
    pub(crate) roles: Vec<Role>,
    pub(crate) epochs: Option<u64>,
}

pub(crate) async fn demo(
    mut config: Config,
    wanted: Wanted,
    json: bool,
) -> anyhow::Result<ExitCode> {
    if wanted.every.is_zero() || wanted.lasts < wanted.every {
        bail!("nobody is killed in {:?}; raise --for, or lower --every", wanted.lasts);
    }
    nodes::give(&mut config);
    let Some(stop) = stop() else { return Ok(ExitCode::from(INTERRUPTED)) };
    let folder = temporary::make("demo")?;
    let outcome = in_folder(&config, &wanted, &folder, stop).await;
    let said = || format!("what the nodes said is in {}", folder.display());
    let Some(outcome) = outcome.with_context(said)? else {
        temporary::discard(&folder);
        warn!("stopped before the end");
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

/// No process of it is left afterwards. `None` where the user stopped it.
async fn in_folder(
    config: &Config,
    wanted: &Wanted,
    folder: &Path,
    mut stop: LocalBoxFuture<'_, std::io::Result<()>>,
) -> anyhow::Result<Option<Outcome>> {
    let mut ports = Ports::new();
    let calm = tokio::select! { biased;
        _ = &mut stop => return Ok(None),
        calm = calm_run(config, wanted, folder, &mut ports) => calm?,
    };
    let (mut cluster, config) =
        Cluster::prepare(&calm.config, folder, &mut ports, Ways::Direct).await?;
    let outcome = tokio::select! { biased;
        _ = stop => Ok(None),
        outcome = under_kills(&config, wanted, &mut cluster, calm.digest) => outcome.map(Some),
    };
    cluster.end().await;
    outcome
}

/// The job as it is trained, and what must come of it.
struct CalmRun {
    config: Config,
    digest: String,
}

/// Trains in one process where nothing is killed. The cluster serves what it publishes until it has
/// trained the same.
async fn calm_run(
    config: &Config,
    wanted: &Wanted,
    folder: &Path,
    ports: &mut Ports,
) -> anyhow::Result<CalmRun> {
    let mut config = config.clone();
    let given = config.job.epochs;
    config.job.epochs = match wanted.epochs {
        Some(epochs) => epochs,
        None => {
            let started = Instant::now();
            let pilot = stores_in(&config, &folder.join("pilot"));
            train_calmly(&pilot, folder, ports).await?;
            let epoch = started.elapsed().as_secs_f64() * SLOWER / given as f64;
            ((wanted.lasts.as_secs_f64() / epoch).ceil() as u64).max(1)
        }
    };
    let epochs = config.job.epochs;
    info!(
        epochs,
        configured = given,
        "the job, as long as the demonstration takes; calm run first"
    );
    let mut calm = stores_in(&config, &folder.join("calm"));
    // The cluster's: it serves this version from its start.
    calm.registry.store = stores_in(&config, &folder.join(STORES)).registry.store;
    let digest = train_calmly(&calm, folder, ports).await?;
    Ok(CalmRun { config, digest })
}

async fn train_calmly(config: &Config, folder: &Path, ports: &mut Ports) -> anyhow::Result<String> {
    let mut calm = Calm::start(config, folder, ports)?;
    let digest = calm.digest(Duration::MAX).await;
    calm.end().await;
    digest
}

async fn under_kills(
    config: &Config,
    wanted: &Wanted,
    cluster: &mut Cluster,
    calm_digest: String,
) -> anyhow::Result<Outcome> {
    let seed = wanted.seed.unwrap_or_else(|| OperatingSystem.entropy());
    info!(seed, digest = calm_digest, "calm run done; now on processes that are killed");
    let (sender, mut heard) = watch::channel(None);
    let asking = Aborted(actix_rt::spawn(ask(Coordinators::of(config)?, sender)));
    cluster.start_all()?;
    let (client, answers) = Client::start(questions(config)?);
    let limit = (wanted.lasts * HANGS_AFTER).max(HANGS_AFTER_MIN);
    let started = Instant::now();
    let (mut killer, mut recoveries) = (None, Recoveries::default());
    let published: Published = loop {
        cluster.look()?;
        if let Some(status) =
            heard.has_changed()?.then(|| heard.borrow_and_update().clone()).flatten()
        {
            recoveries.note(&status);
            match status.progress {
                Progress::Done(published) => break published,
                Progress::Failed { cause } => bail!("training failed: {cause}"),
                // Once it trains and serves, the killing begins.
                Progress::Running if answers.borrow().both_serve => {
                    killer.get_or_insert_with(|| Killer::new(seed, wanted, &config.nodes));
                }
                _ => {}
            }
        }
        if let Some(killer) = &mut killer {
            killer.look(cluster, recoveries.at_step());
        }
        if started.elapsed() > limit {
            bail!("not trained within {} s, step {}", limit.as_secs(), recoveries.at_step());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    };
    drop(asking);
    let trained = started.elapsed();
    served(&answers, published.version, cluster).await?;
    Ok(Outcome {
        seed,
        epochs: config.job.epochs,
        seconds: trained.as_secs_f64(),
        kills: killer.map(Killer::tally).unwrap_or_default(),
        recoveries,
        answers: client.end(),
        version: published.version,
        digest: published.digest,
        calm_digest,
    })
}

/// Waits until a service has answered with this version.
async fn served(
    answers: &watch::Receiver<client::Tally>,
    version: u64,
    cluster: &mut Cluster,
) -> anyhow::Result<()> {
    let until = Instant::now() + SERVED_WITHIN;
    while answers.borrow().newest < version {
        if Instant::now() > until {
            bail!(
                "version {version} is not served {} s after it was published",
                SERVED_WITHIN.as_secs()
            );
        }
        cluster.look()?;
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(())
}
