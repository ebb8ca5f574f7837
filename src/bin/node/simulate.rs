//! `node simulate`: the cluster of a configuration under simulated faults.

use std::io::{IsTerminal, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, bail};
use comfy_table::{Table, presets};
use gradmesh::config::Config;
use gradmesh::sim::{
    CampaignError, Failure, Progress, Report, Seed, Sim, Summary, Swarm, read_plan,
};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use tokio::time::Instant;
use tracing::info;

use crate::answer;

/// Between two log lines where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// What is asked for.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) seeds: u64,
    pub(crate) from: u64,
    /// Only this one, with its timeline.
    pub(crate) seed: Option<u64>,
    /// `swarm`, or a file.
    pub(crate) faults: String,
    /// Of the shortened job; 0 for all of it.
    pub(crate) steps: u64,
    /// Of simulated time, for a seed.
    pub(crate) limit: Duration,
}

pub(crate) fn simulate(
    config: Config,
    file: &Path,
    wanted: Wanted,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let sim = match wanted.steps {
        0 => Sim::cluster(config)?,
        steps => Sim::short_cluster(config, steps)?,
    };
    let sim = sim.limit(wanted.limit);
    let sim = match wanted.faults.as_str() {
        "swarm" => sim.swarm(Swarm::default()),
        plan => {
            let plan = read_plan(Path::new(plan))?;
            // A misspelt name would find nothing.
            plan.check_nodes(&sim.names().collect::<Vec<_>>())?;
            sim.plan(plan)
        }
    };
    let repeat = format!(
        "node --config {} simulate --faults {} --steps {} --for {}s --seed {{seed}}",
        file.display(),
        wanted.faults,
        wanted.steps,
        wanted.limit.as_secs_f64()
    );
    let Wanted { from, seeds, .. } = wanted;
    let Some(end) = from.checked_add(seeds) else {
        bail!("there are no {seeds} seeds from {from} on; give a smaller --from");
    };
    let campaign = sim.seeds(from..end);
    let campaign = campaign
        .repeated_by(&repeat)
        .built_by(&format!("Sim::short_cluster(config, {}).unwrap()", wanted.steps));
    let started = Instant::now();
    let result = match wanted.seed {
        Some(seed) => campaign.repeat(Seed(seed), |report| story(report, json)),
        None => campaign.progress(show(wanted.seeds)).run(),
    };
    match result {
        Ok(summary) => {
            passed(&summary, started.elapsed(), json)?;
            Ok(ExitCode::SUCCESS)
        }
        Err(CampaignError::Broken(failure)) => broken(&failure, json),
        Err(error) => bail!(error),
    }
}

/// What happened in one run: to standard error where a script reads the rest.
fn story(report: &Report, json: bool) {
    let text = format!("{report}\n{}\n", report.timeline());
    let written = match json {
        true => std::io::stderr().write_all(text.as_bytes()),
        false => std::io::stdout().write_all(text.as_bytes()),
    };
    if let Err(error) = written {
        info!(%error, "nobody reads what happened");
    }
}

/// A bar on a terminal, log lines elsewhere.
fn show(seeds: u64) -> impl Fn(Progress<'_>) + Send + Sync {
    let bar = std::io::stderr().is_terminal().then(|| {
        let template = "{bar:30} {pos}/{len} seeds {msg} {elapsed_precise} passed, {eta} left";
        let style = ProgressStyle::with_template(template);
        let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
        ProgressBar::new(seeds).with_style(style)
    });
    let line = Mutex::new(Instant::now());
    move |progress| {
        let text = match &progress {
            Progress::Seed { done, .. } => {
                format!("{} faults, {} restarts", done.faults, done.restarts)
            }
            Progress::Shrinking { seed, runs, faults } => {
                format!("seed {seed} failed; shrinking: {faults} faults after {runs} runs")
            }
        };
        if let Some(bar) = &bar {
            if let Progress::Seed { done, .. } = progress {
                bar.set_position(done.seeds);
            }
            bar.set_message(text);
            return;
        }
        let Ok(mut last) = line.lock() else { return };
        if last.elapsed() >= LINE_EVERY {
            *last = Instant::now();
            match progress {
                Progress::Seed { done, of } => info!("{} of {of} seeds, {text}", done.seeds),
                Progress::Shrinking { .. } => info!("{text}"),
            }
        }
    }
}

fn passed(summary: &Summary, took: Duration, json: bool) -> anyhow::Result<()> {
    let simulated = summary.simulated.as_secs_f64();
    if json {
        let sometimes = &summary.sometimes;
        return answer::line(json!({
            "passed": true,
            "seeds": summary.seeds,
            "digest": summary.digest,
            "faults": summary.faults,
            "restarts": summary.restarts,
            "actor_restarts": summary.actor_restarts,
            "messages": summary.messages,
            "steps": summary.steps,
            "simulated_seconds": simulated,
            "seconds": took.as_secs_f64(),
            "trace_hash": summary.trace_hash(),
            "sometimes": sometimes,
        }));
    }
    let mut table = Table::new();
    table.load_preset(presets::UTF8_BORDERS_ONLY);
    table.add_row(["seeds", &format!("{} passed", summary.seeds)]);
    table.add_row(["digest", summary.digest.as_deref().unwrap_or("-")]);
    table.add_row(["faults", &summary.faults.to_string()]);
    let restarts = format!("{} of nodes, {} of actors", summary.restarts, summary.actor_restarts);
    table.add_row(["restarts", &restarts]);
    table.add_row(["messages", &summary.messages.to_string()]);
    let rate = simulated / took.as_secs_f64();
    let time = format!("{simulated:.0} s simulated in {:.1} s ({rate:.0} x)", took.as_secs_f64());
    table.add_row(["time", &time]);
    for (name, seeds) in &summary.sometimes {
        table.add_row([name, &format!("in {seeds} seeds")]);
    }
    answer::line(table)
}

/// The story on standard error, the plan on standard output: it can be saved and repeated.
fn broken(failure: &Failure, json: bool) -> anyhow::Result<ExitCode> {
    let report = failure.shrunk.as_ref().map_or(&failure.report, |shrunk| &shrunk.report);
    let plan = report.plan.to_toml();
    tracing::error!("{failure}");
    if json {
        let cause = failure.report.broken.as_ref().map(ToString::to_string);
        answer::line(json!({
            "passed": false,
            "seed": failure.report.seed.0,
            "cause": cause,
            "command": failure.command,
            "plan": plan,
            "regression_test": failure.regression_test,
        }))?;
    } else {
        answer::line(format_args!("# seed {}\n{plan}", failure.report.seed))
            .context("the shrunk plan")?;
    }
    Ok(ExitCode::FAILURE)
}
