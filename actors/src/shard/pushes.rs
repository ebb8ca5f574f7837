//! What a push must be to count, and how it is added to the step in flight.

use std::sync::Arc;

use super::{Accepted, Shard};
use crate::codec::DecodeError;
use crate::ids::{Slot, Version};
use crate::ledger::SlotReport;
use crate::messages::{PartHeader, Payload, PushError, PushGradient, Values};
use crate::planted::{self, Bug};
use crate::reduction::{Part, Span};

/// Largest sum of losses of one slot that is counted: a job of 10⁹ steps and 4,096 slots of these
/// still adds up to a number, and no model that learns comes near.
const LOSS_MAX: f64 = 1e290;

impl Shard {
    /// Adds the parts of a push to the step in flight: all of them, or none where one is refused.
    ///
    /// # Errors
    /// See [`PushError`].
    pub fn accept(&mut self, push: &PushGradient) -> Result<Accepted, PushError> {
        self.check_sender(push)?;
        let closing = push.step == self.version && self.version == self.plan.last_version();
        let counts = push.step == self.version
            || (planted::is(Bug::StaleStep) && push.step.comes_before(self.version));
        // Where another shard has lost the newest steps with its primary, its workers make them again, and
        // must not be sent back by a shard that has them: nothing would be pushed to the other one.
        let is_kept = match planted::is(Bug::SentBack) {
            true => push.step.comes_before(self.version),
            false => push.step < self.version && self.at(push.step.next()).is_some(),
        };
        if (is_kept && !counts) || (closing && self.ledger.closed) {
            return Ok(Accepted::Applied);
        }
        if !counts || (closing && !self.is_first()) {
            return Err(PushError::OutOfWindow { got: push.step, version: self.version });
        }
        if let Some(overflow) = &self.overflow {
            return Err(overflow.clone());
        }
        self.check_spans(push)?;
        self.check_reports(push)?;
        let parts = if closing { Vec::new() } else { self.read_parts(push)? };
        for (span, part) in parts {
            if planted::is(Bug::ArrivalOrder) {
                self.reduction.insert_as_it_comes(span, part);
                continue;
            }
            // `check_spans` has asked the tree already.
            self.reduction.insert(span, part).map_err(|_| PushError::WrongSpan { span })?;
        }
        // Only the first shard counts rows; the others would keep what a peer sends for ever.
        if self.is_first() {
            if planted::is(Bug::RowsTwice) {
                let again = push.reports.iter().filter(|r| self.reports.has(r.slot));
                self.ledger.rows += again.map(|report| report.rows).sum::<u64>();
            }
            push.reports.iter().for_each(|report| self.reports.keep(*report));
        }
        Ok(if self.is_complete() { Accepted::Complete } else { Accepted::Waiting })
    }

    /// Whether all slots of the step in flight are here, and the step before is committed.
    pub fn is_complete(&self) -> bool {
        let slots = self.plan.offer.job.virtual_workers as usize;
        let last = self.version == self.plan.last_version();
        let all = match last {
            true => self.is_first() && !self.ledger.closed && self.reports.len() == slots,
            false => self.reduction.is_complete() && self.complete.is_none(),
        };
        all && (self.is_settled() || planted::is(Bug::TwoAhead))
    }

    fn check_sender(&self, push: &PushGradient) -> Result<(), PushError> {
        if push.shard != self.id {
            return Err(PushError::WrongShard { expected: self.id, got: push.shard });
        }
        if push.view < self.view {
            return Err(PushError::StaleView { got: push.view, current: self.view });
        }
        if push.view > self.view {
            // Ours is on its way.
            return Err(PushError::NotReady(self.id));
        }
        Ok(())
    }

    /// Nodes of the sum's tree in slot order, disjoint: at most one for each slot, then.
    fn check_spans(&self, push: &PushGradient) -> Result<(), PushError> {
        let mut end = 0;
        for &PartHeader { span, .. } in &push.parts {
            if span.first < end || !self.reduction.is_node(span) {
                return Err(PushError::WrongSpan { span });
            }
            end = span.end;
        }
        Ok(())
    }

    /// Every slot that the push covers has its report, and its evaluation where one is due.
    fn check_reports(&self, push: &PushGradient) -> Result<(), PushError> {
        if !self.is_first() {
            return Ok(());
        }
        push.reports.iter().try_for_each(|report| self.check_report(report, push.step))?;
        let mut reported: Vec<Slot> = push.reports.iter().map(|report| report.slot).collect();
        reported.sort_unstable();
        let mut covered = push.parts.iter().flat_map(|part| part.span.slots());
        if covered.all(|slot| reported.binary_search(&slot).is_ok()) {
            return Ok(());
        }
        Err(PushError::MissingReport)
    }

