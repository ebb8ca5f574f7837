//! Which part of a fault plan matters: delta debugging (Zeller and Hildebrandt, "Simplifying and
//! Isolating Failure-Inducing Input", 2002) over the faults, then shorter and rounder times.

use std::time::{Duration, Instant};

use super::fault::{Fault, FaultKind, FaultPlan};
use super::{Broken, Report, Sim};

/// Proposes simpler plans, given whether each still fails. Runs nothing itself.
///
/// The plan that it holds has failed as it is, whatever the verdicts on others: verdicts need not
/// be monotone. It ends: each round has finitely many candidates, and there are two rounds.
#[derive(Debug)]
pub(super) struct Shrinker {
    best: FaultPlan,
    stage: Stage,
    /// Waits for its verdict.
    asked: Option<FaultPlan>,
    tried: Vec<FaultPlan>,
    last_round: bool,
}

#[derive(Debug)]
enum Stage {
    /// No faults at all.
    Nothing,
    /// Of `parts` parts of the faults: each alone, then all but each.
    Remove {
        parts: usize,
        next: usize,
    },
    /// Each fault in each [`Aspect`], in turn.
    Simplify {
        turn: usize,
        options: Option<Options>,
    },
    Over,
}

/// Replacements of one fault, better ones first.
#[derive(Debug)]
enum Options {
    /// In the order of something that one would expect to be monotone: bisected.
    Sorted {
        faults: Vec<Fault>,
        from: usize,
        to: usize,
    },
    Any {
        faults: Vec<Fault>,
        next: usize,
    },
}

/// What can be simpler about a fault.
#[derive(Clone, Copy, Debug)]
enum Aspect {
    Shorter,
    RounderLength,
    RounderStart,
    Weaker,
}

const ASPECTS: [Aspect; 4] =
    [Aspect::Shorter, Aspect::RounderLength, Aspect::RounderStart, Aspect::Weaker];

impl Shrinker {
    /// Of a plan that fails.
    pub(super) fn new(plan: FaultPlan) -> Self {
        Self {
            tried: vec![plan.clone()],
            best: plan,
            stage: Stage::Nothing,
            asked: None,
            last_round: false,
        }
    }

    /// The simplest plan so far that fails.
    pub(super) fn best(&self) -> &FaultPlan {
        &self.best
    }

    /// The plan to run next; `None` when it is done. The same one until there is a verdict.
    pub(super) fn candidate(&mut self) -> Option<FaultPlan> {
        while self.asked.is_none() && !matches!(self.stage, Stage::Over) {
            match self.propose() {
                Some(plan) if !self.tried.contains(&plan) => {
                    self.tried.push(plan.clone());
                    self.asked = Some(plan);
                }
                // What has been tried before has not failed, or it is what we have.
                Some(_) => self.advance(false),
                None => self.next_stage(),
            }
        }
        self.asked.clone()
    }

    /// Whether the candidate still fails in the same way.
    pub(super) fn verdict(&mut self, fails: bool) {
        let Some(plan) = self.asked.take() else { return };
        if fails {
            self.best = plan;
        }
        self.advance(fails);
    }

    fn propose(&self) -> Option<FaultPlan> {
        let faults = &self.best.faults;
        match &self.stage {
            Stage::Nothing => Some(FaultPlan::default()),
            Stage::Remove { parts, next } => {
                if faults.len() < 2 || *next >= 2 * parts {
                    return None;
                }
                let (part, alone) = (next % parts, next < parts);
                let bounds = part * faults.len() / parts..(part + 1) * faults.len() / parts;
                let kept = faults.iter().enumerate().filter(|(i, _)| bounds.contains(i) == alone);
                Some(FaultPlan::new(kept.map(|(_, fault)| fault.clone())))
            }
            Stage::Simplify { turn, options } => {
                let fault = options.as_ref()?.current()?;
                let mut plan = self.best.clone();
                *plan.faults.get_mut(turn / ASPECTS.len())? = fault.clone();
                Some(plan)
            }
            Stage::Over => None,
        }
    }

    /// Within a stage.
    fn advance(&mut self, failed: bool) {
        let len = self.best.faults.len();
        match &mut self.stage {
            Stage::Nothing if failed => self.stage = Stage::Over,
            Stage::Nothing => self.stage = Stage::Remove { parts: 2, next: 0 },
            Stage::Remove { parts, next } if failed => {
                let alone = *next < *parts;
                *parts = if alone { 2 } else { (*parts - 1).max(2).min(len.max(1)) };
                *next = 0;
            }
            Stage::Remove { next, .. } => *next += 1,
            Stage::Simplify { options: Some(options), .. } => options.advance(failed),
            Stage::Simplify { .. } | Stage::Over => {}
        }
    }

