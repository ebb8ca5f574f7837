//! What many seeds came to.

use std::collections::BTreeMap;
use std::time::Duration;

use super::report::Report;

/// A `sometimes` of every simulation with faults: else they come after its end.
pub(super) const FAULTS: &str = "a fault begins";

/// Sums over the seeds of a campaign that passed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    pub seeds: u64,
    pub faults: u64,
    /// Of nodes.
    pub restarts: u64,
    /// Of actors, by their supervisors.
    pub actor_restarts: u64,
    pub messages: u64,
    /// Of the training.
    pub steps: u64,
    /// Simulated time.
    pub simulated: Duration,
    /// In how many seeds each `sometimes` held.
    pub sometimes: BTreeMap<String, u64>,
    /// Digest of the run without faults, and so of every seed.
    pub digest: Option<String>,
}

impl Summary {
    pub(super) fn new<'a>(sometimes: impl Iterator<Item = &'a str>) -> Self {
        let sometimes = sometimes.map(|name| (name.to_owned(), 0)).collect();
        Self { sometimes, ..Self::default() }
    }

    pub(super) fn add(&mut self, report: &Report) {
        self.seeds += 1;
        self.faults += report.counts.faults_begun;
        self.restarts += report.counts.restarts;
        self.actor_restarts += report.counts.actor_restarts;
        self.messages += report.counts.messages;
        self.steps += report.steps();
        self.simulated += report.took;
        for (name, seeds) in &mut self.sometimes {
            let fault = name == FAULTS && report.counts.faults_begun > 0;
            *seeds += u64::from(fault || report.sometimes.contains(name));
        }
    }

    /// Names of the `sometimes` that held in no seed.
    pub fn never_held(&self) -> impl Iterator<Item = &str> {
        self.sometimes.iter().filter(|(_, seeds)| **seeds == 0).map(|(name, _)| name.as_str())
    }
}
