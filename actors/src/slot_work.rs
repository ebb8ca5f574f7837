//! One worker's part of a step: gradients of its slots, encoded and summed as far as the tree allows.

mod batch;
mod kept_rows;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use crate::allocation::{NoMemory, zeros};
use crate::codec::{Codec, codec};
use crate::dataset::{Dataset, DatasetError, Split};
use crate::finite::first_not_finite;
use crate::ids::{ShardId, Slot, Version};
use crate::ledger::SlotReport;
use crate::messages::{PartHeader, Payload, Values};
use crate::model::{Backward, Model, Score};
use crate::plan::JobPlan;
use crate::planted::{self, Bug};
use crate::pool::Pool;
use crate::reduction::{Part, Reduction, Span};
use crate::shuffle;

use batch::{Group, SharedBatch, groups};
use kept_rows::KeptRows;

/// The slots that a worker holds, with their rows and residuals.
#[derive(Debug)]
pub struct SlotWork {
    plan: Arc<JobPlan>,
    model: Arc<dyn Model>,
    codec: Option<Box<dyn Codec>>,
    slots: BTreeMap<Slot, SlotState>,
    /// The rows that are computed together, and how.
    batch: SharedBatch,
    backward: Option<Box<dyn Backward>>,
    /// Of the step that is computed, by shard, and memory of those before it: each shard's gradients
    /// are computed into memory of its own, which is what it is sent.
    sums: Vec<Reduction>,
    /// For gradients that can't be had shard by shard: a lossy codec looks at all of one, and other
    /// models may give all at once.
    whole: Pool,
}

#[derive(Debug)]
struct SlotState {
    train: Share,
    test: Share,
    /// The order of the rows, and the epoch that it is of.
    order: Option<(u64, Vec<u32>)>,
    /// Empty where the codec keeps none.
    residual: Vec<f32>,
}

/// A slot's rows, among those that were loaded with them: copies of its own would need twice the
/// memory while they are made. All are kept as long as one of the slots is held.
#[derive(Debug)]
struct Share {
    of: Arc<KeptRows>,
    rows: Range<usize>,
}

/// Whole gradients that are used again: one is computed at a time.
const WHOLE_KEPT: usize = 2;
/// Test rows that are evaluated together: enough for matrix products to be fast, and few enough for
/// what layers put out for them to be small.
const EVALUATED: usize = 1024;
/// Inputs of these rows: 4 MiB.
const EVALUATED_INPUTS: usize = 1 << 20;

/// Inputs that are side by side sooner than another task has had its turn: copying 16 KiB takes about a
/// microsecond.
const PREPARED_SOON: usize = 4096;

/// What a worker sends for one step.
#[derive(Clone, Debug, PartialEq)]
pub struct StepWork {
    pub parts: Vec<PartHeader>,
    /// By shard, then in the order of `parts`. No parts where the step only evaluates.
    pub payloads: Vec<Vec<Payload>>,
    pub reports: Vec<SlotReport>,
}

/// A step can't be computed; computing it again would fail again.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum WorkError {
    #[error(
        "the gradient of {slot} at {step} is not finite (loss {loss}); lower job.optimizer.learning_rate or set job.gradient.clip_norm"
    )]
    NotFinite { slot: Slot, step: Version, loss: f64 },
    #[error(
        "the sum of the gradients of {span} at {step} is beyond the range of FP32; lower job.optimizer.learning_rate or set job.gradient.clip_norm"
    )]
    Overflow { span: Span, step: Version },
    #[error(transparent)]
    NoMemory(#[from] NoMemory),
    #[error("rows of {slot} can't be loaded: {source}")]
    Data { slot: Slot, source: DatasetError },
    #[error(
        "the checkpoint has {got} values for the residual of {slot}, not {expected}; drop it with --fresh"
    )]
    Residual { slot: Slot, expected: usize, got: usize },
    #[error(
        "the data set gave {got} rows for {slot}, {expected} were asked for; its files changed, start the job again"
    )]
    Rows { slot: Slot, expected: usize, got: usize },
}

