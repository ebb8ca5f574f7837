//! Failure simulation: a whole cluster in one seeded test.
//!
//! The production actors, supervisor, frames and timeouts run on a simulated clock, network and
//! disk, on one thread, from one seed.

mod campaign;
mod cluster;
mod disk;
mod failure;
mod fault;
mod faulty_link;
mod frame_counts;
mod host;
mod invariants;
mod log;
mod memory_dataset;
mod network;
mod node;
mod operator;
mod ready;
mod regression;
mod report;
mod shrink;
mod summary;
mod swarm;
mod trace;
mod transport;
mod world;

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;

pub use campaign::{Campaign, Progress, SEED_VARIABLE};
pub use cluster::{ClusterError, one_role_each};
pub use failure::{CampaignError, Failure};
pub use fault::{
    ANY, Fault, FaultKind, FaultPlan, FaultPlanError, Time, block, delay, drain, duplicate,
    fail_writes, flip_bit, kill, lose, panic_in, partition, pause, power_loss, read_plan, reorder,
    skew, slow, slow_disk, stop,
};
pub use faulty_link::FaultyLink;
pub use frame_counts::{FrameCounts, SharedFrameCounts};
pub use node::SimNode;
pub use report::{Broken, Report};
pub use shrink::{ShrinkBudget, Shrunk};
pub use summary::Summary;
pub use swarm::Swarm;
pub use trace::{Event, EventKind, Sent};
pub use world::{Counts, NodeState, World};

use world::{Check, When};

/// Until when a swarm has its faults where nothing is trained.
const HORIZON: Duration = Duration::from_secs(20);
/// Simulated time after which a run has hung, unless [`Sim::limit`] says otherwise.
const LIMIT: Duration = Duration::from_secs(600);

/// Everything that is random in a run comes from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seed(pub u64);

impl fmt::Display for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

type Main = Arc<dyn Fn(SimNode) -> LocalBoxFuture<'static, Result<(), String>> + Send + Sync>;

#[derive(Clone)]
struct NodeSpec {
    name: String,
    main: Main,
}

