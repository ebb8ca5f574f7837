//! How a copy follows its primary, and what a primary gives to one that begins.

use std::sync::Arc;

use super::{Shard, ShardState};
use crate::finite::first_not_finite;
use crate::ids::{ShardCopy, View};
use crate::messages::{FillShard, ReplicateError, Update, Values};
use crate::planted::{self, Bug};

impl Shard {
    /// The shard as its primary sent it.
    ///
    /// # Errors
    /// [`ReplicateError::Wrong`]: the vectors are not those of this shard.
    ///
    /// # Panics
    /// As [`Shard::new`] where the shard isn't one of the plan's.
    pub fn filled(
        plan: Arc<crate::plan::JobPlan>,
        fill: FillShard,
    ) -> Result<Self, ReplicateError> {
        let FillShard { view, to, lineage, version, ledger, checkpoint_every, vectors, .. } = fill;
        let wrong = |cause: String| ReplicateError::Wrong { to, cause };
        let len = plan.shards.range(to.shard).len();
        let mut vectors = vectors.into_iter().map(Arc::unwrap_or_clone);
        let parameters = vectors.next().unwrap_or_default();
        let optimizer: Vec<Vec<f32>> = vectors.collect();
        let lens = std::iter::once(&parameters).chain(&optimizer).map(Vec::len);
        for got in lens {
            if got != len {
                return Err(wrong(format!("a vector has {got} values, the shard {len}")));
            }
        }
        let state = ShardState { version, parameters, optimizer, ledger };
        let mut shard = Self::new(to.shard, plan, checkpoint_every, view, state);
        let (expected, got) = (shard.optimizer.state_names().len(), shard.state.len());
        if got != expected {
            return Err(wrong(format!("{got} vectors of the optimizer, it has {expected}")));
        }
        shard.lineage = lineage;
        Ok(shard)
    }

    /// What a copy that begins must be sent, and how many updates that holds; `None` where a step
    /// has overflowed.
    pub fn fill(&mut self, to: ShardCopy, shards: u32) -> Option<(FillShard, u64)> {
        if self.overflow.is_some() {
            return None;
        }
        let state = self.state.iter().map(|values| match planted::is(Bug::FilledWithoutState) {
            true => Arc::new(vec![0.0; values.len()]),
            false => Arc::new(values.clone()),
        });
        let fill = FillShard {
            view: self.view,
            to,
            lineage: self.lineage,
            version: self.version,
            ledger: self.ledger.clone(),
            offer: self.plan.offer.clone(),
            shards,
            checkpoint_every: self.checkpoint_every,
            vectors: std::iter::once(Values::clone(&self.current)).chain(state).collect(),
        };
        self.bytes.replicated += bytes(&fill.vectors);
        Some((fill, self.applied()))
    }

    /// Whether a step has overflowed here: what is left of its state is of no version.
    pub fn has_overflowed(&self) -> bool {
        self.overflow.is_some()
    }

    /// The newest update, for a copy that may lack it.
    pub fn last_update(&self) -> Option<Arc<Update>> {
        self.last.clone()
    }

    /// Where no copy will ever lack the newest update, its gradient need not be kept.
    pub fn forget_last(&mut self) {
        self.last = None;
    }

    /// Counts what is sent to another copy.
    pub fn sends(&mut self, update: &Update) {
        self.bytes.replicated += size_of_val(update.gradient.as_slice()) as u64;
    }

    /// Applies a step that the primary has applied. One that is here already changes nothing.
    ///
    /// # Errors
    /// The step is not the next one, or is none of this shard's; nothing has changed then.
    pub fn follow(&mut self, to: ShardCopy, update: &Arc<Update>) -> Result<u64, ReplicateError> {
        let (step, applied) = (update.step, self.applied());
        if step.0 < applied {
            return Ok(applied);
        }
        if step.0 > applied {
            return Err(ReplicateError::Ahead { step, applied });
        }
        let wrong = |cause: String| ReplicateError::Wrong { to, cause };
        if let Some(overflow) = &self.overflow {
            return Err(wrong(overflow.to_string()));
        }
        let closing = step == self.plan.last_version();
        let expected = if closing { 0 } else { self.range.len() };
        let got = update.gradient.len();
        if got != expected || (closing && !self.is_first()) {
            return Err(wrong(format!("a gradient of {got} values, the shard has {expected}")));
        }
        if let Some(place) = first_not_finite(&update.gradient) {
            return Err(wrong(format!("value {place} of the gradient is not finite")));
        }
        self.check_counts(update).map_err(wrong)?;
        if planted::is(Bug::ReportsUnreplicated) {
            let bare = Update { reports: Vec::new(), ..(**update).clone() };
            self.update(&Arc::new(bare)).map_err(|error| wrong(error.to_string()))?;
        } else {
            self.update(update).map_err(|error| wrong(error.to_string()))?;
        }
        self.committed = self.applied();
        Ok(self.applied())
    }

    /// Reports of every slot, once each, as the plan has them; none but at the first shard.
    fn check_counts(&self, update: &Update) -> Result<(), String> {
        let slots = if self.is_first() { self.plan.offer.job.virtual_workers } else { 0 };
        let mut expected = 0..slots;
        for report in &update.reports {
            if expected.next() != Some(report.slot.0) {
                return Err(format!("a report of {} out of turn", report.slot));
            }
            self.check_report(report, update.step).map_err(|error| error.to_string())?;
        }
        match expected.next() {
            None => Ok(()),
            Some(slot) => Err(format!("no report of slot {slot}")),
        }
    }

    /// From now on this copy is the primary of `view`. Where others have to be in sync, the newest
    /// update is committed when they have it: the primary before may have died on the way.
    pub fn lead(&mut self, view: View, has_followers: bool) {
        self.view = self.view.max(view);
        if has_followers && self.last.is_some() {
            self.committed = self.applied().saturating_sub(1).min(self.committed);
        }
    }

    /// From now on another copy is the primary: parts of the step in flight are of no use here.
    pub fn stand_by(&mut self, view: View) {
        self.view = self.view.max(view);
        self.committed = self.applied();
        self.forget_step();
    }
}

fn bytes(vectors: &[Values]) -> u64 {
    vectors.iter().map(|values| size_of_val(values.as_slice()) as u64).sum()
}
