//! What the demonstration says at its end.

use std::collections::BTreeMap;

use comfy_table::{Table, presets};
use gradmesh::config::Role;
use serde_json::json;

use super::client::{ANSWERED_WITHIN, Tally};
use crate::answer;
use crate::chaos::recoveries::Recoveries;

#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) seed: u64,
    pub(super) epochs: u64,
    pub(super) seconds: f64,
    pub(super) kills: BTreeMap<Role, u64>,
    pub(super) recoveries: Recoveries,
    pub(super) answers: Tally,
    pub(super) version: u64,
    pub(super) digest: String,
    pub(super) calm_digest: String,
}

impl Outcome {
    /// Why it shows nothing good.
    pub(super) fn cause(&self) -> Option<String> {
        let Tally { unanswered, wrong, .. } = self.answers;
        if self.digest != self.calm_digest {
            Some(format!("the digest is {}, the calm run's is {}", self.digest, self.calm_digest))
        } else if unanswered + wrong > 0 {
            Some(format!("{unanswered} predictions were not answered, {wrong} were other ones"))
        } else if self.kills.is_empty() {
            Some("trained before the first kill; raise --for or --epochs".to_owned())
        } else {
            None
        }
    }

    pub(super) fn show(&self, json: bool) -> anyhow::Result<()> {
        let Tally { answered, elsewhere, unanswered, wrong, slowest, .. } = self.answers;
        let Recoveries { promotions, rollbacks, steps, .. } = self.recoveries;
        let slowest = slowest.as_millis() as u64;
        let coordinators = self.kills.get(&Role::Coordinator).copied().unwrap_or(0);
        if json {
            let kills: BTreeMap<String, u64> =
                self.kills.iter().map(|(role, kills)| (role.to_string(), *kills)).collect();
            return answer::line(json!({
                "passed": self.cause().is_none(),
                "cause": self.cause(),
                "seed": self.seed,
                "epochs": self.epochs,
                "steps": steps,
                "seconds": self.seconds,
                "kills": kills,
                "promotions": promotions,
                "rollbacks": rollbacks,
                "answered": answered,
                "answered_elsewhere": elsewhere,
                "unanswered": unanswered,
                "wrong": wrong,
                "slowest_ms": slowest,
                "digest": self.digest,
                "calm_digest": self.calm_digest,
            }));
        }
        let kills: Vec<String> =
            self.kills.iter().map(|(role, kills)| format!("{kills} {role}")).collect();
        let mut table = Table::new();
        table.load_preset(presets::UTF8_BORDERS_ONLY);
        let job = format!("{steps} steps in {} epochs, {:.1} s", self.epochs, self.seconds);
        table.add_row(["job", &job]);
        let sum: u64 = self.kills.values().sum();
        let drawn = format!("{sum} (seed {}): {}", self.seed, kills.join(", "));
        table.add_row(["SIGKILLs", &drawn]);
        let healed = format!(
            "{promotions} promotions, {rollbacks} rollbacks, {coordinators} times a new leader"
        );
        table.add_row(["healed", &healed]);
        let failed = format!(
            "{answered} answered ({elsewhere} by the other service), {} failed ({unanswered} not answered within {} s, {wrong} with other bits)",
            unanswered + wrong,
            ANSWERED_WITHIN.as_secs()
        );
        table.add_row(["predictions", &failed]);
        table.add_row(["slowest", &format!("{slowest} ms")]);
        table.add_row(["digest, calm", &self.calm_digest]);
        table.add_row(["digest, killed", &self.digest]);
        let equal = if self.digest == self.calm_digest { "yes" } else { "NO" };
        table.add_row(["equal", &format!("{equal}; version {} serves it", self.version)]);
        answer::line(table)
    }
}
