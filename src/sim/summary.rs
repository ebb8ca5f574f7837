//! What many seeds came to.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Seed;
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
    /// Trace of each seed.
    pub(super) traces: BTreeMap<Seed, String>,
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
        self.traces.insert(report.seed, report.trace_hash.clone());
        for (name, seeds) in &mut self.sometimes {
            let fault = name == FAULTS && report.counts.faults_begun > 0;
            *seeds += u64::from(fault || report.sometimes.contains(name));
        }
    }

    /// BLAKE3 over the traces of all seeds, in hexadecimal: the same seeds have the same one, in
    /// another process and in another build.
    #[must_use]
    pub fn trace_hash(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        for (seed, trace) in &self.traces {
            hasher.update(format!("{seed} {trace}\n").as_bytes());
        }
        hasher.finalize().to_hex().to_string()
    }

    /// Names of the `sometimes` that held in no seed.
    pub fn never_held(&self) -> impl Iterator<Item = &str> {
        self.sometimes.iter().filter(|(_, seeds)| **seeds == 0).map(|(name, _)| name.as_str())
    }
}
