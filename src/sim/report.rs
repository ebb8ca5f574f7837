//! What a run came to.

use std::any::Any;
use std::fmt;
use std::time::Duration;

use gradmesh_actors::training::{Progress, TrainingStatus};

use super::Seed;
use super::fault::FaultPlan;
use super::trace::{Event, Told};
use super::world::Counts;

/// Events of each node that a failure shows.
const LAST_EVENTS: usize = 8;

/// One run of a simulation.
#[derive(Clone, Debug)]
pub struct Report {
    pub seed: Seed,
    /// The faults that it ran under.
    pub plan: FaultPlan,
    /// `None` where all went well.
    pub broken: Option<Broken>,
    /// Simulated time.
    pub took: Duration,
    pub counts: Counts,
    /// The run at its end, where the simulation has one.
    pub training: Option<TrainingStatus>,
    /// BLAKE3 over all events, in hexadecimal: the same for the same seed.
    pub trace_hash: String,
    pub events: u64,
    /// Names of the `sometimes` that have held.
    pub sometimes: Vec<String>,
    pub(super) names: Vec<String>,
    pub(super) recent: Vec<Event>,
    pub(super) all: Option<Vec<Event>>,
}

/// What went wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    #[error("{0:?} does not hold")]
    Check(String),
    #[error("not ended after {} simulated seconds", limit.as_secs_f64())]
    Hung { limit: Duration },
    #[error("training failed: {0}")]
    Training(String),
    /// Without any fault, as it would in a real cluster.
    #[error("{node} can't run: {cause}")]
    Ended { node: String, cause: String },
    #[error("the digest is {got}, that of a run without faults is {calm}")]
    Digest { got: String, calm: String },
    /// Of the user's own check; the end of a run is one, named `until`.
    #[error("{check:?} panicked: {message}")]
    Panicked { check: String, message: String },
}

impl Broken {
    pub(super) fn panicked(check: &str, panic: &(dyn Any + Send)) -> Self {
        Self::Panicked { check: check.to_owned(), message: panic_text(panic) }
    }

    /// The same kind of failure, of the same check: numbers and causes may differ.
    #[must_use]
    pub fn is_like(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Check(name), Self::Check(other)) => name == other,
            (Self::Panicked { check, .. }, Self::Panicked { check: other, .. }) => check == other,
            (Self::Hung { .. }, Self::Hung { .. })
            | (Self::Training(_), Self::Training(_))
            | (Self::Ended { .. }, Self::Ended { .. })
            | (Self::Digest { .. }, Self::Digest { .. }) => true,
            _ => false,
        }
    }
}

/// What a panic said.
pub(super) fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("a panic without text").to_owned()
}

impl Report {
    /// Replicas that took a lost primary's place, as the last coordinator counts them.
    #[must_use]
    pub fn promotions(&self) -> u64 {
        self.training.as_ref().map_or(0, |training| training.promotions)
    }

    /// Digest of the trained state; `None` where nothing was trained to its end.
    #[must_use]
    pub fn digest(&self) -> Option<&str> {
        match &self.training.as_ref()?.progress {
            Progress::Done(published) => Some(&published.digest),
            _ => None,
        }
    }

    /// Steps that the run has come to.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.training.as_ref().map_or(0, |training| training.version.0)
    }

    #[must_use]
    pub fn passed(&self) -> bool {
        self.broken.is_none()
    }

    /// The newest events, one a line.
    #[must_use]
    pub fn timeline(&self) -> String {
        let lines = self.recent.iter().map(|event| format!("{}\n", Told(event, &self.names)));
        lines.collect()
    }

    /// The first event in which two runs differ, where both have kept all of them
    /// ([`super::Sim::keep_events`]).
    #[must_use]
    pub fn first_difference(&self, other: &Self) -> Option<String> {
        let (all, others) = (self.all.as_ref()?, other.all.as_ref()?);
        let at = (0..all.len().max(others.len())).find(|&at| all.get(at) != others.get(at))?;
        let tell = |events: &[Event]| {
            events
                .get(at)
                .map_or_else(|| "nothing".to_owned(), |e| Told(e, &self.names).to_string())
        };
        Some(format!("event {at}:\n  {}\n  {}", tell(all), tell(others)))
    }

    fn last_events(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, name) in (0u32..).zip(&self.names) {
            let own = self.recent.iter().filter(|event| event.kind.node() == Some(index));
            let own: Vec<&Event> = own.collect();
            if own.is_empty() {
                continue;
            }
            writeln!(f, "last events of {name}:")?;
            for event in own.iter().skip(own.len().saturating_sub(LAST_EVENTS)) {
                writeln!(f, "  {}", Told(event, &self.names))?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, took, counts, .. } = self;
        match &self.broken {
            Some(broken) => writeln!(f, "seed {seed}: {broken}")?,
            None => writeln!(f, "seed {seed}: passed")?,
        }
        writeln!(
            f,
            "{:.1} simulated seconds, {} steps, {} messages, {} faults, {} restarts of nodes, {} of actors",
            took.as_secs_f64(),
            self.steps(),
            counts.messages,
            counts.faults_begun,
            counts.restarts,
            counts.actor_restarts
        )?;
        if let Some(training) = &self.training {
            let TrainingStatus { view, promotions, rollbacks, new_leases, .. } = training;
            writeln!(
                f,
                "{view}, {promotions} promotions, {rollbacks} rollbacks, {new_leases} views that went on"
            )?;
        }
        write!(f, "faults:\n{}", self.plan)?;
        if self.broken.is_some() {
            self.last_events(f)?;
        }
        Ok(())
    }
}
