//! What the coordinator healed, over all its lives.

use gradmesh_actors::training::TrainingStatus;
use serde::Serialize;
use tracing::info;

/// Sums over the coordinator's lives, whose counts begin at 0 each. What happened between the last
/// look at one and its death is not in it.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Recoveries {
    pub(crate) rollbacks: u64,
    pub(crate) promotions: u64,
    pub(crate) new_leases: u64,
    pub(crate) lost: u64,
    /// The last step that was seen, and the job's last.
    pub(crate) step: u64,
    pub(crate) steps: u64,
    #[serde(skip)]
    seen: [u64; 4],
}

impl Recoveries {
    pub(crate) fn note(&mut self, status: &TrainingStatus) {
        self.step = status.version.0;
        self.steps = status.last_version.map_or(self.steps, |last| last.0);
        let now = [status.rollbacks, status.promotions, status.new_leases, status.lost];
        let is_new_life = now.iter().zip(self.seen).any(|(now, seen)| *now < seen);
        if is_new_life {
            self.seen = [0; 4];
        }
        let sums =
            [&mut self.rollbacks, &mut self.promotions, &mut self.new_leases, &mut self.lost];
        let texts = ["rolled back", "replicas promoted", "views that went on", "members lost"];
        for (((sum, text), now), seen) in sums.into_iter().zip(texts).zip(now).zip(self.seen) {
            if now > seen {
                *sum += now - seen;
                info!(step = self.step, of = self.steps, times = now - seen, "{text}");
            }
        }
        self.seen = now;
    }

    pub(crate) fn at_step(&self) -> u64 {
        self.step
    }
}
