//! What came of a plan, for people and as JSON.

use std::time::Duration;

use comfy_table::{Table, presets};
use gradmesh::sim::FrameCounts;
use serde_json::json;

use super::changes::Told;
use super::recoveries::Recoveries;

/// How a run under faults ended; the names are those of a simulation's.
#[derive(Debug)]
pub(super) enum Verdict {
    Same,
    OtherDigest,
    Failed(String),
    NotTrained {
        limit: Duration,
    },
    /// The calm run's digest, but before the first fault.
    NoFault,
}

#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) verdict: Verdict,
    pub(super) digest: Option<String>,
    pub(super) calm_digest: String,
    pub(super) seconds: f64,
    /// Faults that began before the end.
    pub(super) begun: usize,
    pub(super) faults: Vec<Told>,
    /// Of nodes.
    pub(super) restarts: usize,
    pub(super) recoveries: Recoveries,
    pub(super) frames: FrameCounts,
}

impl Outcome {
    /// Why it did not pass.
    pub(super) fn cause(&self) -> Option<String> {
        match &self.verdict {
            Verdict::Same => None,
            Verdict::OtherDigest => Some(format!(
                "the digest is {}, the calm run's is {}",
                self.digest.as_deref().unwrap_or("missing"),
                self.calm_digest
            )),
            Verdict::Failed(cause) => Some(format!("training failed: {cause}")),
            Verdict::NotTrained { limit } => {
                Some(format!("not trained within {} s (--for)", limit.as_secs_f64()))
            }
            Verdict::NoFault => Some(format!(
                "trained in {:.1} s, before the first fault: nothing was tested; let it begin \
                 earlier, or train longer (job.epochs)",
                self.seconds
            )),
        }
    }

    fn verdict(&self) -> &'static str {
        match &self.verdict {
            Verdict::Same => "same",
            Verdict::OtherDigest => "other-digest",
            Verdict::Failed(_) => "failed",
            Verdict::NotTrained { .. } => "not-trained",
            Verdict::NoFault => "no-fault",
        }
    }

    pub(super) fn show(&self, json: bool) -> anyhow::Result<()> {
        if json {
            return crate::answer::line(json!({
                "passed": self.cause().is_none(),
                "verdict": self.verdict(),
                "cause": self.cause(),
                "digest": self.digest,
                "calm_digest": self.calm_digest,
                "seconds": self.seconds,
                "begun": self.begun,
                "faults": self.faults,
                "restarts": self.restarts,
                "rollbacks": self.recoveries.rollbacks,
                "promotions": self.recoveries.promotions,
                "new_leases": self.recoveries.new_leases,
                "lost": self.recoveries.lost,
                "step": self.recoveries.step,
                "steps": self.recoveries.steps,
                "frames": self.frames,
            }));
        }
        let mut table = Table::new();
        table.load_preset(presets::UTF8_BORDERS_ONLY);
        for Told { fault, did, .. } in &self.faults {
            table.add_row([fault, did]);
        }
        let Recoveries { rollbacks, promotions, new_leases, lost, step, steps, .. } =
            &self.recoveries;
        let healed = format!(
            "{} restarts of nodes, {lost} members lost, {promotions} promotions, {rollbacks} rollbacks, {new_leases} views that went on",
            self.restarts
        );
        table.add_row(["healed", &healed]);
        let FrameCounts { frames, late, lost, doubled, overtaken, held } = self.frames;
        let frames = format!(
            "{frames} frames: {lost} lost, {doubled} doubled, {overtaken} overtaken, {late} late, {held} held"
        );
        table.add_row(["network", &frames]);
        table.add_row(["time", &format!("{:.1} s, step {step} of {steps}", self.seconds)]);
        let of_calm = match (&self.verdict, &self.digest) {
            (Verdict::Same | Verdict::NoFault, Some(digest)) => {
                format!("{digest}, as the calm run's")
            }
            (_, Some(digest)) => format!("{digest}, not {}", self.calm_digest),
            (_, None) => "-".to_owned(),
        };
        table.add_row(["digest", &of_calm]);
        let verdict = self.cause().map_or_else(|| "passed".to_owned(), |_| self.verdict().into());
        table.add_row(["verdict", &verdict]);
        crate::answer::line(table)
    }
}
