//! One copy of a shard: a range of the parameters, the step that is being summed, and the update.
//!
//! Which gradient counts is decided here and nowhere else. What is applied may be seen at once, but
//! nothing is applied on top of it before the replicas have it too: then it is committed. So the
//! workers compute while a step is on its way to the replicas; should it be lost with its primary,
//! they send the same gradients again, and the same bits come of them.

mod follow;
mod passes;
mod pushes;
mod reports;

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use crate::checkpoint::{PartContent, is_saved};
use crate::codec::{Codec, codec};
use crate::ids::{ShardId, Version, View};
use crate::job::GradientSpec;
use crate::ledger::Ledger;
use crate::messages::{
    BytesMoved, Parameters, PullError, PullParameters, PushError, Update, Values,
};
use crate::norm::{block_sums, clip_factor};
use crate::optimizer::Optimizer;
use crate::plan::JobPlan;
use crate::pool::Pool;
use crate::reading::Reading;
use crate::reduction::Reduction;
use passes::Complete;
use reports::Reports;

/// Target of the event of each applied step. Only who listens to it, as the failure simulation
/// does, pays for its digest.
pub const COMMITS: &str = "gradmesh::commits";

/// Versions before the newest that a copy keeps. Another shard's newest may have been lost while it
/// was not committed; then workers start again from what that one's replica has, and by then this
/// one can be two steps further.
pub const EARLIER_KEPT: usize = 2;

/// Vectors of a shard that are used again: the versions that are kept, the next one, and gradients
/// of the newest steps that are on their way to other copies.
const VECTORS_KEPT: usize = EARLIER_KEPT + 6;

/// A shard's state at one version, as it was initialised or read from a checkpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct ShardState {
    pub version: Version,
    pub parameters: Vec<f32>,
    /// In the order of [`Optimizer::state_names`].
    pub optimizer: Vec<Vec<f32>>,
    pub ledger: Ledger,
}

/// One copy of a shard.
///
/// Invariants: `reduction` and `reports` hold parts of step `version` only; `committed` is as high
/// as `applied`, or one lower.
#[derive(Debug)]
pub struct Shard {
    id: ShardId,
    plan: Arc<JobPlan>,
    range: Range<usize>,
    checkpoint_every: u64,
    optimizer: Optimizer,
    codec: Option<Box<dyn Codec>>,
    view: View,
    /// The view in which this state was restored.
    lineage: View,
    version: Version,
    /// Updates that everyone has who must have them.
    committed: u64,
    current: Values,
    /// The versions before, newest first: at most [`EARLIER_KEPT`].
    earlier: VecDeque<Values>,
    state: Vec<Vec<f32>>,
    reduction: Reduction,
    /// For versions and gradients.
    pool: Pool,
    reports: Reports,
    /// The gradient of the step that is to be applied.
    complete: Option<Complete>,
    /// The step has overflowed: it would do so again, and `state` is of no version any more, which
    /// must not be saved or sent on.
    overflow: Option<PushError>,
    ledger: Ledger,
    bytes: BytesMoved,
    /// The newest update, for a copy that lacks it.
    last: Option<Arc<Update>>,
    /// The whole sums of squares of the newest steps that have one, newest last: of as many as
    /// there are earlier versions, which another shard may have to make again.
    norms: VecDeque<(Version, f64)>,
}

/// What became of a push.
#[derive(Clone, Debug, PartialEq)]
pub enum Accepted {
    /// Answer when the step is applied.
    Waiting,
    /// The step had been applied: answer now.
    Applied,
    /// This push completed the sum: [`Shard::aggregate`] is next.
    Complete,
}

