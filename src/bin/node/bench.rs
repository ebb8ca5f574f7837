//! `node bench`: what this machine can do, and gradmesh beside it, in one interleaved run.
//!
//! Each round measures every row once, the limit and gradmesh one after the other, so that what
//! the machine does meanwhile hits both. Medians over rounds; only ratios mean something.

mod apply;
mod bare;
mod exchange;
mod limits;
mod load;
mod memory;
mod plain;
mod pushes;
mod requests;
mod resident;
mod row;
mod serving;
mod training;

use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use comfy_table::{CellAlignment, Table, presets};
use gradmesh::config::Config;
use indicatif::ProgressBar;
use serde_json::json;
use tracing::info;

use crate::run::{INTERRUPTED, stop};
use crate::temporary;
use row::Row;

/// What the command line asks for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    pub(crate) quick: bool,
    pub(crate) rounds: usize,
    pub(crate) only: Option<Part>,
    /// Asks the service so often, and looks at its memory instead of the clock.
    pub(crate) requests: Option<u64>,
    /// Pushes so often to a server, and looks at memory instead of the clock.
    pub(crate) pushes: Option<u64>,
}

/// What can be measured alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Part {
    /// Push and pull between two processes.
    Exchange,
    /// The server's step.
    Apply,
    /// Whole training runs.
    Training,
    /// The HTTP service.
    Serving,
}

/// How long each measurement of a round takes.
#[derive(Clone, Copy, Debug)]
struct Effort {
    /// Of a loop that repeats what takes micro- or milliseconds.
    repeats: Duration,
    /// Of a training run, after its warm-up.
    training: Duration,
    /// Bytes of the largest exchange.
    largest: usize,
}

impl Effort {
    const FULL: Self = Self {
        repeats: Duration::from_secs(1),
        training: Duration::from_secs(4),
        largest: 64 << 20,
    };
    const QUICK: Self = Self {
        repeats: Duration::from_millis(200),
        training: Duration::from_millis(700),
        largest: 16 << 20,
    };
}

pub(crate) async fn bench(config: Config, wanted: Wanted, json: bool) -> anyhow::Result<ExitCode> {
    let Some(stop) = stop() else { return Ok(ExitCode::from(INTERRUPTED)) };
    let folder = temporary::make("bench")?;
    let effort = if wanted.quick { Effort::QUICK } else { Effort::FULL };
    let rounds = if wanted.quick { 1 } else { wanted.rounds };
    let said = || format!("what the nodes said is in {}", folder.display());
    let measure = async {
        Ok(match (wanted.requests, wanted.pushes) {
            (Some(requests), _) => {
                Measured::Memory(memory::memory(&config, requests, &folder).await?)
            }
            (None, Some(pushes)) => {
                Measured::Pushes(pushes::pushes(&config, pushes, &folder).await?)
            }
            (None, None) => {
                Measured::Rows(rows(&config, effort, rounds, wanted.only, &folder).await?)
            }
        })
    };
    let measured: Option<anyhow::Result<_>> = tokio::select! { biased;
        _ = stop => None,
        measured = measure => Some(measured),
    };
    let Some(measured) = measured else {
        temporary::discard(&folder);
        return Ok(ExitCode::from(INTERRUPTED));
    };
    let measured = measured.with_context(said)?;
    temporary::discard(&folder);
    match measured {
        Measured::Rows(rows) => show(&rows, rounds, json).map(|()| ExitCode::SUCCESS),
        Measured::Memory(memory) => memory.show(json),
        Measured::Pushes(pushes) => pushes.show(json),
    }
}

enum Measured {
    Rows(Vec<Row>),
    Memory(memory::Memory),
    Pushes(pushes::Pushes),
}

/// On a terminal, and nowhere else.
fn progress(length: u64) -> ProgressBar {
    if std::io::stderr().is_terminal() { ProgressBar::new(length) } else { ProgressBar::hidden() }
}

async fn rows(
    config: &Config,
    effort: Effort,
    rounds: usize,
    only: Option<Part>,
    folder: &Path,
) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    let bar = progress(rounds as u64);
    for round in 1..=rounds {
        let folder = folder.join(format!("round-{round}"));
        std::fs::create_dir(&folder).context("temporary folder")?;
        let wants = |part| only.is_none_or(|only| only == part);
        if wants(Part::Exchange) {
            row::gather(&mut rows, exchange::rows(config, effort, &folder).await?);
        }
        if wants(Part::Apply) {
            row::gather(&mut rows, apply::rows(config, effort)?);
        }
        if wants(Part::Training) {
            row::gather(&mut rows, training::rows(config, effort, &folder).await?);
        }
        if wants(Part::Serving) {
            row::gather(&mut rows, serving::rows(config, effort, &folder).await?);
        }
        bar.inc(1);
        info!(round, rounds, "measured");
    }
    bar.finish_and_clear();
    Ok(rows)
}

fn show(rows: &[Row], rounds: usize, json: bool) -> anyhow::Result<()> {
    if json {
        let rows: Vec<_> = rows.iter().map(Row::to_json).collect();
        return crate::answer::line(json!({ "rounds": rounds, "rows": rows }));
    }
    let mut table = Table::new();
    table.load_preset(presets::UTF8_BORDERS_ONLY);
    table.set_header(["", "gradmesh", "limit", "ratio", "goal"]);
    for row in rows {
        table.add_row(row.cells());
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    crate::answer::line(table)
}
