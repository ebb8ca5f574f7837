//! Which part of a fault plan matters: delta debugging (Zeller and Hildebrandt, "Simplifying and
//! Isolating Failure-Inducing Input", 2002) over the faults, then shorter and rounder times.

use std::time::{Duration, Instant};

use self::simpler::{ASPECTS, Options};
use super::fault::FaultPlan;
use super::{Broken, Report, Sim};

mod simpler;

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
mod tests;
