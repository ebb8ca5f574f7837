//! Why a campaign failed, with everything one needs to go after it.

use std::fmt;

use super::report::Report;
use super::shrink::Shrunk;
use super::summary::Summary;

/// A campaign did not pass.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CampaignError {
    /// A seed failed: the lowest one.
    #[error("{0}")]
    Broken(Box<Failure>),
    /// There is nothing to compare with.
    #[error("the run without faults fails\n{0}")]
    Calm(Box<Report>),
    /// Every seed passed, but some of what should happen never did.
    #[error(
        "held in none of {} seeds: {}: the test does not test what it says; add seeds or faults",
        .summary.seeds, quoted(.summary)
    )]
    NeverHeld { summary: Box<Summary> },
}

fn quoted(summary: &Summary) -> String {
    let names: Vec<String> = summary.never_held().map(|name| format!("{name:?}")).collect();
    names.join(", ")
}

/// The lowest seed that failed.
#[derive(Clone, Debug)]
pub struct Failure {
    pub report: Report,
    /// `None` where a seed was repeated alone, or the budget was 0.
    pub shrunk: Option<Shrunk>,
    /// Repeats it.
    pub command: String,
    /// A test of it in Rust, at most 25 lines.
    pub regression_test: String,
    /// Seeds that passed: all below it, and what other threads did meanwhile.
    pub summary: Summary,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { report, shrunk, command, regression_test, .. } = self;
        writeln!(f, "{report}")?;
        writeln!(f, "to repeat it:\n  {command}\n")?;
        let Some(shrunk) = shrunk else { return Ok(()) };
        let Shrunk { report: shrunk, runs, took, cut_short } = shrunk;
        let until = if *cut_short { ", then the budget ended" } else { "" };
        let (from, to) = (report.plan.faults.len(), shrunk.plan.faults.len());
        let took = took.as_secs_f64();
        writeln!(f, "{to} of {from} faults are enough ({runs} runs in {took:.1} s{until}):")?;
        writeln!(f, "{}", shrunk.plan)?;
        write!(f, "as a test:\n\n{regression_test}")
    }
}
