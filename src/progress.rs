//! A run's progress for people: a bar on a terminal, log lines elsewhere.

use std::io::IsTerminal;
use std::time::Duration;

use gradmesh_actors::ledger::EpochRecord;
use gradmesh_actors::training::{Progress, TrainingStatus};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::info;

/// Between two log lines of a long epoch.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Shows a run until it ends.
pub async fn show(mut status: watch::Receiver<TrainingStatus>) {
    let bar = std::io::stderr().is_terminal().then(bar);
    let mut lines = Lines::new();
    loop {
        let now = status.borrow_and_update().clone();
        match &bar {
            Some(bar) => draw(bar, &now),
            None => lines.write(&now),
        }
        let ended = matches!(now.progress, Progress::Done(_) | Progress::Failed { .. });
        if ended || status.changed().await.is_err() {
            break;
        }
    }
    if let Some(bar) = bar {
        bar.finish();
    }
}

fn bar() -> ProgressBar {
    let template = "{bar:30} step {pos}/{len} {msg} {elapsed_precise} passed, {eta_precise} left";
    let style = ProgressStyle::with_template(template);
    ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

fn draw(bar: &ProgressBar, status: &TrainingStatus) {
    bar.set_length(status.last_version.map_or(0, |last| last.0));
    bar.set_position(status.version.0);
    let rate = rows_a_second(status, bar.per_sec());
    bar.set_message(format!("{} {rate:.0} rows/s", describe(status)));
}

fn rows_a_second(status: &TrainingStatus, steps_a_second: f64) -> f64 {
    match (status.train_rows, status.steps_per_epoch) {
        (Some(rows), Some(steps)) if steps > 0 => steps_a_second * rows as f64 / steps as f64,
        _ => 0.0,
    }
}

/// The newest figures: loss of the epoch under way, accuracy of the last one.
fn describe(status: &TrainingStatus) -> String {
    let ledger = &status.ledger;
    let mut text = format!("epoch {}", ledger.epochs() + 1);
    if ledger.rows > 0 {
        text += &format!(" loss {:.4}", ledger.loss / ledger.rows as f64);
    }
    if let Some(accuracy) = ledger.finished.iter().rev().find_map(|epoch| epoch.test_accuracy) {
        text += &format!(" accuracy {:.2} %", accuracy * 100.0);
    }
    text
}

/// What has been written, so that each thing is written once.
struct Lines {
    started: Instant,
    written: Instant,
    /// The newest epoch of which all was written.
    epochs: u64,
    phase: Option<Progress>,
}

impl Lines {
    fn new() -> Self {
        let now = Instant::now();
        Self { started: now, written: now, epochs: 0, phase: None }
    }

    fn write(&mut self, status: &TrainingStatus) {
        if self.phase.as_ref() != Some(&status.progress) {
            self.phase = Some(status.progress.clone());
            if status.progress == Progress::Gathering {
                info!(shards = status.shards, workers = status.workers, "waiting for the cluster");
            }
        }
        let told = self.epochs;
        let is_news = |epoch: &&EpochRecord| epoch.test_loss.is_some() && epoch.epoch > told;
        for epoch in status.ledger.finished.iter().filter(is_news) {
            let accuracy = epoch.test_accuracy.map(|accuracy| format!("{:.2} %", accuracy * 100.0));
            info!(
                epoch = epoch.epoch,
                train_loss = format!("{:.4}", epoch.train_loss),
                accuracy = accuracy.as_deref().unwrap_or("-"),
                "epoch done"
            );
            self.epochs = epoch.epoch;
            self.written = Instant::now();
        }
        if self.written.elapsed() < LINE_EVERY {
            return;
        }
        self.written = Instant::now();
        let last = status.last_version.map_or(0, |last| last.0);
        let rate = status.version.0 as f64 / self.started.elapsed().as_secs_f64();
        let left = (last.saturating_sub(status.version.0)) as f64 / rate.max(1e-9);
        info!(
            step = status.version.0,
            of = last,
            rows_a_second = format!("{:.0}", rows_a_second(status, rate)),
            seconds_left = format!("{left:.0}"),
            "{}",
            describe(status)
        );
    }
}
