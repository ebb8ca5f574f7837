//! What the job has counted so far: rows, losses, evaluations. The first shard keeps it.
//!
//! Because it changes only when a step commits there, each row counts exactly once, whatever was
//! recomputed by whom; and since it is saved with the shard, a restart goes on counting.

use serde::{Deserialize, Serialize};

use crate::ids::{Slot, Version};
use crate::model::Score;
use crate::plan::JobPlan;

/// Records of epochs that are kept: a curve for people, and 0.4 MB of the messages that carry it.
pub const EPOCHS_KEPT: usize = 4096;

/// What a slot tells beside its gradient.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct SlotReport {
    pub slot: Slot,
    /// Training rows of this step, and the sum of their losses.
    pub rows: u64,
    pub loss: f64,
    /// How the version that the step computes on does on the slot's test rows. There if that
    /// version ends an epoch.
    pub score: Option<Score>,
}

/// One finished epoch.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct EpochRecord {
    /// From 1.
    pub epoch: u64,
    /// Training rows that contributed: as many as the data has.
    pub rows: u64,
    /// Mean loss over the training rows, each at the step that saw it.
    pub train_loss: f64,
    /// Mean loss over the test rows at the epoch's end; `None` without test rows, or not yet.
    pub test_loss: Option<f64>,
    /// Part of the test rows whose class was predicted right; `None` where there are no classes.
    pub test_accuracy: Option<f64>,
}

/// Counts of a job up to some version.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Ledger {
    /// Of the epochs that are done, the last one among them; where there would be more than
    /// [`EPOCHS_KEPT`], of every second, so that the newest are the densest.
    pub finished: Vec<EpochRecord>,
    /// Of the epoch under way.
    pub rows: u64,
    pub loss: f64,
    /// The last version's evaluation has been added; the job is done.
    pub closed: bool,
}

impl Ledger {
    /// Epochs that are done.
    pub fn epochs(&self) -> u64 {
        self.finished.last().map_or(0, |record| record.epoch)
    }

    /// Adds the reports of one committed step: one a slot, in the order of the slots, since a sum of f64 has
    /// an order too.
    pub fn commit(&mut self, plan: &JobPlan, step: Version, reports: &[SlotReport]) {
        if plan.ends_epoch(step) {
            self.evaluate(reports);
        }
        if step == plan.last_version() {
            self.closed = true;
            return;
        }
        let loss: f64 = reports.iter().map(|report| report.loss).sum();
        self.loss += loss;
        self.rows += reports.iter().map(|report| report.rows).sum::<u64>();
        if plan.ends_epoch(step.next()) {
            // An older build has kept all.
            while self.finished.len() >= EPOCHS_KEPT {
                let mut stays = true;
                self.finished.retain(|_| {
                    stays = !stays;
                    stays
                });
            }
            self.finished.push(EpochRecord {
                epoch: plan.epoch_of(step) + 1,
                rows: self.rows,
                train_loss: self.loss / self.rows as f64,
                test_loss: None,
                test_accuracy: None,
            });
            self.rows = 0;
            self.loss = 0.0;
        }
    }

    /// Completes the last finished epoch.
    fn evaluate(&mut self, reports: &[SlotReport]) {
        let Some(record) = self.finished.last_mut() else { return };
        let scores = || reports.iter().filter_map(|report| report.score);
        let rows: u64 = scores().map(|score| score.rows).sum();
        if rows == 0 {
            return;
        }
        record.test_loss = Some(scores().map(|score| score.loss).sum::<f64>() / rows as f64);
        let correct: Option<u64> =
            scores().filter(|score| score.rows > 0).map(|score| score.correct).sum();
        record.test_accuracy = correct.map(|correct| correct as f64 / rows as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::JobSpec;
    use crate::plan::JobOffer;
    use crate::plan::tests::plan;

    fn reports(rows: u64, loss: f64, correct: Option<u64>) -> Vec<SlotReport> {
        let score = correct.map(|correct| Score { rows: 2, loss: 1.0, correct: Some(correct) });
        (0..4).map(Slot).map(|slot| SlotReport { slot, rows, loss, score }).collect()
    }

    #[test]
    fn an_epoch_is_recorded_with_its_mean_loss_and_then_its_accuracy() {
        let plan = plan(1);
        let mut ledger = Ledger::default();
        for step in 0..6 {
            ledger.commit(&plan, Version(step), &reports(2, 3.0, None));
        }
        assert_eq!(ledger.finished.len(), 1);
        assert_eq!(ledger.finished[0].rows, 48);
        assert_eq!(ledger.finished[0].train_loss, 1.5);
        assert_eq!(ledger.finished[0].test_accuracy, None);
        ledger.commit(&plan, Version(6), &reports(2, 3.0, Some(1)));
        assert_eq!(ledger.finished[0].test_accuracy, Some(0.5));
        assert_eq!(ledger.rows, 8);
    }

    #[test]
    fn of_more_epochs_than_are_kept_every_second_goes_and_the_newest_stays() {
        let job = JobSpec { epochs: 3 * EPOCHS_KEPT as u64, ..plan(1).offer.job };
        let plan = JobPlan::new(JobOffer { job, ..plan(1).offer }, 1).unwrap();
        let mut ledger = Ledger::default();
        for step in 0..plan.last_version().0 {
            ledger.commit(&plan, Version(step), &reports(2, 3.0, None));
            assert!(ledger.finished.len() <= EPOCHS_KEPT);
        }
        assert_eq!(ledger.epochs(), 3 * EPOCHS_KEPT as u64);
        assert!(ledger.finished.is_sorted_by(|a, b| a.epoch < b.epoch));
        assert!(ledger.finished.len() > EPOCHS_KEPT / 2);
        assert!(ledger.finished.iter().all(|record| record.rows == 48));
    }

    #[test]
    fn the_last_version_closes_the_ledger_and_adds_no_rows() {
        let plan = plan(1);
        let mut ledger = Ledger::default();
        ledger.commit(&plan, Version(18), &reports(2, 3.0, Some(2)));
        assert!(ledger.closed);
        assert_eq!(ledger.rows, 0);
    }
}