impl SlotWork {
    pub fn new(plan: Arc<JobPlan>, model: Arc<dyn Model>) -> Self {
        let codec = codec(&plan.offer.job.gradient);
        let sums = vec![Reduction::new(plan.offer.job.virtual_workers); plan.shards.len()];
        let (batch, backward, whole) =
            (SharedBatch::default(), model.backward(), Pool::new(WHOLE_KEPT));
        Self { plan, model, codec, slots: BTreeMap::new(), batch, backward, sums, whole }
    }

    pub fn plan(&self) -> &Arc<JobPlan> {
        &self.plan
    }

    /// Whether lost residuals need a rollback.
    pub fn keeps_residuals(&self) -> bool {
        self.codec.as_ref().is_some_and(|codec| codec.keeps_residual())
    }

    /// Holds these slots and no others; loads the rows of new ones. May block on files.
    ///
    /// # Errors
    /// The data set can't give the rows, or there is no memory for the residuals.
    pub fn hold(&mut self, span: Span, data: &dyn Dataset) -> Result<(), WorkError> {
        if self.slots.keys().copied().eq(span.slots()) {
            return Ok(());
        }
        self.batch.forget();
        self.slots.retain(|slot, _| (span.first..span.end).contains(&slot.0));
        let missing: Vec<Slot> =
            span.slots().filter(|slot| !self.slots.contains_key(slot)).collect();
        // Slots side by side have rows side by side: one pass over the files for each run of them.
        for run in missing.chunk_by(|slot, next| slot.0 + 1 == next.0) {
            self.load(run, data)?;
        }
        Ok(())
    }

    /// Loads the rows of slots that lie side by side.
    fn load(&mut self, run: &[Slot], data: &dyn Dataset) -> Result<(), WorkError> {
        let (Some(&first), Some(&last)) = (run.first(), run.last()) else { return Ok(()) };
        let (plan, model) = (Arc::clone(&self.plan), Arc::clone(&self.model));
        let load = |split: Split, range: Range<usize>| {
            let expected = range.len();
            let rows = KeptRows::load(data, split, range)
                .map_err(|source| WorkError::Data { slot: first, source })?;
            let (got, features) = (rows.len(), model.features());
            if got != expected {
                return Err(WorkError::Rows { slot: first, expected, got });
            }
            if rows.features() != features {
                let unlike = format!("rows of {} inputs, not {features}", rows.features());
                return Err(WorkError::Data { slot: first, source: DatasetError(unlike) });
            }
            Ok(Arc::new(rows))
        };
        let within = |rows: Range<usize>, start: usize| rows.start - start..rows.end - start;
        let (train_start, test_start) = (plan.train_rows(first).start, plan.test_rows(first).start);
        let train = load(Split::Train, train_start..plan.train_rows(last).end)?;
        let test = load(Split::Test, test_start..plan.test_rows(last).end)?;
        let residual = if self.keeps_residuals() { plan.layout.len() } else { 0 };
        for &slot in run {
            let state = SlotState {
                train: Share {
                    of: Arc::clone(&train),
                    rows: within(plan.train_rows(slot), train_start),
                },
                test: Share {
                    of: Arc::clone(&test),
                    rows: within(plan.test_rows(slot), test_start),
                },
                order: None,
                residual: zeros(residual)?,
            };
            self.slots.insert(slot, state);
        }
        Ok(())
    }

    /// Takes residuals from a checkpoint.
    ///
    /// # Errors
    /// A slot that is held has none there, or one of another length.
    pub fn restore_residuals(&mut self, residuals: Vec<(Slot, Vec<f32>)>) -> Result<(), WorkError> {
        let expected = self.plan.layout.len();
        let mut residuals: BTreeMap<Slot, Vec<f32>> = residuals.into_iter().collect();
        for (&slot, state) in &mut self.slots {
            let residual = residuals.remove(&slot).unwrap_or_default();
            let got = residual.len();
            if got != expected {
                return Err(WorkError::Residual { slot, expected, got });
            }
            state.residual = residual;
        }
        Ok(())
    }

