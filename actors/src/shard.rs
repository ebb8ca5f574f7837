//! One shard: a range of the parameters, the step that is being summed, and the update.
//!
//! Which gradient counts is decided here and nowhere else.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use crate::checkpoint::{PartContent, is_saved};
use crate::codec::{Codec, DecodeError, codec};
use crate::finite::first_not_finite;
use crate::ids::{ShardId, Slot, Version, View};
use crate::job::GradientSpec;
use crate::ledger::{Ledger, SlotReport};
use crate::messages::{
    BytesMoved, Parameters, PartHeader, Payload, PullError, PullParameters, PushError,
    PushGradient, Values,
};
use crate::norm::{block_sums, clip_factor};
use crate::optimizer::Optimizer;
use crate::plan::JobPlan;
use crate::planted::{self, Bug};
use crate::reduction::{Part, Reduction, Span};

/// Target of the event of each applied step. Only who listens to it, as the failure simulation
/// does, pays for its digest.
pub const COMMITS: &str = "gradmesh::commits";

/// Largest sum of losses of one slot that is counted: a job of 10⁹ steps and 4,096 slots of these
/// still adds up to a number, and no model that learns comes near.
const LOSS_MAX: f64 = 1e290;

/// A shard's state at one version, as it was initialised or read from a checkpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct ShardState {
    pub version: Version,
    pub parameters: Vec<f32>,
    /// In the order of [`Optimizer::state_names`].
    pub optimizer: Vec<Vec<f32>>,
    pub ledger: Ledger,
}

/// The owner's view of one shard.
///
/// Invariant: `reduction` and `reports` hold parts of step `version` only.
#[derive(Debug)]
pub struct Shard {
    id: ShardId,
    plan: Arc<JobPlan>,
    range: Range<usize>,
    checkpoint_every: u64,
    optimizer: Optimizer,
    codec: Option<Box<dyn Codec>>,
    view: View,
    version: Version,
    current: Values,
    /// The version before: a worker that lost a race with a dying one computes on it again.
    previous: Option<Values>,
    state: Vec<Vec<f32>>,
    reduction: Reduction,
    reports: BTreeMap<Slot, SlotReport>,
    /// The mean gradient of the step, while the global norm is awaited.
    mean: Option<Vec<f32>>,
    /// The step has overflowed: it would do so again, and `state` is of no version any more.
    overflow: Option<PushError>,
    ledger: Ledger,
    bytes: BytesMoved,
}

/// What became of a push.
#[derive(Clone, Debug, PartialEq)]
pub enum Accepted {
    /// Other slots are missing: answer when the step is applied.
    Waiting,
    /// The step had been applied: answer now.
    Applied,
    /// This push completed the sum: [`Shard::aggregate`] is next.
    Complete,
}

/// What is needed to apply a complete step.
#[derive(Clone, Debug, PartialEq)]
pub enum Aggregated {
    /// Nothing: [`Shard::commit`] is next.
    Ready,
    /// The sum of squares over all shards, for which these are this shard's block sums.
    NeedsNorm(Vec<f64>),
}

/// A version to write to the checkpoint store.
#[derive(Clone, Debug, PartialEq)]
pub struct Save {
    pub version: Version,
    pub content: PartContent,
    pub tensors: Vec<(String, Values)>,
}

impl Shard {
    /// # Panics
    /// If the shard isn't one of the plan's, or the state is not as long as its range.
    pub fn new(
        id: ShardId,
        plan: Arc<JobPlan>,
        checkpoint_every: u64,
        view: View,
        state: ShardState,
    ) -> Self {
        let job = &plan.offer.job;
        let range = plan.shards.range(id);
        assert_eq!(state.parameters.len(), range.len(), "state of another cut");
        let optimizer = Optimizer::new(&job.optimizer, plan.last_version().0);
        let (codec, reduction) = (codec(&job.gradient), Reduction::new(job.virtual_workers));
        Self {
            id,
            range,
            checkpoint_every,
            optimizer,
            codec,
            view,
            version: state.version,
            current: Arc::new(state.parameters),
            previous: None,
            state: state.optimizer,
            reduction,
            reports: BTreeMap::new(),
            mean: None,
            overflow: None,
            ledger: state.ledger,
            bytes: BytesMoved::default(),
            plan,
        }
    }

    pub fn plan(&self) -> &JobPlan {
        &self.plan
    }

    pub fn version(&self) -> Version {
        self.version
    }

    pub fn view(&self) -> View {
        self.view
    }

    pub fn bytes(&self) -> BytesMoved {
        self.bytes
    }

