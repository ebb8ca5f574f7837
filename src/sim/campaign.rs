//! A simulation over many seeds.

use std::fmt;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, PoisonError};
use std::thread;

use super::failure::{CampaignError, Failure};
use super::fault::FaultPlan;
use super::report::{Broken, Report};
use super::shrink::ShrinkBudget;
use super::summary::{FAULTS, Summary};
use super::world::{Counts, When};
use super::{Ending, Faults, Seed, Sim, regression};

/// Environment variable that makes [`Campaign::check`] run this seed alone and print its timeline.
pub const SEED_VARIABLE: &str = "GRADMESH_SIM_SEED";

/// The run without faults. No fault, so any seed's digest is the same.
const CALM: Seed = Seed(0);

/// Runs a simulation with many seeds, see [`Sim::seeds`].
#[must_use = "call `check` in a test, or `run`"]
pub struct Campaign {
    sim: Sim,
    seeds: Range<u64>,
    threads: usize,
    budget: ShrinkBudget,
    built_by: String,
    command: String,
    progress: Option<Box<Hear>>,
}

type Hear = dyn Fn(Progress<'_>) + Send + Sync;

/// How far a campaign has come.
#[derive(Clone, Copy, Debug)]
pub enum Progress<'a> {
    /// Another seed has passed; seeds do so in any order.
    Seed { done: &'a Summary, of: u64 },
    /// A seed failed, and its plan is being shrunk.
    Shrinking { seed: Seed, runs: u64, faults: usize },
}

impl Sim {
    /// Many seeds, as a test: each must hold what is demanded, each `sometimes` must hold in one
    /// of them, and where there are faults, one must begin before a run is over. Where the simulation ends with a trained model ([`Sim::cluster`]), each must come
    /// to the digest of a run without faults.
    ///
    /// ```no_run
    /// # use gradmesh::sim::{Sim, Swarm};
    /// # fn simulation() -> Sim { Sim::new() }
    /// simulation().swarm(Swarm::default()).seeds(0..200).check();
    /// ```
    pub fn seeds(self, seeds: Range<u64>) -> Campaign {
        let name = thread::current().name().map(str::to_owned);
        // With one test at a time, libtest uses the main thread.
        let name = name.filter(|name| name != "main");
        let test = name.map_or_else(String::new, |name| format!(" {name} -- --exact --nocapture"));
        Campaign {
            sim: self,
            seeds,
            threads: thread::available_parallelism().map_or(1, usize::from),
            budget: ShrinkBudget::default(),
            built_by: "simulation()".to_owned(),
            command: format!("{SEED_VARIABLE}={{seed}} cargo test{test}"),
            progress: None,
        }
    }

    /// Runs one seed, as a test: all must hold but `sometimes`, which is for many seeds. The digest
    /// is compared as by [`Sim::seeds`].
    ///
    /// # Panics
    /// It does not pass.
    #[track_caller]
    pub fn must_pass(&self, seed: Seed) -> Report {
        let report = match self.calm_digest() {
            Ok(calm) => self.judged(seed, self.plan_of(seed), calm.as_deref()),
            Err(calm) => panic!("{}", CampaignError::Calm(calm)),
        };
        assert!(report.passed(), "{report}");
        report
    }

    /// `None` where nothing is trained.
    fn calm_digest(&self) -> Result<Option<String>, Box<Report>> {
        if !matches!(self.ending, Ending::Trained) {
            return Ok(None);
        }
        // What faults bring about can't hold without them.
        let calm = Self { checks: Vec::new(), ..self.clone() };
        let report = calm.judged(CALM, FaultPlan::default(), None);
        if report.passed() { Ok(report.digest().map(str::to_owned)) } else { Err(Box::new(report)) }
    }

    /// Runs a seed; another digest than `calm`, or a panic, is a failure like others.
    pub(super) fn judged(&self, seed: Seed, plan: FaultPlan, calm: Option<&str>) -> Report {
        let run = catch_unwind(AssertUnwindSafe(|| self.run_plan(seed, plan.clone())));
        let mut report = run.unwrap_or_else(|panic| Report {
            seed,
            plan,
            broken: Some(Broken::panicked("until", &*panic)),
            took: std::time::Duration::ZERO,
            counts: Counts::default(),
            training: None,
            trace_hash: String::new(),
            events: 0,
            sometimes: Vec::new(),
            names: self.names().map(str::to_owned).collect(),
            recent: Vec::new(),
            all: None,
        });
        if let (None, Some(calm)) = (&report.broken, calm)
            && report.digest() != Some(calm)
        {
            let got = report.digest().unwrap_or("missing").to_owned();
            report.broken = Some(Broken::Digest { got, calm: calm.to_owned() });
        }
        report
    }
}

impl Campaign {
    /// Runs so many seeds at a time; as many as there are cores, unless said otherwise.
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = threads.max(1);
        self
    }

    /// What shrinking the plan of a failed seed may cost.
    pub fn shrink(mut self, budget: ShrinkBudget) -> Self {
        self.budget = budget;
        self
    }

    /// The expression that the regression test builds its simulation with; `simulation()`, unless
    /// said otherwise.
    pub fn built_by(mut self, expression: &str) -> Self {
        self.built_by = expression.to_owned();
        self
    }

    /// The command that repeats a seed, with `{seed}` for it; `cargo test` of the running test,
    /// unless said otherwise.
    pub fn repeated_by(mut self, command: &str) -> Self {
        self.command = command.to_owned();
        self
    }

    /// Called after each seed and each run of a shrink, from several threads.
    pub fn progress(mut self, hear: impl Fn(Progress<'_>) + Send + Sync + 'static) -> Self {
        self.progress = Some(Box::new(hear));
        self
    }

    /// Runs all seeds, or the one in [`SEED_VARIABLE`].
    ///
    /// # Panics
    /// A seed fails: with the lowest one, its plan, what did not hold, the last events of each
    /// node, the command that repeats it, the shrunk plan and a regression test. A `sometimes`
    /// never held. [`SEED_VARIABLE`] is no number.
    #[expect(clippy::print_stdout, reason = "for whoever repeats a seed of a test by hand")]
    #[track_caller]
    pub fn check(self) -> Summary {
        let passed = match std::env::var(SEED_VARIABLE) {
            Ok(seed) => match seed.parse() {
                Ok(seed) => {
                    self.repeat(Seed(seed), |report| println!("{report}\n{}", report.timeline()))
                }
                Err(error) => panic!("{SEED_VARIABLE}={seed}: {error}"),
            },
            Err(std::env::VarError::NotPresent) => self.run(),
            Err(error) => panic!("{SEED_VARIABLE}: {error}"),
        };
        match passed {
            Ok(summary) => summary,
            Err(error) => panic!("{error}"),
        }
    }

    /// Runs all seeds, up to the first that fails.
    ///
    /// # Errors
    /// See [`CampaignError`].
    pub fn run(&self) -> Result<Summary, CampaignError> {
        let calm = self.sim.calm_digest().map_err(CampaignError::Calm)?;
        let state = Mutex::new(State {
            next: self.seeds.start,
            done: self.summary(calm.clone()),
            failed: None,
        });
        thread::scope(|scope| {
            for _ in 0..self.threads {
                scope.spawn(|| self.work(&state, calm.as_deref()));
            }
        });
        let state = state.into_inner().unwrap_or_else(PoisonError::into_inner);
        if let Some(report) = state.failed {
            return Err(self.failure(report, state.done, self.budget));
        }
        if state.done.never_held().next().is_some() {
            return Err(CampaignError::NeverHeld { summary: Box::new(state.done) });
        }
        Ok(state.done)
    }

    /// Runs one seed, which need not be one of this campaign's, and prints its timeline.
    ///
    /// # Errors
    /// See [`CampaignError`].
    pub fn repeat(&self, seed: Seed, told: impl FnOnce(&Report)) -> Result<Summary, CampaignError> {
        let calm = self.sim.calm_digest().map_err(CampaignError::Calm)?;
        let report = self.sim.judged(seed, self.sim.plan_of(seed), calm.as_deref());
        told(&report);
        let mut summary = self.summary(calm);
        if report.passed() {
            summary.add(&report);
            return Ok(summary);
        }
        let budget = ShrinkBudget { runs: 0, ..self.budget };
        Err(self.failure(report, summary, budget))
    }

    fn summary(&self, digest: Option<String>) -> Summary {
        let checks = self.sim.checks.iter().filter(|check| check.when == When::Sometimes);
        let has_faults = match &self.sim.faults {
            Faults::Plan(plan) => !plan.faults.is_empty(),
            Faults::Swarm(_) | Faults::Drawn(_) => true,
        };
        let faults = has_faults.then_some(FAULTS);
        let names = checks.map(|check| check.name.as_str()).chain(faults);
        Summary { digest, ..Summary::new(names) }
    }

    /// Takes seeds in their order, so that each below one that fails has been taken.
    fn work(&self, state: &Mutex<State>, calm: Option<&str>) {
        let state = || state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let seed = {
                let mut state = state();
                if state.next >= self.seeds.end || state.failed.is_some() {
                    return;
                }
                state.next += 1;
                Seed(state.next - 1)
            };
            let report = self.sim.judged(seed, self.sim.plan_of(seed), calm);
            let mut state = state();
            if report.passed() {
                state.done.add(&report);
                if let Some(hear) = &self.progress {
                    let of = self.seeds.end - self.seeds.start;
                    hear(Progress::Seed { done: &state.done, of });
                }
            } else if state.failed.as_ref().is_none_or(|failed| seed < failed.seed) {
                state.failed = Some(report);
            }
        }
    }

    fn failure(&self, report: Report, summary: Summary, budget: ShrinkBudget) -> CampaignError {
        let seed = report.seed;
        let shrunk = (budget.runs > 0).then(|| {
            self.sim.shrink(&report, budget, |runs, faults| {
                if let Some(hear) = &self.progress {
                    hear(Progress::Shrinking { seed, runs, faults });
                }
            })
        });
        let Report { plan, broken, .. } = shrunk.as_ref().map_or(&report, |shrunk| &shrunk.report);
        let regression_test = broken.as_ref().map_or_else(String::new, |broken| {
            regression::test(seed, plan, broken, &self.built_by)
        });
        let command = self.command.replace("{seed}", &seed.to_string());
        let failure = Failure { report, shrunk, command, regression_test, summary };
        CampaignError::Broken(Box::new(failure))
    }
}