    /// Where a stage has no more candidates.
    fn next_stage(&mut self) {
        let faults = &self.best.faults;
        self.stage = match &self.stage {
            Stage::Remove { parts, .. } if *parts < faults.len() => {
                Stage::Remove { parts: (2 * parts).min(faults.len()), next: 0 }
            }
            Stage::Remove { .. } if self.last_round => Stage::Over,
            Stage::Nothing | Stage::Remove { .. } => self.simplify(0),
            Stage::Simplify { turn, options: Some(_) } => self.simplify(turn + 1),
            // Shorter ones may need fewer others.
            Stage::Simplify { .. } => {
                self.last_round = true;
                Stage::Remove { parts: 2, next: 0 }
            }
            Stage::Over => Stage::Over,
        };
    }

    fn simplify(&self, turn: usize) -> Stage {
        let fault = self.best.faults.get(turn / ASPECTS.len());
        let options = fault.map(|fault| ASPECTS[turn % ASPECTS.len()].options(fault));
        Stage::Simplify { turn, options }
    }
}

impl Options {
    fn current(&self) -> Option<&Fault> {
        match self {
            Self::Sorted { faults, from, to } => faults[*from..*to].get((to - from) / 2),
            Self::Any { faults, next } => faults.get(*next),
        }
    }

    fn advance(&mut self, failed: bool) {
        match self {
            Self::Sorted { from, to, .. } => {
                let middle = *from + (*to - *from) / 2;
                if failed { *to = middle } else { *from = (middle + 1).min(*to) }
            }
            Self::Any { faults, next } => *next = if failed { faults.len() } else { *next + 1 },
        }
    }
}

impl Aspect {
    fn options(self, fault: &Fault) -> Options {
        let with = |change: &dyn Fn(&mut Fault)| {
            let mut fault = fault.clone();
            change(&mut fault);
            fault
        };
        match self {
            Self::Shorter => {
                let lengths = friendly_below(fault.for_ms).into_iter();
                Options::sorted(lengths.map(|ms| with(&|fault| fault.for_ms = ms)))
            }
            Self::RounderLength => {
                // Those of the search for shorter ones are short as they are.
                let is_friendly =
                    friendly_below(fault.for_ms.saturating_add(1)).ends_with(&[fault.for_ms]);
                let lengths = rounder(fault.for_ms).into_iter();
                let lengths = lengths.filter(|ms| *ms > 0 && !is_friendly);
                Options::any(lengths.map(|ms| with(&|fault| fault.for_ms = ms)))
            }
            Self::RounderStart => {
                let starts = rounder(fault.at_ms).into_iter();
                Options::any(starts.map(|ms| with(&|fault| fault.at_ms = ms)))
            }
            Self::Weaker => {
                let sizes = friendly_below(size(&fault.kind)).into_iter();
                Options::sorted(sizes.map(|size| with(&|fault| resize(&mut fault.kind, size))))
            }
        }
    }
}

impl Options {
    fn sorted(faults: impl Iterator<Item = Fault>) -> Self {
        let faults: Vec<Fault> = faults.collect();
        Self::Sorted { from: 0, to: faults.len(), faults }
    }

    fn any(faults: impl Iterator<Item = Fault>) -> Self {
        Self::Any { faults: faults.collect(), next: 0 }
    }
}

/// 10, 20, 50, 100, … below a number, in this order.
fn friendly_below(number: u64) -> Vec<u64> {
    let scales = std::iter::successors(Some(10u64), |scale| scale.checked_mul(10));
    let friendly = scales.flat_map(|scale| [1, 2, 5].map(|digit| scale.saturating_mul(digit)));
    friendly.take_while(|friendly| *friendly < number).collect()
}

/// Milliseconds near a time, rounder ones first: 0, whole seconds, tenths, hundredths.
fn rounder(ms: u64) -> Vec<u64> {
    let mut near = vec![0];
    for unit in [1000, 100, 10] {
        let down = ms - ms % unit;
        near.extend([down, down.saturating_add(unit)]);
    }
    // No less round than it is.
    let own = near.iter().position(|near| *near == ms);
    near.truncate(own.unwrap_or(near.len()));
    near
}