    /// Copies of all residuals, for a checkpoint.
    pub fn residuals(&self) -> Vec<(Slot, Values)> {
        self.slots.iter().map(|(slot, state)| (*slot, Arc::new(state.residual.clone()))).collect()
    }

    /// Computes step `step` on `parameters`, which are version `step` of the whole flat space.
    ///
    /// The residuals go on to the next step: call it once a step, and repeat what it returned.
    ///
    /// # Errors
    /// A gradient that is not finite, or no memory for one.
    pub fn compute(&mut self, step: Version, parameters: &[f32]) -> Result<StepWork, WorkError> {
        let mut work = self.begin(step, parameters)?;
        for shard in (0..work.payloads.len()).rev() {
            self.complete(shard, step, parameters, &mut work)?;
        }
        Ok(work)
    }

    /// Whether what is left of a step after [`SlotWork::begin`] is worth doing shard by shard: most of
    /// it is then.
    pub fn computes_by_shard(&self) -> bool {
        self.codec.is_none() && self.backward.is_some() && self.plan.shards.len() > 1
    }

    /// Begins a step: all but what [`SlotWork::complete`] does for each shard, from the last one to
    /// the first.
    ///
    /// # Errors
    /// As [`SlotWork::compute`].
    pub fn begin(&mut self, step: Version, parameters: &[f32]) -> Result<StepWork, WorkError> {
        if step == self.plan.last_version() {
            return Ok(self.close(parameters));
        }
        self.sums.iter_mut().for_each(Reduction::clear);
        let payloads = vec![Vec::new(); self.plan.shards.len()];
        let mut work = StepWork { parts: Vec::new(), payloads, reports: Vec::new() };
        if self.batch.has_all_of(step, self.slots.len()) {
            self.begin_group(step, parameters, &mut work)?;
            return Ok(work);
        }
        for (at, group) in self.groups(step).into_iter().enumerate() {
            if at > 0 {
                self.add_group(parameters)?;
            }
            self.gather(step, group);
            self.begin_group(step, parameters, &mut work)?;
        }
        Ok(work)
    }

    /// Begins with the slots in the batch.
    fn begin_group(
        &mut self,
        step: Version,
        parameters: &[f32],
        work: &mut StepWork,
    ) -> Result<(), WorkError> {
        if let Some(backward) = &mut self.backward {
            backward.run(parameters, self.batch.batch());
        }
        let parts: Vec<_> = self.batch.parts().collect();
        parts
            .into_iter()
            .try_for_each(|(slot, rows)| self.begin_slot(slot, rows, step, parameters, work))
    }

    /// Computes what a shard is sent: the rest of its gradients, and their sums. What is not finite in
    /// a gradient is not in their sum either: one look at each sum is enough.
    ///
    /// # Errors
    /// As [`SlotWork::compute`].
    pub fn complete(
        &mut self,
        shard: usize,
        step: Version,
        parameters: &[f32],
        work: &mut StepWork,
    ) -> Result<(), WorkError> {
        if self.codec.is_some() {
            return Ok(());
        }
        self.add_shard(shard, parameters)?;
        let Some(sum) = self.sums.get_mut(shard) else { return Ok(()) };
        let parts = sum.take_parts();
        if work.parts.is_empty() {
            let header = |(span, part): &(Span, Part)| PartHeader { span: *span, rows: part.rows };
            work.parts = parts.iter().map(header).collect();
        }
        let mut not_finite = None;
        for (span, part) in parts {
            if first_not_finite(&part.values).is_some() {
                not_finite.get_or_insert(span);
            }
            sum.pool().lend_shared(&part.values);
            work.payloads[shard].push(Payload::Dense(part.values));
        }
        not_finite.map_or(Ok(()), |span| Err(self.not_finite(span, step, parameters)))
    }

    /// Whether preparing a step is not worth a wait for anything else: few rows, of an epoch whose order is
    /// there.
    pub fn is_prepared_soon(&self, step: Version) -> bool {
        let epoch = self.plan.epoch_of(step);
        let has_order = |state: &SlotState| matches!(&state.order, Some((of, _)) if *of == epoch);
        let rows = self.slots.keys().map(|&slot| self.plan.batch_rows(slot, step).len());
        self.slots.values().all(has_order)
            && rows.sum::<usize>().saturating_mul(self.model.features()) <= PREPARED_SOON
    }