    /// The ledger adds up what it is told: nothing that the plan doesn't have may reach it.
    pub(super) fn check_report(&self, report: &SlotReport, step: Version) -> Result<(), PushError> {
        let SlotReport { slot, rows, loss, score } = *report;
        let due = self.plan.ends_epoch(step);
        if slot.0 >= self.plan.offer.job.virtual_workers || (score.is_none() && due) {
            return Err(PushError::MissingReport);
        }
        let closing = step == self.plan.last_version();
        let trained = if closing { 0 } else { self.plan.batch_rows(slot, step).len() };
        let score = score.unwrap_or_default();
        // A score that isn't due is of no rows, or of all.
        let tested = if report.score.is_some() { self.plan.test_rows(slot).len() } else { 0 };
        let right = score.correct.unwrap_or(0);
        for (what, expected, got) in [
            ("training rows", trained as u64, rows),
            ("test rows", tested as u64, score.rows),
            ("right answers", right.min(score.rows), right),
        ] {
            if got != expected {
                let what = what.to_owned();
                return Err(PushError::WrongReport { slot, step, what, expected, got });
            }
        }
        match [loss, score.loss].into_iter().find(|loss| !loss.is_finite() || loss.abs() > LOSS_MAX)
        {
            None => Ok(()),
            Some(loss) => Err(PushError::WrongLoss { slot, step, loss: format!("{loss:e}") }),
        }
    }

    fn read_parts(&mut self, push: &PushGradient) -> Result<Vec<(Span, Part)>, PushError> {
        let (parts, payloads) = (push.parts.len(), push.payload.len());
        if parts != payloads {
            return Err(PushError::WrongPayload { parts, payloads });
        }
        let mut read = Vec::with_capacity(parts);
        for (header, payload) in push.parts.iter().zip(&push.payload) {
            let (span, step) = (header.span, push.step);
            let rows = span.slots().map(|slot| self.plan.batch_rows(slot, step).len() as u64);
            let (expected, got) = (rows.sum(), header.rows);
            if got != expected {
                return Err(PushError::WrongRows { span, step, expected, got });
            }
            self.count(payload);
            let again = self.reduction.covers(span) && !planted::is(Bug::DoubleApply);
            if self.complete.is_some() || again {
                continue;
            }
            // That plain values are finite is seen when their sum is read: a look at each push alone
            // would be a pass over memory more. Workers have looked before they send.
            let values = self.read_payload(span, payload)?;
            read.push((span, Part { values, rows: header.rows }));
        }
        Ok(read)
    }

    fn read_payload(&mut self, span: Span, payload: &Payload) -> Result<Values, PushError> {
        let refused = |cause: String| PushError::Codec { span, cause };
        match (payload, &self.codec) {
            (Payload::Dense(values), None) if values.len() == self.range.len() => {
                Ok(Arc::clone(values))
            }
            (Payload::Dense(values), None) => {
                Err(PushError::WrongLength { span, expected: self.range.len(), got: values.len() })
            }
            (Payload::Encoded(_), Some(_)) if span.end - span.first != 1 => {
                Err(PushError::WrongSpan { span })
            }
            (Payload::Encoded(bytes), Some(codec)) => {
                let mut values = self.reduction.pool().take_or_new(self.range.len());
                codec.decode(bytes, &mut values).map_err(|error| match error {
                    // For example a residual that has overflowed.
                    DecodeError::NotFinite { .. } => {
                        PushError::NotFinite { span, step: self.version }
                    }
                    damaged => refused(damaged.to_string()),
                })?;
                Ok(Arc::new(values))
            }
            (Payload::Dense(_), Some(codec)) => {
                Err(refused(format!("it is plain, this job uses codec {:?}", codec.kind())))
            }
            (Payload::Encoded(_), None) => {
                Err(refused("it is encoded, this job uses codec none".to_owned()))
            }
        }
    }

    fn count(&mut self, payload: &Payload) {
        let dense = (self.range.len() * size_of::<f32>()) as u64;
        self.bytes.pushed_dense += dense;
        self.bytes.pushed += match payload {
            Payload::Dense(_) => dense,
            Payload::Encoded(bytes) => bytes.len() as u64,
        };
    }
}