/// How strong a fault is, in its own unit; 0 for what just is or isn't.
fn size(kind: &FaultKind) -> u64 {
    match kind {
        FaultKind::Delay { ms, .. } | FaultKind::SlowDisk { ms, .. } => *ms,
        FaultKind::Drop { rate, .. }
        | FaultKind::Duplicate { rate, .. }
        | FaultKind::Reorder { rate, .. }
        | FaultKind::FailWrites { rate, .. } => u64::from(*rate),
        FaultKind::Clock { by_ms, .. } => by_ms.unsigned_abs(),
        FaultKind::Slow { times, .. } => u64::from(*times),
        FaultKind::Kill { .. }
        | FaultKind::PowerLoss { .. }
        | FaultKind::Stop { .. }
        | FaultKind::Pause { .. }
        | FaultKind::Drain { .. }
        | FaultKind::Panic { .. }
        | FaultKind::Block { .. }
        | FaultKind::FlipBit { .. } => 0,
    }
}

/// To less than it is.
fn resize(kind: &mut FaultKind, size: u64) {
    match kind {
        FaultKind::Delay { ms, .. } | FaultKind::SlowDisk { ms, .. } => *ms = size,
        FaultKind::Drop { rate, .. }
        | FaultKind::Duplicate { rate, .. }
        | FaultKind::Reorder { rate, .. }
        | FaultKind::FailWrites { rate, .. } => *rate = u16::try_from(size).unwrap_or(*rate),
        FaultKind::Slow { times, .. } => *times = u16::try_from(size).unwrap_or(*times),
        FaultKind::Clock { by_ms, .. } => {
            let size = i64::try_from(size).unwrap_or(i64::MAX);
            *by_ms = size * by_ms.signum();
        }
        FaultKind::Kill { .. }
        | FaultKind::PowerLoss { .. }
        | FaultKind::Stop { .. }
        | FaultKind::Pause { .. }
        | FaultKind::Drain { .. }
        | FaultKind::Panic { .. }
        | FaultKind::Block { .. }
        | FaultKind::FlipBit { .. } => {}
    }
}

/// How much shrinking may cost. It ends with the run in which either is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShrinkBudget {
    pub runs: u64,
    /// Of a wall clock; runs are one after the other, so CPU time is no more.
    pub time: Duration,
}

impl Default for ShrinkBudget {
    /// 9 s, as the run that ends it may take another; 12 faults of which 2 matter take 80 runs.
    fn default() -> Self {
        Self { runs: 300, time: Duration::from_secs(9) }
    }
}

/// The simplest plan that was found to fail in the same way.
#[derive(Clone, Debug)]
pub struct Shrunk {
    /// Of the run under that plan.
    pub report: Report,
    pub runs: u64,
    pub took: Duration,
    /// Whether the budget ended it.
    pub cut_short: bool,
}

impl Sim {
    /// Looks for a simpler plan under which the seed of a failed run fails in the same way.
    /// `progress` hears the number of runs and the faults that are left.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "measures the machine, not the simulation")]
    pub fn shrink(
        &self,
        failed: &Report,
        budget: ShrinkBudget,
        mut progress: impl FnMut(u64, usize),
    ) -> Shrunk {
        let started = Instant::now();
        let calm = match &failed.broken {
            Some(Broken::Digest { calm, .. }) => Some(calm.as_str()),
            _ => None,
        };
        let mut shrunk =
            Shrunk { report: failed.clone(), runs: 0, took: Duration::ZERO, cut_short: false };
        let mut shrinker = Shrinker::new(failed.plan.clone());
        while let Some(plan) = shrinker.candidate() {
            if shrunk.runs >= budget.runs || started.elapsed() >= budget.time {
                shrunk.cut_short = true;
                break;
            }
            let report = self.judged(failed.seed, plan, calm);
            shrunk.runs += 1;
            let fails = match (&report.broken, &failed.broken) {
                (Some(broken), Some(first)) => broken.is_like(first),
                _ => false,
            };
            shrinker.verdict(fails);
            if fails {
                shrunk.report = report;
            }
            progress(shrunk.runs, shrinker.best().faults.len());
        }
        shrunk.took = started.elapsed();
        shrunk
    }
}

#[cfg(test)]
mod tests {
    use super::super::fault::{delay, kill, lose, pause, skew};
    use super::*;

    /// Candidates asked for, and where it ends.
    fn shrink(plan: FaultPlan, mut fails: impl FnMut(&FaultPlan) -> bool) -> (usize, FaultPlan) {
        let (mut shrinker, mut runs) = (Shrinker::new(plan), 0);
        while let Some(candidate) = shrinker.candidate() {
            runs += 1;
            assert!(runs < 1000, "it does not end: {candidate}");
            shrinker.verdict(fails(&candidate));
        }
        (runs, shrinker.best().clone())
    }

    fn twelve() -> FaultPlan {
        FaultPlan::new((0..12).map(|i| {
            let node = format!("node-{i}");
            Fault { at_ms: 1337 + i * 1111, for_ms: 873, ..kill(&node) }
        }))
    }

