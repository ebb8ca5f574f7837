//! The host: runs all nodes of a simulation on one thread, one clock, from one seed.
//!
//! Each node is a `LocalSet` of its own. Nodes that were woken are polled in the order of their
//! numbers; when none is left, time goes on to the next message, fault or timer. A killed node is
//! never polled again: none of its code runs, and its memory is kept until the run is over.

mod driver;
mod faults;

use std::cell::{Cell, RefCell};
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16};
use std::task::{Context, Waker};
use std::time::Duration;

use futures_util::FutureExt;
use gradmesh_actors::clock::StandsStill;
use gradmesh_actors::training::Progress;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use tokio::sync::watch;
use tokio::task::LocalSet;
use tokio::time::{Instant, Sleep};

use super::disk::Disk;
use super::fault::{Fault, FaultKind, FaultPlan};
use super::invariants::Invariants;
use super::network::{NetNode, Network, Wires};
use super::node::{Seen, SimNode};
use super::operator::Wishes;
use super::ready::{Ready, Woken};
use super::report::{Broken, Report, panic_text};
use super::trace::{EventKind, NodeIndex, Trace};
use super::world::{Counts, NodeState, Watch, World};
use super::{Ending, Main, Seed, Sim, log};

/// As `node up`, which starts a process that ended by itself again.
const RESTART_MS: u64 = 200;

/// Runs one seed on this thread, which must be a fresh one: thread-locals of libraries count too.
pub(super) fn run(sim: &Sim, seed: Seed, plan: FaultPlan) -> Report {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .on_thread_park(driver::before_time_goes_on)
        .build();
    #[expect(clippy::expect_used, reason = "without I/O nothing is asked of the system")]
    let runtime = runtime.expect("a runtime with a clock");
    tracing::subscriber::with_default(log::Listener, || {
        let (report, rest) = runtime.block_on(async {
            let mut host = Host::new(sim.clone(), seed, plan);
            let entered = host.network.enter();
            host.start_all();
            let (host, broken) = driver::drive(host).await;
            log::speaks(None);
            drop(entered);
            host.finish(broken)
        });
        // Hooks of nodes that ended without running any: nobody sees what they do now.
        let _guard = runtime.enter();
        drop(rest);
        report
    })
}

struct Host {
    sim: Sim,
    seed: Seed,
    plan: FaultPlan,
    network: Network,
    disk: Disk,
    seen: Rc<Seen>,
    rng: ChaCha8Rng,
    names: Rc<[String]>,
    machines: Vec<Machine>,
    states: Vec<NodeState>,
    /// Changes of faults still to come, the next one last.
    to_come: Vec<(u64, Change)>,
    active: Vec<FaultKind>,
    wishes: watch::Sender<Wishes>,
    ready: Arc<Ready>,
    watch: Watch,
    invariants: Option<Invariants>,
    counts: Counts,
    /// A node that can't run, although nothing is done to it.
    ended: Option<Broken>,
    started: Instant,
    /// Memory of nodes that were killed.
    killed: Vec<LocalSet>,
}

#[derive(Clone, Debug)]
enum Change {
    Begin(Fault),
    End(Fault),
    Start(NodeIndex),
}

struct Machine {
    local: Option<LocalSet>,
    waker: Waker,
    /// Set when the node's own code has come to its end.
    ended: Rc<RefCell<Option<Result<(), String>>>>,
    skew_ms: Rc<Cell<i64>>,
    panics: Arc<AtomicBool>,
    slow: Arc<AtomicU16>,
}