    /// Has the rows of a step side by side before it is computed.
    pub fn prepare(&mut self, step: Version) {
        if step < self.plan.last_version()
            && let Some(group) = self.groups(step).into_iter().next()
        {
            self.gather(step, group);
        }
    }

    fn groups(&self, step: Version) -> Vec<Group> {
        groups(self.slots.keys().map(|&slot| (slot, self.plan.batch_rows(slot, step).len())))
    }

    fn gather(&mut self, step: Version, group: Group) {
        let like = group.first().and_then(|(slot, _)| self.slots.get(slot));
        let Some(like) = like.filter(|_| !self.batch.is_of(step, &group)) else { return };
        self.batch.begin(group.iter().map(|(_, rows)| rows).sum(), &like.train.of);
        for (slot, _) in &group {
            if let Some(state) = self.slots.get_mut(slot) {
                state.append_batch(&self.plan, *slot, step, &mut self.batch);
            }
        }
        self.batch.end(step, group);
    }

    /// Reports on one slot, whose rows lie at `rows` of the batch; adds its gradient where that can't
    /// be had shard by shard.
    fn begin_slot(
        &mut self,
        slot: Slot,
        rows: Range<usize>,
        step: Version,
        parameters: &[f32],
        work: &mut StepWork,
    ) -> Result<(), WorkError> {
        let (len, evaluate) = (rows.len() as u64, self.plan.ends_epoch(step));
        let loss = match &self.backward {
            Some(backward) if self.codec.is_none() => backward.loss(rows),
            _ => self.add_whole(slot, rows, step, parameters, work)?,
        };
        if !loss.is_finite() {
            return Err(WorkError::NotFinite { slot, step, loss });
        }
        let test = self.slots.get(&slot).filter(|_| evaluate).map(|state| &state.test);
        let score = test.map(|test| evaluated(&*self.model, parameters, test));
        work.reports.push(SlotReport { slot, rows: len, loss, score });
        Ok(())
    }

    /// Adds the gradients of the slots in the batch to all sums.
    fn add_group(&mut self, parameters: &[f32]) -> Result<(), WorkError> {
        (0..self.sums.len()).rev().try_for_each(|shard| self.add_shard(shard, parameters))
    }

    /// Adds them to one shard's sum, in memory of its own; nothing where they came as a whole.
    fn add_shard(&mut self, shard: usize, parameters: &[f32]) -> Result<(), WorkError> {
        let Some(backward) = self.backward.as_mut().filter(|_| self.codec.is_none()) else {
            return Ok(());
        };
        let id = ShardId(u32::try_from(shard).unwrap_or(u32::MAX));
        let (range, sum, batch) = (self.plan.shards.range(id), &mut self.sums[shard], &self.batch);
        for (slot, rows) in batch.parts() {
            let mut gradient = taken(sum.pool(), range.len())?;
            let to = &mut gradient[..];
            backward.gradient(parameters, batch.batch(), rows.clone(), range.clone(), to);
            insert(sum, slot, gradient, &rows);
        }
        Ok(())
    }

    /// Computes a slot's gradient as a whole, then encodes it or cuts it; returns the loss.
    fn add_whole(
        &mut self,
        slot: Slot,
        rows: Range<usize>,
        step: Version,
        parameters: &[f32],
        work: &mut StepWork,
    ) -> Result<f64, WorkError> {
        let Some(state) = self.slots.get_mut(&slot) else { return Ok(0.0) };
        let (batch, len) = (self.batch.batch(), self.plan.layout.len());
        let mut gradient = taken(&mut self.whole, len)?;
        let loss = match &mut self.backward {
            Some(backward) => {
                backward.gradient(parameters, batch, rows.clone(), 0..len, &mut gradient);
                backward.loss(rows.clone())
            }
            None => self.model.gradient(parameters, batch.part(rows.clone()), &mut gradient),
        };
        if let Some(codec) = &self.codec {
            // Before it gets into the residual.
            if !loss.is_finite() || first_not_finite(&gradient).is_some() {
                return Err(WorkError::NotFinite { slot, step, loss });
            }
            let pieces = codec.encode(&gradient, &mut state.residual, &self.plan.shards);
            for (payload, piece) in work.payloads.iter_mut().zip(pieces) {
                payload.push(Payload::Encoded(piece.into()));
            }
            work.parts.push(PartHeader { span: Span::one(slot), rows: rows.len() as u64 });
        } else {
            for (sum, (_, range)) in self.sums.iter_mut().zip(self.plan.shards.iter()) {
                let mut part = taken(sum.pool(), range.len())?;
                part.copy_from_slice(&gradient[range]);
                insert(sum, slot, part, &rows);
            }
        }
        self.whole.give(Arc::new(gradient));
        Ok(loss)
    }