/// What is needed to apply a complete step.
#[derive(Clone, Debug, PartialEq)]
pub enum Aggregated {
    /// Nothing: [`Shard::apply`] is next.
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
            lineage: view,
            version: state.version,
            committed: state.version.0 + u64::from(state.ledger.closed && id == ShardId(0)),
            current: Arc::new(state.parameters),
            earlier: VecDeque::with_capacity(EARLIER_KEPT + 1),
            state: state.optimizer,
            reduction,
            pool: Pool::new(VECTORS_KEPT),
            reports: Reports::default(),
            complete: None,
            overflow: None,
            ledger: state.ledger,
            bytes: BytesMoved::default(),
            last: None,
            norms: VecDeque::with_capacity(EARLIER_KEPT + 1),
            plan,
        }
    }

    pub fn plan(&self) -> &JobPlan {
        &self.plan
    }

    /// Steps between two checkpoints.
    pub fn checkpoint_every(&self) -> u64 {
        self.checkpoint_every
    }

    pub fn version(&self) -> Version {
        self.version
    }

    pub fn view(&self) -> View {
        self.view
    }

    pub fn lineage(&self) -> View {
        self.lineage
    }

    /// Updates that this copy has applied: its version, and one more where the first shard's last
    /// version has been evaluated.
    pub fn applied(&self) -> u64 {
        self.version.0 + u64::from(self.ledger.closed && self.is_first())
    }

    /// The newest version that every copy has which may be the next primary.
    pub fn committed(&self) -> Version {
        Version(self.committed.min(self.version.0))
    }

    /// Whether what is applied is committed.
    pub fn is_settled(&self) -> bool {
        self.committed == self.applied()
    }

    /// The sums of squares of the newest steps that had one, in their order.
    pub fn norms(&self) -> impl Iterator<Item = (Version, f64)> + use<> {
        self.norms.clone().into_iter()
    }

    pub fn bytes(&self) -> BytesMoved {
        self.bytes
    }

    /// What the job has counted; the first shard's alone is kept.
    pub fn ledger(&self) -> Option<&Ledger> {
        self.is_first().then_some(&self.ledger)
    }

    /// CRC-32 of parameters and optimizer state: for whoever compares runs, step by step.
    pub fn checksum(&self) -> u32 {
        let mut sum = crc32fast::Hasher::new();
        for values in std::iter::once(&*self.current).chain(&self.state) {
            sum.update(bytemuck::cast_slice(values));
        }
        sum.finalize()
    }

    /// The parameters of this version if they are here, else the newest; as a reply.
    pub fn at_or_newest(&mut self, version: Version) -> Parameters {
        let (version, values) = match self.at(version) {
            Some(values) => (version, Arc::clone(values)),
            None => (self.version, Arc::clone(&self.current)),
        };
        self.bytes.pulled += size_of_val(values.as_slice()) as u64;
        Parameters { version, values }
    }

    fn at(&self, version: Version) -> Option<&Values> {
        match self.version.0.checked_sub(version.0)? {
            0 => Some(&self.current),
            back => self.earlier.get(usize::try_from(back).ok()? - 1),
        }
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
        let version = self.version;
        match pull.version.filter(|wanted| self.at(*wanted).is_none()) {
            Some(wanted) => Err(PullError::OutOfWindow { wanted, version }),
            None => Ok(self.at_or_newest(pull.version.unwrap_or(version))),
        }
    }

    /// Takes the complete sum; where the global norm is wanted, makes the mean gradient of it,
    /// clipped by value.
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
        let GradientSpec { clip_value, clip_norm, .. } = self.plan.offer.job.gradient;
        // A sum over no rows is all zeros, and stays so.
        let scale = 1.0 / total.rows.max(1) as f32;
        let limit = if clip_value > 0.0 { clip_value } else { f32::INFINITY };
        let mut gradient = Complete { sum: total, reading: Reading { scale, limit } };
        let sums = if clip_norm > 0.0 {
            gradient = self.mean(gradient)?;
            Some(block_sums(&gradient.sum.left))
        } else {
            None
        };
        self.complete = Some(gradient);
        Ok(sums.map_or(Aggregated::Ready, Aggregated::NeedsNorm))
    }

    /// Applies the step; returns it where other copies are to follow. The next one is complete only
    /// after [`Shard::commit`].
    ///
    /// # Errors
    /// [`PushError::Overflow`]: the sum or the next version would not be finite. As for
    /// [`Shard::aggregate`].
    ///
    /// # Panics
    /// If [`Shard::aggregate`] didn't come before.
    pub fn apply(
        &mut self,
        sum_of_squares: Option<f64>,
        is_followed: bool,
    ) -> Result<Option<Arc<Update>>, PushError> {
        let closing = self.version == self.plan.last_version();
        let gradient = match self.complete.take() {
            Some(mut gradient) => {
                if let Some(sum) = sum_of_squares {
                    gradient.reading.scale =
                        clip_factor(sum, self.plan.offer.job.gradient.clip_norm);
                }
                self.advance(gradient, is_followed)?
            }
            None if closing => Values::default(),
            None => panic!("{} applies no gradient", self.id),
        };
        let step = if closing { self.version } else { Version(self.version.0 - 1) };
        let reports = self.reports.take();
        let update = Arc::new(Update { step, sum_of_squares, reports, gradient });
        self.count_step(&update);
        self.last = is_followed.then(|| Arc::clone(&update));
        Ok(self.last.clone())
    }

    /// Whoever must have what is applied has it. Returns what must be saved.
    pub fn commit(&mut self) -> Option<Save> {
        self.committed = self.applied();
        self.save()
    }

    /// Applies a step as another copy has.
    fn update(&mut self, update: &Arc<Update>) -> Result<(), PushError> {
        if update.step < self.plan.last_version() {
            let values = Values::clone(&update.gradient);
            self.advance(Complete::as_it_is(values), false)?;
        }
        self.count_step(update);
        self.last = Some(Arc::clone(update));
        Ok(())
    }

    /// What was applied beside the parameters.
    fn count_step(&mut self, update: &Update) {
        if self.is_first() {
            self.ledger.commit(&self.plan, update.step, &update.reports);
        }
        self.norms.extend(update.sum_of_squares.map(|sum| (update.step, sum)));
        if self.norms.len() > EARLIER_KEPT {
            self.norms.pop_front();
        }
        self.forget_step();
    }

    /// Nothing of the step in flight is here any more.
    fn forget_step(&mut self) {
        self.reduction.clear();
        self.reports.clear();
        self.complete = None;
    }

    /// The state to save, if this version is one that is saved. The first shard's last version is
    /// saved only when it has been evaluated.
    pub fn saved(&self) -> Option<Save> {
        if self.is_settled() { self.save() } else { None }
    }

    fn save(&self) -> Option<Save> {
        let last = self.plan.last_version();
        let closed = self.ledger.closed || !self.is_first();
        let due = is_saved(self.version, self.checkpoint_every, last) && self.overflow.is_none();
        if !due || (self.version == last && !closed) {
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

    /// What this shard hands in for the global norm, while the step in flight waits for it.
    pub fn block_sums(&self) -> Option<Vec<f64>> {
        let clips = self.plan.offer.job.gradient.clip_norm > 0.0;
        self.complete.as_ref().filter(|_| clips).map(|mean| block_sums(&mean.sum.left))
    }

    /// Whether the job's last version is here.
    pub fn is_done(&self) -> bool {
        self.version == self.plan.last_version()
    }

    fn is_first(&self) -> bool {
        self.id == ShardId(0)
    }
}

#[cfg(test)]
mod tests;