/// What the threads of a campaign share.
struct State {
    next: u64,
    done: Summary,
    failed: Option<Report>,
}

impl fmt::Debug for Campaign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Campaign").field("seeds", &self.seeds).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use gradmesh_actors::checkpoint::Published;
    use gradmesh_actors::ids::{Version, View};
    use gradmesh_actors::training::{self, TrainingStatus};
    use tokio::sync::watch;

    use super::super::fault::kill;
    use super::*;
    use crate::node::NodeContext;

    fn done(digest: &str) -> TrainingStatus {
        let model = "digits".to_owned();
        let published = Published { model, version: 1, digest: digest.to_owned() };
        TrainingStatus {
            progress: training::Progress::Done(published),
            view: View(0),
            version: Version(7),
            last_version: None,
            steps_per_epoch: None,
            train_rows: None,
            resumed_from: None,
            checkpoint: None,
            shards: 1,
            servers: 1,
            replicas: 0,
            workers: 1,
            ledger: Default::default(),
            bytes: Default::default(),
            lost: 0,
            new_leases: 0,
            promotions: 0,
            handovers: 0,
            rollbacks: 0,
            shares: Vec::new(),
            leaving: Vec::new(),
            events: Default::default(),
            held_up: None,
        }
    }

    /// A run whose digest is another where it was held up.
    fn fragile() -> Sim {
        let sim = Sim::new().node("ps-0", |node| async move {
            let begun = node.unix_time();
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
            let late = begun.as_millis() % 10_000 != 0;
            let (_, status) = watch::channel(done(if late { "odd" } else { "even" }));
            node.show_training(status);
            Ok(())
        });
        Sim { ending: Ending::Trained, ..sim }
    }

    #[test]
    fn another_digest_than_that_of_the_run_without_faults_is_a_failure_and_is_shrunk() {
        let idle = (1..9).map(|i| kill("nobody").at(&format!("{i}00ms")).for_("1s"));
        let faults = idle.chain([kill("ps-0").at("234ms").for_("567ms")]);
        let error = fragile().faults(faults).seeds(5..9).run().unwrap_err();
        let CampaignError::Broken(failure) = error else { panic!("{error}") };
        let broken = Broken::Digest { got: "odd".to_owned(), calm: "even".to_owned() };
        assert_eq!(failure.report.broken, Some(broken));
        assert_eq!(failure.report.seed, Seed(5));
        let shrunk = failure.shrunk.map(|shrunk| shrunk.report.plan.faults.len());
        assert_eq!(shrunk, Some(1));
        assert!(
            failure.regression_test.contains("fn the_digest_is_that_of_a_calm_run_with_seed_5")
        );
    }

    #[test]
    fn the_digest_of_all_seeds_is_part_of_the_summary() {
        let summary = fragile().seeds(0..3).check();
        assert_eq!(summary.digest.as_deref(), Some("even"));
        assert_eq!(summary.steps, 3 * 7);
    }

    #[test]
    #[should_panic(expected = "the digest is odd, that of a run without faults is even")]
    fn a_seed_that_must_pass_has_the_digest_of_the_run_without_faults() {
        fragile().faults([kill("ps-0").at("234ms").for_("567ms")]).must_pass(Seed(1));
    }
}
