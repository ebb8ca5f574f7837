//! What checks see of a simulation, and what they demand.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use gradmesh_actors::training::{Progress, TrainingStatus};

use super::node::Seen;
use super::report::Broken;
use super::trace::NodeIndex;

/// A simulation at one moment.
#[derive(Debug)]
pub struct World<'a> {
    pub(super) now: Duration,
    pub(super) names: &'a [String],
    pub(super) nodes: &'a [NodeState],
    pub(super) seen: &'a Seen,
    pub(super) counts: Counts,
}

/// What became of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeState {
    pub up: bool,
    pub paused: bool,
    /// Starts after the first one.
    pub restarts: u64,
}

/// What has happened so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Messages that arrived.
    pub messages: u64,
    /// Theirs, with all that frames them.
    pub bytes: u64,
    pub faults_begun: u64,
    /// Of nodes.
    pub restarts: u64,
    /// Of actors, by their supervisors.
    pub actor_restarts: u64,
    /// Of what was stored.
    pub bits_flipped: u64,
}

impl World<'_> {
    /// Simulated time since the start.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.now
    }

    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// `None` where no node has that name.
    #[must_use]
    pub fn node(&self, name: &str) -> Option<NodeState> {
        self.nodes.get(self.index(name)? as usize).copied()
    }

    /// The newest number that a node has shown under a key, in this life or an earlier one.
    #[must_use]
    pub fn value(&self, node: &str, key: &str) -> Option<i64> {
        let index = self.index(node)?;
        self.seen.values.borrow().get(&(index, key.to_owned())).copied()
    }

    /// The run, as the coordinator sees it that has come furthest: an earlier life's view is older.
    #[must_use]
    pub fn training(&self) -> Option<TrainingStatus> {
        self.with_training(Clone::clone)
    }

    /// The same without a copy.
    pub fn with_training<T>(&self, look: impl FnOnce(&TrainingStatus) -> T) -> Option<T> {
        let training = self.seen.training.borrow();
        let newest = training.values().max_by_key(|status| {
            let status = status.borrow();
            (matches!(status.progress, Progress::Done(_)), status.view, status.version)
        });
        newest.map(|status| look(&status.borrow()))
    }

    fn index(&self, name: &str) -> Option<NodeIndex> {
        let index = self.names.iter().position(|known| known == name)?;
        NodeIndex::try_from(index).ok()
    }
}

/// When a check must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    /// After each event.
    Always,
    /// After some event, of some seed: else the test tests nothing.
    Sometimes,
    /// After some event, of each seed.
    Eventually,
    AtEnd,
}

/// A named demand.
#[derive(Clone)]
pub(super) struct Check {
    pub(super) when: When,
    pub(super) name: String,
    pub(super) holds: Arc<dyn Fn(&World<'_>) -> bool + Send + Sync>,
}

impl Check {
    /// A check that panics is reported as one that fails.
    fn ask(&self, world: &World<'_>) -> Result<bool, Broken> {
        let asked = catch_unwind(AssertUnwindSafe(|| (self.holds)(world)));
        asked.map_err(|panic| Broken::panicked(&self.name, &*panic))
    }
}

/// Checks of one run, and which have held.
pub(super) struct Watch {
    checks: Vec<Check>,
    held: Vec<bool>,
}

impl Watch {
    pub(super) fn new(checks: Vec<Check>) -> Self {
        Self { held: vec![false; checks.len()], checks }
    }

    /// After an event: a check that always had to hold, and doesn't.
    pub(super) fn look(&mut self, world: &World<'_>) -> Option<Broken> {
        for (check, held) in self.checks.iter().zip(&mut self.held) {
            let always = check.when == When::Always;
            if check.when == When::AtEnd || (*held && !always) {
                continue;
            }
            match check.ask(world) {
                Err(broken) => return Some(broken),
                Ok(false) if always => return Some(Broken::Check(check.name.clone())),
                Ok(holds) => *held = holds,
            }
        }
        None
    }

    /// At the end: a check that failed.
    pub(super) fn end(&self, world: &World<'_>) -> Option<Broken> {
        self.checks.iter().zip(&self.held).find_map(|(check, held)| {
            let holds = match check.when {
                When::AtEnd => match check.ask(world) {
                    Ok(holds) => holds,
                    Err(broken) => return Some(broken),
                },
                When::Eventually => *held,
                When::Always | When::Sometimes => true,
            };
            (!holds).then(|| Broken::Check(check.name.clone()))
        })
    }

    /// Names of the `sometimes` that have held.
    pub(super) fn sometimes(&self) -> Vec<String> {
        let held = self.checks.iter().zip(&self.held);
        let held = held.filter(|(check, held)| check.when == When::Sometimes && **held);
        held.map(|(check, _)| check.name.clone()).collect()
    }
}