    /// What the job has counted; the first shard's alone is kept.
    pub fn ledger(&self) -> Option<&Ledger> {
        self.is_first().then_some(&self.ledger)
    }

    /// BLAKE3 of parameters and optimizer state, in hexadecimal: for whoever compares runs.
    pub fn digest(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        for values in std::iter::once(&*self.current).chain(&self.state) {
            hasher.update(bytemuck::cast_slice(values));
        }
        hasher.finalize().to_hex().to_string()
    }

    /// Raises the view; parts of the step in flight stay, for they are the same in every view.
    pub fn adopt(&mut self, view: View) {
        self.view = self.view.max(view);
    }

    /// The newest parameters, as a reply.
    pub fn newest(&mut self) -> Parameters {
        self.bytes.pulled += size_of_val(self.current.as_slice()) as u64;
        Parameters { version: self.version, values: Arc::clone(&self.current) }
    }

    /// # Errors
    /// See [`PullError`].
    pub fn pull(&mut self, pull: &PullParameters) -> Result<Parameters, PullError> {
        if pull.shard != self.id {
            return Err(PullError::WrongShard { expected: self.id, got: pull.shard });
        }
        if pull.view < self.view {
            return Err(PullError::StaleView { got: pull.view, current: self.view });
        }
        let wanted = pull.version.unwrap_or(self.version);
        if wanted == self.version {
            return Ok(self.newest());
        }
        match &self.previous {
            Some(values) if wanted.comes_before(self.version) => {
                self.bytes.pulled += size_of_val(values.as_slice()) as u64;
                Ok(Parameters { version: wanted, values: Arc::clone(values) })
            }
            _ => Err(PullError::OutOfWindow { wanted, version: self.version }),
        }
    }

