//! Servers and workers come and go while the run goes on: drained, stopped for a while or for good,
//! started, called back. The digest is the one of a run that nobody disturbs.
//!
//! `GRADMESH_SIM_SEEDS=2000 cargo test --test simulation elastic` draws more traces.

use std::path::Path;

use gradmesh::actors::training::{EventKind, Progress, TrainingStatus, Who};
use gradmesh::config::{Config, NodeConfig, Role};
use gradmesh::sim::{
    Fault, FaultPlan, Report, Seed, Sim, Summary, World, drain, kill, one_role_each, stop,
};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::swarm::seeds;

/// Until when something happens: a bit beyond the end of a run that nobody disturbs, which takes
/// 1.3 s, for each change makes it longer.
const SPAN_MS: u64 = 2000;
/// Beyond the end of any run.
const FOR_GOOD_MS: u64 = 1_000_000;

/// Four servers with a replica of each shard, four workers, two coordinators; 230 steps, a checkpoint
/// each 20.
fn cluster(sets: &[&str]) -> Sim {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/digits.toml");
    let size = ["workers.count=4", "servers.shards=4", "checkpoint.every_steps=20"];
    let sets: Vec<String> = size.iter().chain(sets).map(|set| (*set).to_owned()).collect();
    let mut config = Config::load(&file, &sets, std::iter::empty()).unwrap();
    config.nodes = one_role_each(&config);
    let address = "127.0.0.1:6999".parse().unwrap();
    let (name, roles) = ("second".to_owned(), vec![Role::Coordinator]);
    config.nodes.push(NodeConfig { name, address, roles, listen: None, grpc_listen: None });
    config.servers.replicas = 1;
    Sim::cluster(config).unwrap()
}

/// And a norm over all shards.
const RESIDUALS: &[&str] = &["job.gradient.codec=top-k", "job.gradient.clip_norm=0.5"];

struct Draw(ChaCha8Rng);

impl Draw {
    fn below(&mut self, bound: u64) -> u64 {
        self.0.next_u64() % bound.max(1)
    }

    /// From some instant of the run on, for a while.
    fn a_while(&mut self, fault: Fault) -> Fault {
        Fault { at_ms: self.below(SPAN_MS), for_ms: 1 + self.below(1500), ..fault }
    }
}

fn between(fault: Fault, from: u64, to: u64) -> Fault {
    Fault { at_ms: from, for_ms: (to - from).max(1), ..fault }
}

/// What comes and goes with this seed. One server and one worker at least are never gone for good.
fn trace(seed: Seed) -> FaultPlan {
    let mut draw = Draw(ChaCha8Rng::seed_from_u64(seed.0 ^ 0x656c_6173));
    let mut faults = Vec::new();
    for role in ["ps", "worker"] {
        // Those with the lowest numbers of a turned list.
        let (gone, turn) = (draw.below(4), draw.below(4));
        for index in 0..4 {
            let node = format!("{role}-{}", (index + turn) % 4);
            if index < gone {
                // Gone for good, drained before or not.
                let at = draw.below(SPAN_MS);
                let at = if draw.below(2) == 0 {
                    faults.push(between(drain(&node), at, FOR_GOOD_MS));
                    at + draw.below(1000)
                } else {
                    at
                };
                if draw.below(2) == 0 {
                    faults.push(between(stop(&node), at, FOR_GOOD_MS));
                }
                continue;
            }
            for _ in 0..draw.below(3) {
                match draw.below(3) {
                    0 => faults.push(draw.a_while(stop(&node))),
                    1 => faults.push(draw.a_while(drain(&node))),
                    // Drained, stopped, started, called back.
                    _ => {
                        let mut at = [0; 4].map(|_| draw.below(SPAN_MS));
                        at.sort_unstable();
                        faults.push(between(drain(&node), at[0], at[3]));
                        faults.push(between(stop(&node), at[1], at[2]));
                    }
                }
            }
        }
    }
    if draw.below(3) == 0 {
        let leader = if draw.below(3) == 0 { "second" } else { "main" };
        let fault = draw.a_while(kill(leader));
        faults.push(fault);
    }
    faults.sort_by_key(|fault| fault.at_ms);
    FaultPlan::new(faults)
}

fn running(world: &World<'_>, look: impl Fn(&TrainingStatus) -> bool) -> bool {
    let looked = |run: &TrainingStatus| matches!(run.progress, Progress::Running) && look(run);
    world.with_training(looked).unwrap_or(false)
}

