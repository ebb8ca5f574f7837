//! Moving slots from slow workers to fast ones.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::phase::Phase;
use super::{Cause, Command, Training};
use crate::ids::WorkerId;
use crate::membership::Change;
use crate::messages::{Member, ReportError, ReportSpeed};
use crate::reduction::Span;

/// A worker's part of each step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    pub worker: WorkerId,
    pub slots: u32,
    /// Microseconds that it takes for one, as it was lately.
    pub slot_us: Option<u64>,
}

impl Training {
    /// A worker has measured how long its steps take.
    ///
    /// # Errors
    /// There is no such worker.
    pub fn report_speed(&mut self, report: ReportSpeed) -> Result<(), ReportError> {
        let (got, workers) = (report.worker, self.config.workers);
        if got.0 >= workers {
            return Err(ReportError::NoSuchWorker { got, workers });
        }
        // Late word of one that is gone: a newcomer of its number is to be measured anew.
        if self.config.rebalance && self.members.is_alive(Member::Worker(got)) {
            self.speeds.measured(got, report.pace);
        }
        Ok(())
    }

    pub(super) fn forget_speeds(&mut self, changes: &[Change]) {
        for change in changes {
            if let Change::Lost(Member::Worker(worker)) = change {
                self.speeds.forget(*worker);
            }
        }
    }

    /// Moves slots where that makes steps shorter: at once, or at the next checkpoint where
    /// residuals stay with them.
    pub(super) fn rebalance(&mut self, now: Duration) -> Vec<Command> {
        let runs = matches!(&self.phase, Phase::Running { workers, .. } if workers.is_empty());
        if !runs || !self.config.rebalance || self.rebalance {
            return Vec::new();
        }
        let (slots, workers) = (self.job.virtual_workers, self.workers());
        let Some(better) = self.speeds.better(slots, &workers, &self.leases, now) else {
            return Vec::new();
        };
        if self.keeps_residuals() {
            self.rebalance = true;
            return Vec::new();
        }
        self.events.because(Cause::Slow { worker: better.slowest, percent: better.percent });
        self.plan(false)
    }

    pub(super) fn shares(&self) -> Vec<Share> {
        let share = |(&worker, span): (&WorkerId, &Span)| Share {
            worker,
            slots: span.end.saturating_sub(span.first),
            slot_us: self.speeds.slot_ns(worker).map(|ns| ns / 1000),
        };
        self.leases.iter().map(share).collect()
    }
}