#[derive(Clone)]
enum Ending {
    Trained,
    When(Arc<dyn Fn(&World<'_>) -> bool + Send + Sync>),
    After(Duration),
}

#[derive(Clone)]
enum Faults {
    Plan(FaultPlan),
    Drawn(Arc<dyn Fn(Seed) -> FaultPlan + Send + Sync>),
    Swarm(Swarm),
}

/// A cluster to simulate, the faults it is to bear, and what must hold.
#[derive(Clone)]
pub struct Sim {
    nodes: Vec<NodeSpec>,
    faults: Faults,
    checks: Vec<Check>,
    ending: Ending,
    limit: Duration,
    /// How long a run without faults takes, once somebody has asked.
    calm_took: Arc<OnceLock<Duration>>,
    keep_events: bool,
    disks_sync: bool,
    /// Nodes of a `cluster.toml`: the invariants of training hold.
    has_cluster: bool,
    #[cfg(feature = "planted-bugs")]
    planted: Option<gradmesh_actors::planted::Bug>,
}

impl Default for Sim {
    fn default() -> Self {
        Self::new()
    }
}

impl Sim {
    /// No nodes yet. See [`Sim::cluster`] for those of a `cluster.toml`.
    #[must_use]
    pub fn new() -> Self {
        Self {
            nodes: Vec::new(),
            faults: Faults::Plan(FaultPlan::default()),
            checks: Vec::new(),
            ending: Ending::After(Duration::from_secs(60)),
            limit: LIMIT,
            calm_took: Arc::default(),
            keep_events: false,
            disks_sync: true,
            has_cluster: false,
            #[cfg(feature = "planted-bugs")]
            planted: None,
        }
    }

    /// Adds a node; `main` runs in each of its lives. One that fails is started again.
    ///
    /// What it spawns, it spawns with `spawn_local`: a thread's end is not repeatable, and tasks of the
    /// runtime itself are no node's.
    #[must_use]
    pub fn node<F>(
        mut self,
        name: &str,
        main: impl Fn(SimNode) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Result<(), String>> + 'static,
    {
        let main: Main = Arc::new(move |node| main(node).boxed_local());
        self.nodes.push(NodeSpec { name: name.to_owned(), main });
        self
    }

    /// Faults by hand.
    #[must_use]
    pub fn faults(mut self, faults: impl IntoIterator<Item = Fault>) -> Self {
        self.faults = Faults::Plan(FaultPlan::new(faults));
        self
    }

    /// A plan.
    #[must_use]
    pub fn plan(mut self, plan: FaultPlan) -> Self {
        self.faults = Faults::Plan(plan);
        self
    }

    /// A plan for each seed, of one's own making: the same one whenever it is asked for.
    #[must_use]
    pub fn plans(mut self, draw: impl Fn(Seed) -> FaultPlan + Send + Sync + 'static) -> Self {
        self.faults = Faults::Drawn(Arc::new(draw));
        self
    }

    /// Faults that each seed draws anew.
    #[must_use]
    pub fn swarm(mut self, swarm: Swarm) -> Self {
        self.faults = Faults::Swarm(swarm);
        self
    }

    /// Must hold after each event.
    #[must_use]
    pub fn always(
        self,
        name: &str,
        holds: impl Fn(&World<'_>) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.check(When::Always, name, holds)
    }

    /// Must hold after some event of some seed: else the test tests nothing.
    #[must_use]
    pub fn sometimes(
        self,
        name: &str,
        holds: impl Fn(&World<'_>) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.check(When::Sometimes, name, holds)
    }

    /// Must hold after some event of each seed.
    #[must_use]
    pub fn eventually(
        self,
        name: &str,
        holds: impl Fn(&World<'_>) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.check(When::Eventually, name, holds)
    }

    /// Must hold when the run has ended.
    #[must_use]
    pub fn at_end(
        self,
        name: &str,
        holds: impl Fn(&World<'_>) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.check(When::AtEnd, name, holds)
    }

    fn check(
        mut self,
        when: When,
        name: &str,
        holds: impl Fn(&World<'_>) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.checks.push(Check { when, name: name.to_owned(), holds: Arc::new(holds) });
        self
    }

    /// The run ends when this holds.
    #[must_use]
    pub fn until(mut self, reached: impl Fn(&World<'_>) -> bool + Send + Sync + 'static) -> Self {
        self.ending = Ending::When(Arc::new(reached));
        self
    }

    /// The run ends after this simulated time.
    #[must_use]
    pub fn for_(mut self, time: Duration) -> Self {
        self.ending = Ending::After(time);
        self
    }

    /// A run that has not ended after this simulated time has hung.
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Keeps each event, so that two runs can be compared. Takes memory.
    #[must_use]
    pub fn keep_events(mut self) -> Self {
        self.keep_events = true;
        self
    }

    /// Plants a bug in all nodes.
    #[cfg(feature = "planted-bugs")]
    #[must_use]
    pub fn plant(mut self, bug: gradmesh_actors::planted::Bug) -> Self {
        self.disks_sync = bug != gradmesh_actors::planted::Bug::NoSync;
        self.planted = Some(bug);
        self
    }

    /// Names of the nodes, in their order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.nodes.iter().map(|node| node.name.as_str())
    }

    /// The faults that a seed runs under.
    #[must_use]
    pub fn plan_of(&self, seed: Seed) -> FaultPlan {
        match &self.faults {
            Faults::Plan(plan) => plan.clone(),
            Faults::Drawn(draw) => draw(seed),
            Faults::Swarm(swarm) => {
                let names: Vec<&str> = self.names().collect();
                swarm.draw(seed, &names, swarm.until_set().unwrap_or_else(|| self.horizon()))
            }
        }
    }

    /// Until when a swarm has its faults: beyond the end of a calm run, because faults delay it.
    fn horizon(&self) -> Duration {
        if !matches!(self.ending, Ending::Trained) {
            return HORIZON;
        }
        2 * *self.calm_took.get_or_init(|| {
            let calm = Self { checks: Vec::new(), ..self.clone() };
            calm.run_plan(Seed(0), FaultPlan::default()).took.min(HORIZON)
        })
    }

    /// Runs one seed, on a thread of its own.
    #[must_use]
    pub fn run(&self, seed: Seed) -> Report {
        self.run_plan(seed, self.plan_of(seed))
    }

    /// Runs one seed under other faults than its own.
    #[must_use]
    pub fn run_plan(&self, seed: Seed, plan: FaultPlan) -> Report {
        std::thread::scope(|scope| {
            let run = scope.spawn(|| {
                #[cfg(feature = "planted-bugs")]
                gradmesh_actors::planted::plant(self.planted);
                host::run(self, seed, plan)
            });
            match run.join() {
                Ok(report) => report,
                // A check of the user's, or the simulator itself.
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }
}

impl fmt::Debug for Sim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.names().collect();
        f.debug_struct("Sim").field("nodes", &names).finish_non_exhaustive()
    }
}