    /// Finds whose gradient it is, by computing them once more.
    fn not_finite(&mut self, span: Span, step: Version, parameters: &[f32]) -> WorkError {
        for (&slot, state) in self.slots.range_mut(Slot(span.first)..Slot(span.end)) {
            let mut batch = SharedBatch::default();
            batch.begin(self.plan.batch_rows(slot, step).len(), &state.train.of);
            state.append_batch(&self.plan, slot, step, &mut batch);
            let mut gradient = match zeros(self.plan.layout.len()) {
                Ok(gradient) => gradient,
                Err(error) => return error.into(),
            };
            let loss = self.model.gradient(parameters, batch.batch(), &mut gradient);
            if first_not_finite(&gradient).is_some() {
                return WorkError::NotFinite { slot, step, loss };
            }
        }
        WorkError::Overflow { span, step }
    }

    /// The last version is evaluated, and nothing else.
    fn close(&self, parameters: &[f32]) -> StepWork {
        let report = |(slot, state): (&Slot, &SlotState)| SlotReport {
            slot: *slot,
            rows: 0,
            loss: 0.0,
            score: Some(evaluated(&*self.model, parameters, &state.test)),
        };
        let reports = self.slots.iter().map(report).collect();
        StepWork { parts: Vec::new(), payloads: Vec::new(), reports }
    }
}

impl SlotState {
    /// Appends the rows that `step` takes, in the epoch's order.
    fn append_batch(&mut self, plan: &JobPlan, slot: Slot, step: Version, to: &mut SharedBatch) {
        let epoch = plan.epoch_of(step);
        if self.order.as_ref().is_none_or(|(of, _)| *of != epoch) {
            let seen = self.order.as_ref().map_or(0, |(of, _)| of + 1);
            let of = if planted::is(Bug::LocalShuffle) { seen } else { epoch };
            let order = shuffle::order(plan.offer.job.seed, of, slot, self.train.rows.len());
            self.order = Some((epoch, order));
        }
        let order = self.order.as_ref().map_or(&[][..], |(_, order)| order);
        let Share { of, rows } = &self.train;
        to.append(of, rows.start, &order[plan.batch_rows(slot, step)]);
    }
}

fn evaluated(model: &dyn Model, parameters: &[f32], Share { of, rows }: &Share) -> Score {
    // By the shape of a row alone: whoever evaluates them gets the same bits.
    let together = (EVALUATED_INPUTS / of.features().max(1)).clamp(1, EVALUATED);
    let parts = rows.clone().step_by(together);
    let scores = parts.map(|first| {
        let part = first..rows.end.min(first + together);
        of.visit(part, |batch| model.evaluate(parameters, batch))
    });
    scores.reduce(Score::with).unwrap_or_default()
}

/// Memory for a gradient, whatever is in it.
fn taken(pool: &mut Pool, len: usize) -> Result<Vec<f32>, NoMemory> {
    pool.take(len).map_or_else(|| zeros(len), Ok)
}

fn insert(sum: &mut Reduction, slot: Slot, gradient: Vec<f32>, rows: &Range<usize>) {
    let part = Part { values: Arc::new(gradient), rows: rows.len() as u64 };
    // A leaf is always a node of the tree.
    let _ = sum.insert(Span::one(slot), part);
}

#[cfg(test)]
mod tests;