    fn names(plan: &FaultPlan) -> Vec<&str> {
        plan.faults.iter().flat_map(Fault::nodes).collect()
    }

    fn has(plan: &FaultPlan, node: &str) -> bool {
        names(plan).contains(&node)
    }

    #[test]
    fn the_one_of_twelve_faults_that_matters_is_left_at_a_round_time() {
        for i in 0..12 {
            let node = format!("node-{i}");
            let (runs, left) = shrink(twelve(), |plan| has(plan, &node));
            assert_eq!(left, FaultPlan::new([kill(&node).at("0s").for_("10ms")]));
            assert!(runs <= 20, "{runs} runs");
        }
    }

    #[test]
    fn the_two_of_twelve_faults_that_matter_are_left() {
        for (one, other) in [(0, 11), (3, 4), (2, 9), (5, 6)] {
            let (one, other) = (format!("node-{one}"), format!("node-{other}"));
            let (runs, left) = shrink(twelve(), |plan| has(plan, &one) && has(plan, &other));
            assert_eq!(names(&left), [&one, &other]);
            assert!(runs <= 80, "{runs} runs");
        }
    }

    #[test]
    fn a_failure_without_any_fault_is_seen_at_once() {
        assert_eq!(shrink(twelve(), |_| true), (1, FaultPlan::default()));
    }

    #[test]
    fn what_fails_only_as_a_whole_is_left_as_it_is() {
        let whole = twelve();
        assert_eq!(shrink(whole.clone(), |plan| *plan == whole).1, whole);
    }

    #[test]
    fn with_verdicts_that_are_not_monotone_the_rest_has_failed_as_it_is() {
        let fails = |plan: &FaultPlan| has(plan, "node-7") && plan.faults.len() % 2 == 1;
        let (_, left) =
            shrink(FaultPlan::new(twelve().faults.into_iter().take(11)), |plan| fails(plan));
        assert!(fails(&left), "{left}");
        assert_eq!(left.faults.len(), 1);
    }

    #[test]
    fn with_verdicts_by_chance_it_ends_with_a_plan_that_failed_once() {
        for seed in 1..200u64 {
            let (mut state, mut failed) = (seed, vec![twelve()]);
            let (_, left) = shrink(twelve(), |plan| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let fails = state >> 62 == 0;
                if fails {
                    failed.push(plan.clone());
                }
                fails
            });
            assert_eq!(failed.last(), Some(&left));
        }
    }

    #[test]
    fn times_are_as_short_and_round_as_still_fails() {
        let plan = FaultPlan::new([pause("ps-0").at("4321ms").for_("2718ms")]);
        let long_enough = |plan: &FaultPlan| {
            plan.faults.first().is_some_and(|fault| fault.for_ms >= 300 && fault.at_ms >= 3950)
        };
        let (_, left) = shrink(plan, long_enough);
        assert_eq!(left, FaultPlan::new([pause("ps-0").at("4s").for_("500ms")]));
    }

    #[test]
    fn a_time_that_cannot_be_shorter_is_rounded() {
        let plan = FaultPlan::new([pause("ps-0").at("4s").for_("1873ms")]);
        let fails =
            |plan: &FaultPlan| plan.faults.first().is_some_and(|fault| fault.for_ms >= 1800);
        let (_, left) = shrink(plan, fails);
        assert_eq!(left, FaultPlan::new([pause("ps-0").at("0s").for_("2s")]));
    }

    #[test]
    fn rates_delays_and_skews_are_made_weaker() {
        let plan = FaultPlan::new([
            lose("a", "b", 137).at("1s").for_("1s"),
            delay("a", "b", 444).at("1s").for_("1s"),
            skew("a", -51_234).at("1s").for_("1s"),
        ]);
        let (_, left) = shrink(plan, |plan| match plan.faults.as_slice() {
            [one, two, three] => {
                size(&one.kind) >= 15 && size(&two.kind) >= 100 && size(&three.kind) >= 7000
            }
            _ => false,
        });
        let kinds: Vec<FaultKind> = left.faults.into_iter().map(|fault| fault.kind).collect();
        let weaker = [lose("a", "b", 20), delay("a", "b", 100), skew("a", -10_000)];
        assert_eq!(kinds, weaker.map(|fault| fault.kind));
    }

    #[test]
    fn no_plan_is_asked_about_twice() {
        let mut asked = Vec::new();
        shrink(twelve(), |plan| {
            assert!(!asked.contains(plan), "{plan}");
            asked.push(plan.clone());
            has(plan, "node-3") && has(plan, "node-8")
        });
    }
}
