//! Which workers are slow, and which slots move away from them.
//!
//! Slots are leased in contiguous spans in worker order, whatever their sizes: who computes a slot
//! changes no bit. A worker that is slow for a while gets fewer of them, and more again when it is
//! not. Each move costs a view, so that small or short-lived gains are left alone.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

use crate::assignment::lease;
use crate::ids::WorkerId;
use crate::messages::Pace;
use crate::reduction::Span;

/// A step must become shorter by more than a fifth: two workers on one processor disturb each
/// other by about half of that.
const GAIN_PERCENT: u64 = 20;
/// Between two moves, and before the first: what was measured should be of the leases as they are.
const MOVE_EVERY: Duration = Duration::from_secs(3);

/// What is known of the workers' speeds.
#[derive(Clone, Debug, Default)]
pub struct Speeds {
    of: BTreeMap<WorkerId, Speed>,
    /// Whether something was measured since the leases were compared.
    has_news: bool,
    /// When the leases last became others.
    moved: Option<Duration>,
}

/// In nanoseconds, as it was lately.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Speed {
    /// To compute one slot; 1 at least.
    slot: u64,
    /// To go through a whole step, the others waited for.
    step: u64,
}

/// Leases that make steps shorter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Better {
    pub leases: BTreeMap<WorkerId, Span>,
    /// The worker that takes longest for a slot, and its time as percents of the fastest's.
    pub slowest: WorkerId,
    pub percent: u64,
}

impl Speeds {
    /// A worker has measured. The newest second counts as much as all before it.
    pub fn measured(&mut self, worker: WorkerId, pace: Pace) {
        if pace.slots == 0 || pace.steps == 0 {
            return;
        }
        let slot = (pace.computing_ns / u64::from(pace.slots)).max(1);
        let step = pace.passed_ns / u64::from(pace.steps);
        self.has_news = true;
        let mean = |before: u64, new: u64| before / 2 + new / 2 + (before & new & 1);
        let newest = Speed { slot, step };
        let speed = self.of.entry(worker).or_insert(newest);
        *speed = Speed { slot: mean(speed.slot, slot).max(1), step: mean(speed.step, step) };
    }

    /// A worker is gone: whoever has its number next may be on another machine.
    pub fn forget(&mut self, worker: WorkerId) {
        self.of.remove(&worker);
    }

    /// Nanoseconds that this worker takes for a slot.
    pub fn slot_ns(&self, worker: WorkerId) -> Option<u64> {
        self.of.get(&worker).map(|speed| speed.slot)
    }

    /// Spans of these workers, without those that get nothing. Those of `held` stay where the same
    /// workers hold them and nothing is to be gained.
    pub fn leases(
        &self,
        slots: u32,
        workers: &[WorkerId],
        held: &BTreeMap<WorkerId, Span>,
    ) -> BTreeMap<WorkerId, Span> {
        let mut even = lease(slots, workers);
        even.retain(|_, span| span.first < span.end);
        let same = held.keys().eq(even.keys());
        let before = if same { held } else { &even };
        // Whoever has just come to lead has measured nothing, and leaves what it finds.
        if self.of.is_empty() {
            return before.clone();
        }
        let weighted = self.weighted(slots, workers);
        match weighted.filter(|weighted| self.gains(before, weighted)) {
            Some(weighted) => weighted,
            None => before.clone(),
        }
    }

    /// Whether slots should move now, from the leases that are held by all `workers`.
    pub fn better(
        &mut self,
        slots: u32,
        workers: &[WorkerId],
        held: &BTreeMap<WorkerId, Span>,
        now: Duration,
    ) -> Option<Better> {
        let moved = *self.moved.get_or_insert(now);
        if now.saturating_sub(moved) < MOVE_EVERY || !std::mem::take(&mut self.has_news) {
            return None;
        }
        let leases = self.leases(slots, workers, held);
        if leases == *held {
            return None;
        }
        let of = || workers.iter().filter_map(|worker| Some((self.slot_ns(*worker)?, *worker)));
        let ((slow, slowest), (fast, _)) = (of().max()?, of().min()?);
        self.moved = Some(now);
        Some(Better { leases, slowest, percent: slow.saturating_mul(100) / fast.max(1) })
    }