/// A server that leaves has nothing left, and had something.
fn a_server_is_drained(run: &TrainingStatus) -> bool {
    run.leaving.iter().any(|leaver| {
        let Who::Server(server) = leaver.who else { return false };
        let released = |kind: &EventKind| {
            matches!(kind, EventKind::Released { copy } if copy.server == server)
        };
        leaver.holds == 0 && run.events.newest.iter().any(|event| released(&event.kind))
    })
}

fn a_worker_is_drained(run: &TrainingStatus) -> bool {
    let drained = |leaver: &&_| {
        let gradmesh::actors::training::Leaver { who, holds } = leaver;
        matches!(who, Who::Worker(_)) && *holds == 0
    };
    // It had slots, for there are more than workers.
    run.leaving.iter().any(|leaver| drained(&leaver))
}

fn comes_and_goes(sets: &[&str]) -> Sim {
    cluster(sets)
        .plans(trace)
        .sometimes("a server had nothing left", |world| running(world, a_server_is_drained))
        .sometimes("a worker had nothing left", |world| running(world, a_worker_is_drained))
        .sometimes("primaries were handed over", |world| running(world, |run| run.handovers > 0))
        .sometimes("replicas took over", |world| running(world, |run| run.promotions > 0))
}

#[expect(clippy::print_stdout, reason = "for whoever runs many")]
fn tell(summary: &Summary) {
    let Summary { seeds, faults, restarts, steps, sometimes, .. } = summary;
    println!("{seeds} traces: {faults} changes, {restarts} starts, {steps} steps; {sometimes:?}");
}

#[test]
fn whoever_comes_and_goes_elastic_the_digest_is_the_calm_one() {
    let calmly =
        |run: &TrainingStatus| run.handovers > 2 && run.rollbacks == 0 && run.version.0 > 200;
    let summary = comes_and_goes(&[])
        .sometimes("nobody went back", move |world| running(world, calmly))
        .seeds(seeds(16))
        .check();
    tell(&summary);
}

#[test]
fn whoever_comes_and_goes_elastic_with_residuals_the_digest_is_the_calm_one() {
    let summary = comes_and_goes(RESIDUALS)
        .sometimes("everyone went back", |world| running(world, |run| run.rollbacks > 0))
        .seeds(seeds(16))
        .check();
    tell(&summary);
}

/// Half of the servers and workers leave and are stopped: nobody is missed.
#[track_caller]
fn half_leaves(sets: &[&str]) -> Report {
    let leave = ["ps-0", "ps-2", "worker-1", "worker-3"];
    let drains = leave.map(|node| drain(node).at("200ms").for_("1000s"));
    let stops = leave.map(|node| stop(node).at("900ms").for_("1000s"));
    let report = cluster(sets).faults(drains.into_iter().chain(stops)).must_pass(Seed(1));
    assert_eq!(report.counts.faults_begun, 8, "{report}");
    report
}

#[test]
fn who_was_drained_is_missed_by_nobody() {
    let run = half_leaves(&[]).training.unwrap();
    assert_eq!((run.promotions, run.rollbacks), (0, 0), "{:?}", run.events);
    assert!(run.handovers > 0);
    assert_eq!(run.leaving.len(), 4);
}

#[test]
fn who_was_drained_with_residuals_went_at_a_checkpoint_and_is_missed_by_nobody() {
    let run = half_leaves(&["job.gradient.codec=top-k"]).training.unwrap();
    assert_eq!((run.promotions, run.rollbacks), (0, 1), "{:?}", run.events);
}

#[test]
fn the_next_leader_goes_on_with_a_drain() {
    let faults = [drain("ps-0").at("200ms").for_("1000s"), kill("main").at("230ms").for_("5s")];
    let report = cluster(&["job.epochs=40"]).faults(faults).must_pass(Seed(1));
    let run = report.training.unwrap();
    let who = Who::Server(gradmesh::actors::ids::ServerId(0));
    assert_eq!(run.leaving.iter().map(|leaver| leaver.who).collect::<Vec<_>>(), [who]);
}

/// A part of a checkpoint is reported in each view anew. Once it said who had been in sync when it was
/// written: server 1 was made a primary before it was filled again.
#[test]
fn a_server_that_comes_back_is_not_in_sync_because_it_once_was() {
    cluster(&[]).plans(trace).must_pass(Seed(1098));
}

/// A primary had the norm of a step from the first shard's, before that one heard of the view and forgot
/// whose sums it had.
#[test]
fn a_norm_that_was_told_before_the_first_shard_heard_of_a_view_is_not_forgotten() {
    cluster(RESIDUALS).plans(trace).must_pass(Seed(1041));
}