    /// Adds the parts of a push to the step in flight: all of them, or none where one is refused.
    ///
    /// # Errors
    /// See [`PushError`].
    pub fn accept(&mut self, push: &PushGradient) -> Result<Accepted, PushError> {
        self.check_sender(push)?;
        let closing = push.step == self.version && self.version == self.plan.last_version();
        let counts = push.step == self.version
            || (planted::is(Bug::StaleStep) && push.step.comes_before(self.version));
        if (push.step.comes_before(self.version) && !counts) || (closing && self.ledger.closed) {
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
                let again = push.reports.iter().filter(|r| self.reports.contains_key(&r.slot));
                self.ledger.rows += again.map(|report| report.rows).sum::<u64>();
            }
            self.reports.extend(push.reports.iter().map(|report| (report.slot, *report)));
        }
        let complete = if closing {
            self.reports.len() == self.plan.offer.job.virtual_workers as usize
        } else {
            self.reduction.is_complete() && self.mean.is_none()
        };
        Ok(if complete { Accepted::Complete } else { Accepted::Waiting })
    }

    /// Turns the complete sum into the mean gradient, clipped by value.
    ///
    /// # Errors
    /// [`PushError::Overflow`]: the sum is not finite. The shard keeps its version, and refuses
    /// each further push of this step in the same way.
    ///
    /// # Panics
    /// If the sum is not complete.
    pub fn aggregate(&mut self) -> Result<Aggregated, PushError> {
        if self.version == self.plan.last_version() {
            return Ok(Aggregated::Ready);
        }
        let Some(total) = self.reduction.take_total() else {
            panic!("{} aggregates an incomplete step", self.id)
        };
        let GradientSpec { clip_value: clip, clip_norm, .. } = self.plan.offer.job.gradient;
        let mut mean = Arc::unwrap_or_clone(total.values);
        // A sum over no rows is all zeros, and stays so.
        let scale = 1.0 / total.rows.max(1) as f32;
        mean.iter_mut().for_each(|value| *value *= scale);
        // Before it is clipped by value, which would make a number of an infinity.
        self.check_finite("sums of gradients", &mean)?;
        if clip > 0.0 {
            mean.iter_mut().for_each(|value| *value = value.clamp(-clip, clip));
        }
        let sums = (clip_norm > 0.0).then(|| block_sums(&mean));
        self.mean = Some(mean);
        Ok(sums.map_or(Aggregated::Ready, Aggregated::NeedsNorm))
    }

    /// Applies the step: the next version is what later pulls see. Returns what must be saved.
    ///
    /// # Errors
    /// [`PushError::Overflow`]: the next version would not be finite. As for [`Shard::aggregate`].
    ///
    /// # Panics
    /// If [`Shard::aggregate`] didn't come before.
    pub fn commit(&mut self, sum_of_squares: Option<f64>) -> Result<Option<Save>, PushError> {
        let step = self.version;
        if step < self.plan.last_version() {
            self.update(sum_of_squares)?;
        }
        if self.is_first() {
            let reports = std::mem::take(&mut self.reports);
            self.ledger.commit(&self.plan, step, &reports);
        }
        Ok(self.save())
    }

    fn update(&mut self, sum_of_squares: Option<f64>) -> Result<(), PushError> {
        let Some(mut mean) = self.mean.take() else { panic!("{} commits no gradient", self.id) };
        if let Some(sum) = sum_of_squares {
            let factor = clip_factor(sum, self.plan.offer.job.gradient.clip_norm);
            mean.iter_mut().for_each(|value| *value *= factor);
        }
        let mut next = vec![0.0; mean.len()];
        self.optimizer.apply(self.version, &mean, &self.current, &mut next, &mut self.state);
        self.check_finite("new parameters", &next)?;
        let state = std::mem::take(&mut self.state);
        for (name, values) in self.optimizer.state_names().iter().zip(&state) {
            self.check_finite(&format!("{name} values of the optimizer"), values)?;
        }
        self.state = state;
        self.previous = Some(std::mem::replace(&mut self.current, Arc::new(next)));
        self.version = self.version.next();
        self.reduction = Reduction::new(self.plan.offer.job.virtual_workers);
        Ok(())
    }

    /// Ends the step where a value of it is not finite.
    fn check_finite(&mut self, what: &str, values: &[f32]) -> Result<(), PushError> {
        let Some(place) = first_not_finite(values) else { return Ok(()) };
        let index = self.range.start + place;
        let tensor = self.plan.layout.tensor_at(index).map_or("", |tensor| tensor.name.as_str());
        let (what, tensor) = (what.to_owned(), tensor.to_owned());
        let (shard, step) = (self.id, self.version);
        let overflow = PushError::Overflow { shard, step, what, tensor, index };
        self.overflow = Some(overflow.clone());
        Err(overflow)
    }

    /// The state to save, if this version is one that is saved. The first shard's last version is
    /// saved only when it has been evaluated.
    fn save(&self) -> Option<Save> {
        let last = self.plan.last_version();
        let closed = self.ledger.closed || !self.is_first();
        if !is_saved(self.version, self.checkpoint_every, last) || (self.version == last && !closed)
        {
            return None;
        }
        let names = self.optimizer.state_names().iter().map(|name| (*name).to_owned());
        let state = names.zip(self.state.iter().map(|values| Arc::new(values.clone())));
        let parameters = ("parameters".to_owned(), Arc::clone(&self.current));
        let Range { start, end } = self.range;
        Some(Save {
            version: self.version,
            content: PartContent::Parameters { start, end },
            tensors: std::iter::once(parameters).chain(state).collect(),
        })
    }

    /// Whether the gradient of a step is complete, but for the global norm.
    pub fn awaits_norm(&self) -> bool {
        self.mean.is_some()
    }

    /// Whether the job's last version is here.
    pub fn is_done(&self) -> bool {
        self.version == self.plan.last_version()
    }

    fn is_first(&self) -> bool {
        self.id == ShardId(0)
    }

    fn check_sender(&self, push: &PushGradient) -> Result<(), PushError> {
        if push.shard != self.id {
            return Err(PushError::WrongShard { expected: self.id, got: push.shard });
        }
        if push.view < self.view {
            return Err(PushError::StaleView { got: push.view, current: self.view });
        }
        if push.view > self.view {
            // Only a restored coordinator's message can be ahead; ours is on its way.
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
        let reported: BTreeSet<Slot> = push.reports.iter().map(|report| report.slot).collect();
        let mut covered = push.parts.iter().flat_map(|part| part.span.slots());
        if covered.all(|slot| reported.contains(&slot)) {
            return Ok(());
        }
        Err(PushError::MissingReport)
    }

    /// The ledger adds up what it is told: nothing that the plan doesn't have may reach it.
    fn check_report(&self, report: &SlotReport, step: Version) -> Result<(), PushError> {
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
            if self.mean.is_some() || again {
                continue;
            }
            let values = self.read_payload(span, payload)?;
            if first_not_finite(&values).is_some() {
                return Err(PushError::NotFinite { span, step });
            }
            read.push((span, Part { values, rows: header.rows }));
        }
        Ok(read)
    }

    fn read_payload(&self, span: Span, payload: &Payload) -> Result<Values, PushError> {
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
                let mut values = vec![0.0; self.range.len()];
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

#[cfg(test)]
mod tests;
