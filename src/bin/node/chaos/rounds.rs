//! `node chaos random`: rounds of the job, each under a plan of its own, until enough was killed.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use comfy_table::{Table, presets};
use futures_util::future::LocalBoxFuture;
use gradmesh::config::Config;
use serde_json::json;
use tokio::time::Instant;
use tracing::{error, info, warn};

use super::calm::Calm;
use super::cluster::{Cluster, Ways, stores_in};
use super::outcome::{Outcome, Verdict};
use super::ports::Ports;
use super::random::{Random, keep};
use super::run;
use crate::run::{INTERRUPTED, stop};
use crate::temporary;

/// Rounds in a row that were over before anything was killed.
const IDLE_ROUNDS_MAX: u64 = 3;
/// What a primary says when a copy refuses its step, because there is another primary.
const FENCED: &str = "fenced: no longer the primary";

#[derive(Debug, Default)]
struct Totals {
    rounds: u64,
    killed: usize,
    paused: usize,
    restarts: usize,
    promotions: u64,
    rollbacks: u64,
    /// Steps of primaries that were none any more, refused.
    fenced: usize,
    digest: String,
    /// Of the round that did not pass, the last one.
    cause: Option<String>,
}

pub(crate) async fn random(
    mut config: Config,
    random: Random,
    limit: Duration,
    json: bool,
) -> anyhow::Result<ExitCode> {
    super::give_nodes(&mut config);
    random.check(&config.nodes)?;
    let Some(stop) = stop() else { return Ok(ExitCode::from(INTERRUPTED)) };
    let folder = temporary::make("chaos")?;
    let started = Instant::now();
    let totals = rounds(&config, &random, limit, &folder, stop).await;
    let said = || format!("what the nodes said is in {}", folder.display());
    let Some(totals) = totals.with_context(said)? else {
        temporary::discard(&folder);
        warn!("stopped before the end; nothing is known");
        return Ok(ExitCode::from(INTERRUPTED));
    };
    totals.show(random.seed, started.elapsed(), json)?;
    if let Some(cause) = &totals.cause {
        error!("round {}: {cause}; its plan and {}", totals.rounds, said());
        return Ok(ExitCode::FAILURE);
    }
    temporary::discard(&folder);
    Ok(ExitCode::SUCCESS)
}

/// No process of it is left afterwards. `None` where the user stopped it.
async fn rounds(
    config: &Config,
    random: &Random,
    limit: Duration,
    folder: &Path,
    mut stop: LocalBoxFuture<'_, std::io::Result<()>>,
) -> anyhow::Result<Option<Totals>> {
    let mut ports = Ports::new();
    let mut calm = Calm::start(&stores_in(config, &folder.join("calm")), folder, &mut ports)?;
    let digest = tokio::select! { biased;
        _ = &mut stop => None,
        digest = calm.digest(limit) => Some(digest),
    };
    calm.end().await;
    let Some(digest) = digest.transpose()? else { return Ok(None) };
    let mut totals = Totals { digest: digest.clone(), ..Totals::default() };
    let mut idle = 0;
    while totals.killed < random.kills && totals.cause.is_none() {
        let plan = random.plan(totals.rounds, &config.nodes);
        let folder = folder.join(format!("round-{}", totals.rounds));
        std::fs::create_dir(&folder)?;
        keep(&plan, &folder)?;
        let (mut cluster, config) =
            Cluster::prepare(config, &folder, &mut ports, Ways::Direct).await?;
        let outcome = tokio::select! { biased;
            _ = &mut stop => None,
            outcome = run(&config, &plan, &mut cluster, limit, digest.clone()) => Some(outcome),
        };
        cluster.end().await;
        let Some(outcome) = outcome.transpose()? else { return Ok(None) };
        idle = if cluster.killed() == 0 { idle + 1 } else { 0 };
        totals.add(&outcome, &cluster);
        if idle == IDLE_ROUNDS_MAX {
            bail!("{idle} rounds were over before anything was killed; raise job.epochs");
        }
        info!(round = totals.rounds, killed = totals.killed, of = random.kills, "round done");
        if totals.cause.is_none() {
            temporary::discard(&folder);
            totals.rounds += 1;
        }
    }
    Ok(Some(totals))
}

impl Totals {
    fn add(&mut self, outcome: &Outcome, cluster: &Cluster) {
        self.killed += cluster.killed();
        self.paused += cluster.paused();
        self.restarts += cluster.restarts();
        self.fenced += cluster.said(FENCED);
        self.promotions += outcome.recoveries.promotions;
        self.rollbacks += outcome.recoveries.rollbacks;
        // A round that was over before its first fault says nothing.
        let judged = !matches!(outcome.verdict, Verdict::NoFault);
        self.cause = outcome.cause().filter(|_| judged);
    }

    fn show(&self, seed: u64, took: Duration, json: bool) -> anyhow::Result<()> {
        let seconds = took.as_secs_f64();
        if json {
            return crate::answer::line(json!({
                "passed": self.cause.is_none(),
                "cause": self.cause,
                "seed": seed,
                "digest": self.digest,
                "rounds": self.rounds,
                "killed": self.killed,
                "paused": self.paused,
                "restarts": self.restarts,
                "promotions": self.promotions,
                "rollbacks": self.rollbacks,
                "fenced": self.fenced,
                "seconds": seconds,
            }));
        }
        let mut table = Table::new();
        table.load_preset(presets::UTF8_BORDERS_ONLY);
        let rounds = format!("{} of seed {seed}, {seconds:.0} s", self.rounds);
        table.add_row(["rounds", &rounds]);
        let hit = format!("{} SIGKILL, {} SIGSTOP and SIGCONT", self.killed, self.paused);
        table.add_row(["processes hit", &hit]);
        let healed = format!(
            "{} restarts, {} promotions, {} rollbacks, {} times a stale primary refused",
            self.restarts, self.promotions, self.rollbacks, self.fenced
        );
        table.add_row(["healed", &healed]);
        let digest = match &self.cause {
            None => format!("{}, the calm run's, in each round", self.digest),
            Some(_) => format!("not {} in the last round", self.digest),
        };
        table.add_row(["digest", &digest]);
        crate::answer::line(table)
    }
}