impl Host {
    fn new(sim: Sim, seed: Seed, plan: FaultPlan) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed.0);
        let mut stream = || ChaCha8Rng::seed_from_u64(rng.next_u64());
        let (net, disk, own) = (stream(), stream(), stream());
        let mut wires = Wires::new(net, Trace::new(sim.keep_events));
        let names: Rc<[String]> = sim.nodes.iter().map(|node| node.name.clone()).collect();
        wires.nodes = names
            .iter()
            .map(|name| NetNode { name: name.clone(), life: 0, up: false, dark: false })
            .collect();
        let disk = Disk::new(disk, sim.disks_sync);
        disk.name_nodes(names.to_vec());
        let ready = Arc::new(Ready::new(names.len()));
        let machine = |node| Machine {
            local: None,
            waker: Arc::new(Woken { node, ready: Arc::clone(&ready) }).into(),
            ended: Rc::default(),
            skew_ms: Rc::default(),
            panics: Arc::default(),
            slow: Arc::default(),
        };
        let mut host = Self {
            seed,
            network: Network(Rc::new(RefCell::new(wires))),
            disk,
            seen: Rc::default(),
            rng: own,
            machines: (0..names.len()).map(machine).collect(),
            states: vec![NodeState::default(); names.len()],
            names,
            to_come: Vec::new(),
            active: Vec::new(),
            wishes: watch::Sender::default(),
            ready,
            watch: Watch::new(sim.checks.clone()),
            invariants: sim.has_cluster.then(Invariants::default),
            sim,
            counts: Counts::default(),
            ended: None,
            started: Instant::now(),
            killed: Vec::new(),
            plan,
        };
        for fault in host.plan.faults.clone() {
            host.plan_change(fault.at_ms, Change::Begin(fault));
        }
        host
    }

    /// Keeps changes of the same time in the order in which they were planned.
    fn plan_change(&mut self, at_ms: u64, change: Change) {
        let before = self.to_come.iter().position(|(at, _)| *at <= at_ms);
        self.to_come.insert(before.unwrap_or(self.to_come.len()), (at_ms, change));
    }

    fn start_all(&mut self) {
        for node in 0..self.machines.len() {
            self.start(node as NodeIndex);
        }
    }

    /// Until all nodes wait, for messages or for time; `Some` at the end of the run.
    fn run_until_all_wait(&mut self, mut timer: Pin<&mut Sleep>) -> Option<Option<Broken>> {
        let _still = StandsStill::begin();
        loop {
            self.network.0.borrow_mut().look_at_clock();
            let mut looked = false;
            // What has arrived is looked at when its node has had its turn.
            while self.change_due() || self.run_network() | self.poll_nodes() {
                looked = true;
                if let Some(ended) = self.look() {
                    return Some(ended);
                }
            }
            // Later it has become in any case.
            if !looked && let Some(ended) = self.look() {
                return Some(ended);
            }
            timer.as_mut().reset(self.next());
            // It ends the runtime's wait, and wakes nobody.
            if timer.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending() {
                return None;
            }
        }
    }

    /// When something happens that no timer of a node announces.
    fn next(&self) -> Instant {
        let change = self.to_come.last().map(|(at, _)| *at);
        let limit = u64::try_from(self.sim.limit.as_millis()).unwrap_or(u64::MAX);
        let planned = self.started + Duration::from_millis(change.unwrap_or(limit).min(limit));
        let due = self.network.0.borrow().next_due();
        due.map_or(planned, |due| due.min(planned))
    }

    fn now_ms(&self) -> u64 {
        self.network.0.borrow().now_ms()
    }

    fn run_network(&mut self) -> bool {
        self.network.0.borrow_mut().run_due()
    }

    fn poll_nodes(&mut self) -> bool {
        let (mut any, mut next) = (false, 0);
        while let Some(node) = self.ready.take_from(next) {
            any |= self.poll_node(node);
            next = node + 1;
        }
        any
    }

    /// Lets a node run that was woken. A paused one is woken when it goes on.
    fn poll_node(&mut self, index: usize) -> bool {
        let machine = &mut self.machines[index];
        let Some(local) = &mut machine.local else { return false };
        if self.states[index].paused {
            return false;
        }
        log::speaks(NodeIndex::try_from(index).ok());
        let _ = Pin::new(local).poll(&mut Context::from_waker(&machine.waker));
        log::speaks(None);
        for event in self.disk.take_events() {
            self.network.0.borrow_mut().note(event);
        }
        let ended = self.machines[index].ended.borrow_mut().take();
        if let Some(ended) = ended {
            self.exit(index as NodeIndex, ended);
        }
        true
    }

    /// A node's own code has come to its end.
    fn exit(&mut self, node: NodeIndex, ended: Result<(), String>) {
        self.end_process(node, false, true);
        let name = &self.names[node as usize];
        match ended {
            Ok(()) => self.note(format!("{name} has ended")),
            Err(cause) => {
                self.note(format!("{name} has ended: {cause}"));
                if self.sim.has_cluster && self.plan.faults.is_empty() {
                    let ended = Broken::Ended { node: name.clone(), cause };
                    self.ended.get_or_insert(ended);
                }
                let at = self.now_ms() + RESTART_MS;
                self.plan_change(at, Change::Start(node));
            }
        }
    }

    fn change_due(&mut self) -> bool {
        let now = self.now_ms();
        match self.to_come.last() {
            Some((at, _)) if *at <= now => {}
            _ => return false,
        }
        let Some((_, change)) = self.to_come.pop() else { return false };
        match change {
            Change::Start(node) => self.start(node),
            Change::Begin(fault) => {
                self.note(format!("{fault} begins"));
                self.counts.faults_begun += 1;
                self.begin(&fault);
                self.plan_change(now + fault.for_ms, Change::End(fault));
            }
            Change::End(fault) => {
                if fault.for_ms > 0 {
                    self.note(format!("{fault} is over"));
                }
                self.end(&fault);
            }
        }
        true
    }

    fn note(&self, text: String) {
        self.network.0.borrow_mut().note(EventKind::World { text });
    }

    fn start(&mut self, node: NodeIndex) {
        let index = node as usize;
        // Faults may overlap: it is up already.
        if self.machines[index].local.is_some() {
            return;
        }
        {
            let mut wires = self.network.0.borrow_mut();
            wires.forget_connections(node);
            wires.start(node);
        }
        let restarted = self.states[index].restarts > 0 || self.now_ms() > 0;
        self.counts.restarts += u64::from(restarted);
        self.note(format!("{} starts", self.names[index]));
        let context = SimNode {
            index: node,
            name: self.names[index].as_str().into(),
            names: Rc::clone(&self.names),
            entropy: self.rng.next_u64(),
            disk: self.disk.clone(),
            seen: Rc::clone(&self.seen),
            skew_ms: Rc::clone(&self.machines[index].skew_ms),
            panics: Arc::clone(&self.machines[index].panics),
            slow: Arc::clone(&self.machines[index].slow),
            wishes: self.wishes.subscribe(),
        };
        let machine = &mut self.machines[index];
        let restarts = self.states[index].restarts + u64::from(restarted);
        self.states[index] = NodeState { up: true, paused: false, restarts };
        machine.ended = Rc::default();
        let (main, ended): (&Main, _) = (&self.sim.nodes[index].main, Rc::clone(&machine.ended));
        let local = LocalSet::new();
        let life = main(context);
        local.spawn_local(async move {
            // A process ends with a panic of its main thread.
            let result = AssertUnwindSafe(life).catch_unwind().await;
            let result = result.unwrap_or_else(|panic| Err(panic_text(&*panic)));
            *ended.borrow_mut() = Some(result);
        });
        machine.local = Some(local);
        machine.waker.wake_by_ref();
    }

    /// Ends a node: `dark` without a word of its kernel, `clean` with its own hooks.
    fn end_process(&mut self, node: NodeIndex, dark: bool, clean: bool) {
        let state = &mut self.states[node as usize];
        (state.up, state.paused) = (false, false);
        let Some(local) = self.machines[node as usize].local.take() else { return };
        if clean {
            log::speaks(Some(node));
            drop(local);
            log::speaks(None);
        } else {
            self.killed.push(local);
        }
        self.network.0.borrow_mut().lose(node, dark);
    }

    /// Looks at the world after an event: `Some` ends the run.
    fn look(&mut self) -> Option<Option<Broken>> {
        if let Some(ended) = self.ended.take() {
            return Some(Some(ended));
        }
        let wires = self.network.0.borrow();
        self.counts.messages = wires.messages;
        self.counts.bytes = wires.bytes;
        self.counts.actor_restarts = wires.actor_restarts;
        let now = Duration::from_millis(wires.now_ms());
        drop(wires);
        let (names, nodes, seen, counts) = (&self.names, &self.states, &self.seen, self.counts);
        let world = World { now, names, nodes, seen, counts };
        if let Some(broken) = self.watch.look(&world) {
            return Some(Some(broken));
        }
        let changed = self.seen.training_changed();
        let broken = self.invariants.as_mut().and_then(|invariants| {
            let looked = invariants.look(&world);
            if changed { looked.and_then(|()| invariants.look_at_training(&world)) } else { looked }
                .err()
        });
        if let Some(name) = broken {
            return Some(Some(Broken::Check(name.to_owned())));
        }
        let over = match &self.sim.ending {
            Ending::Trained if !changed => false,
            Ending::Trained => {
                let ended = world.with_training(|training| match &training.progress {
                    Progress::Done(_) => Some(Ok(())),
                    Progress::Failed { cause } => Some(Err(cause.clone())),
                    _ => None,
                });
                match ended.flatten() {
                    Some(Err(cause)) => return Some(Some(Broken::Training(cause))),
                    ended => ended.is_some(),
                }
            }
            Ending::When(reached) => reached(&world),
            Ending::After(limit) => now >= *limit,
        };
        if over {
            let invariants = self.invariants.as_ref();
            let broken = invariants.and_then(|invariants| invariants.end(&world, &self.disk).err());
            let broken = broken.map(|name| Broken::Check(name.to_owned()));
            return Some(broken.or_else(|| self.watch.end(&world)));
        }
        (now >= self.sim.limit).then_some(Some(Broken::Hung { limit: self.sim.limit }))
    }

    fn finish(self, broken: Option<Broken>) -> (Report, impl Sized) {
        let took = Duration::from_millis(self.now_ms());
        let world = World {
            now: took,
            names: &self.names,
            nodes: &self.states,
            seen: &self.seen,
            counts: self.counts,
        };
        let training = world.training();
        let trace =
            std::mem::replace(&mut self.network.0.borrow_mut().trace, Trace::new(false)).finish();
        let report = Report {
            seed: self.seed,
            plan: self.plan,
            broken,
            took,
            counts: self.counts,
            training,
            trace_hash: trace.hash,
            events: trace.events,
            sometimes: self.watch.sometimes(),
            names: self.names.to_vec(),
            recent: trace.recent,
            all: trace.all,
        };
        let running: Vec<LocalSet> =
            self.machines.into_iter().filter_map(|machine| machine.local).collect();
        (report, (self.killed, running, self.network, self.seen))
    }
}