    /// Each slot to whoever would be done first with it, after one for everyone, so that everyone
    /// is measured. `None` where there are not enough for that, or nothing is known.
    fn weighted(&self, slots: u32, workers: &[WorkerId]) -> Option<BTreeMap<WorkerId, Span>> {
        let rest = slots.checked_sub(u32::try_from(workers.len()).ok()?)?;
        let unknown = self.mean();
        // When each would be done with one more than it has, the first one on top.
        let mut done: BinaryHeap<_> = workers
            .iter()
            .map(|&worker| {
                let nanos = self.nanos(worker, unknown);
                Reverse((nanos.saturating_mul(2), worker, 1, nanos))
            })
            .collect();
        for _ in 0..rest {
            let mut first = done.peek_mut()?;
            let Reverse((at, _, count, nanos)) = &mut *first;
            *count += 1;
            *at = nanos.saturating_mul(u128::from(*count) + 1);
        }
        let counts: BTreeMap<WorkerId, u32> =
            done.into_iter().map(|Reverse((_, worker, count, _))| (worker, count)).collect();
        let mut next = 0;
        let spans = counts.into_iter().map(|(worker, count)| {
            let span = Span { first: next, end: next + count };
            next = span.end;
            (worker, span)
        });
        Some(spans.collect())
    }

    /// Whether a step becomes shorter by enough, with all that isn't computation left as it is.
    fn gains(&self, before: &BTreeMap<WorkerId, Span>, after: &BTreeMap<WorkerId, Span>) -> bool {
        let unknown = self.mean();
        let computing = |leases: &BTreeMap<WorkerId, Span>| {
            let nanos = leases.iter().map(|(worker, span)| {
                self.nanos(*worker, unknown) * u128::from(span.end.saturating_sub(span.first))
            });
            nanos.max().unwrap_or(0)
        };
        let (before, after) = (computing(before), computing(after));
        let step = self.of.values().map(|speed| u128::from(speed.step)).max().unwrap_or(0);
        // Steps that overlap with the one before can't be shorter than their computation.
        let step = step.max(before);
        before.saturating_sub(after) * 100 > step * u128::from(GAIN_PERCENT)
    }

    /// Of one slot. A worker of which nothing is known takes `unknown`.
    fn nanos(&self, worker: WorkerId, unknown: u128) -> u128 {
        self.of.get(&worker).map_or(unknown, |speed| u128::from(speed.slot))
    }

    /// Of one slot, of all workers that are known.
    fn mean(&self) -> u128 {
        let sum: u128 = self.of.values().map(|speed| u128::from(speed.slot)).sum();
        (sum / (self.of.len() as u128).max(1)).max(1)
    }
}

/// A worker's measurements, until they are reported.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stopwatch {
    pace: Pace,
    /// When the first of the steps in `pace` began.
    since: Duration,
}

/// How often a worker reports: rare beside its steps, and enough of them to be a mean.
const REPORT_EVERY: Duration = Duration::from_secs(1);

impl Stopwatch {
    /// A computation of `slots` slots took from `began` to `ended`. Gives what to report, if it is
    /// time to.
    pub fn computed(&mut self, slots: u32, began: Duration, ended: Duration) -> Option<Pace> {
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let passed = began.saturating_sub(self.since);
        let due = self.pace.steps > 0 && passed >= REPORT_EVERY;
        // Steps so far end where this one begins.
        let report = due.then(|| Pace { passed_ns: nanos(passed), ..self.pace });
        if due || self.pace.steps == 0 {
            *self = Self { pace: Pace::default(), since: began };
        }
        self.pace.steps = self.pace.steps.saturating_add(1);
        self.pace.slots = self.pace.slots.saturating_add(slots);
        let took = nanos(ended.saturating_sub(began));
        self.pace.computing_ns = self.pace.computing_ns.saturating_add(took);
        report
    }
}

#[cfg(test)]
mod tests;
