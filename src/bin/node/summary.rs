//! What a finished run says of itself.

use std::path::PathBuf;
use std::time::Duration;

use crate::answer;

use comfy_table::{Table, presets};
use gradmesh::config::Config;
use gradmesh::curve;
use gradmesh_actors::training::{Published, TrainingStatus};
use serde::Serialize;
use tracing::warn;

/// One object on standard output with `--json`, a table without.
#[derive(Debug, Serialize)]
pub(crate) struct Summary {
    model: String,
    version: u64,
    digest: String,
    steps: u64,
    epochs: u64,
    train_loss: Option<f64>,
    test_loss: Option<f64>,
    test_accuracy: Option<f64>,
    /// Training rows that counted, over all epochs.
    rows: u64,
    /// Steps that an earlier process had done: not in `seconds`, `samples_per_second` and bytes.
    resumed_from: u64,
    seconds: f64,
    samples_per_second: f64,
    bytes_pushed: u64,
    bytes_pushed_uncompressed: u64,
    bytes_pulled: u64,
    bytes_replicated: u64,
    promotions: u64,
    rollbacks: u64,
    /// Views in which shards went on as they were.
    new_leases: u64,
    /// The run's loss curve, beside the model.
    curve: Option<PathBuf>,
    #[serde(skip)]
    svg: String,
}

impl Summary {
    pub(crate) fn new(
        config: &Config,
        published: &Published,
        status: &TrainingStatus,
        took: Duration,
    ) -> Self {
        let last = status.ledger.finished.last();
        // Each has as many.
        let rows = last.map_or(0, |last| last.rows.saturating_mul(last.epoch));
        let steps = status.last_version.map_or(0, |last| last.0);
        let resumed_from = status.resumed_from.map_or(0, |version| version.0);
        let done = steps.saturating_sub(resumed_from) as f64 / steps.max(1) as f64;
        let folder = format!("models/{}/{}", published.model, published.version);
        Self {
            model: published.model.clone(),
            version: published.version,
            digest: published.digest.clone(),
            steps,
            epochs: status.ledger.epochs(),
            train_loss: last.map(|epoch| epoch.train_loss),
            test_loss: last.and_then(|epoch| epoch.test_loss),
            test_accuracy: last.and_then(|epoch| epoch.test_accuracy),
            rows,
            resumed_from,
            seconds: took.as_secs_f64(),
            samples_per_second: rows as f64 * done / took.as_secs_f64(),
            bytes_pushed: status.bytes.pushed,
            bytes_pushed_uncompressed: status.bytes.pushed_dense,
            bytes_pulled: status.bytes.pulled,
            bytes_replicated: status.bytes.replicated,
            promotions: status.promotions,
            rollbacks: status.rollbacks,
            new_leases: status.new_leases,
            curve: Some(config.path(&config.registry.store).join(folder).join("loss.svg")),
            svg: curve::svg(&published.model, &status.ledger.finished),
        }
    }

    pub(crate) fn show(mut self, json: bool) -> anyhow::Result<()> {
        if let Some(path) = &self.curve
            && let Err(error) = std::fs::write(path, &self.svg)
        {
            warn!(path = %path.display(), %error, "loss curve not written");
            self.curve = None;
        }
        if json {
            return answer::line(serde_json::to_string(&self)?);
        }
        let percent = |part: f64| format!("{:.2} %", part * 100.0);
        let number = |value: f64| format!("{value:.4}");
        let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        let mut table = Table::new();
        table.load_preset(presets::UTF8_BORDERS_ONLY);
        table.add_row(["model", &format!("{} version {}", self.model, self.version)]);
        table.add_row(["digest", &self.digest]);
        table.add_row(["test accuracy", &or_none(self.test_accuracy.map(percent))]);
        table.add_row(["test loss", &or_none(self.test_loss.map(number))]);
        table.add_row(["train loss", &or_none(self.train_loss.map(number))]);
        let mut steps = format!("{} in {} epochs", self.steps, self.epochs);
        if self.resumed_from > 0 {
            steps += &format!(", {} of them before", self.resumed_from);
        }
        table.add_row(["steps", &steps]);
        let rate = format!("{:.1} s, {:.0} rows/s", self.seconds, self.samples_per_second);
        table.add_row(["time", &rate]);
        let pushed = format!(
            "{} ({} before the codec)",
            mebibytes(self.bytes_pushed),
            mebibytes(self.bytes_pushed_uncompressed)
        );
        table.add_row(["pushed", &pushed]);
        table.add_row(["pulled", &mebibytes(self.bytes_pulled)]);
        if self.bytes_replicated > 0 {
            table.add_row(["replicated", &mebibytes(self.bytes_replicated)]);
        }
        let healed = format!(
            "{} promotions, {} rollbacks, {} views that went on",
            self.promotions, self.rollbacks, self.new_leases
        );
        table.add_row(["healed", &healed]);
        if let Some(curve) = &self.curve {
            table.add_row(["loss curve", &curve.display().to_string()]);
        }
        answer::line(table)?;
        Ok(())
    }
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}
