//! The same seed is the same run, to the last event. `.ci/run` compares the release build too.

use std::path::Path;
use std::process::Command;

use gradmesh::config::Config;
use gradmesh::sim::{Report, Seed, Sim, Swarm};

use crate::{HARD, digits};

const SEEDS: u64 = 100;

fn swarm() -> Sim {
    digits(HARD).swarm(Swarm::default())
}

/// Runs a seed again and shows where the two runs part.
#[track_caller]
fn assert_same(sim: &Sim, first: &Report) {
    let again = sim.run(first.seed);
    if again.trace_hash == first.trace_hash {
        return;
    }
    let told = sim.clone().keep_events();
    let difference = told.run(first.seed).first_difference(&told.run(first.seed));
    panic!(
        "seed {} is not repeatable: {}",
        first.seed,
        difference.unwrap_or_else(|| "two more runs did not differ".to_owned())
    );
}

#[test]
fn the_same_seed_twice_in_one_process_is_the_same_trace() {
    let sim = swarm();
    for seed in 0..SEEDS {
        assert_same(&sim, &sim.run(Seed(seed)));
    }
}

/// Words of a node go to both; in some seeds an actor restarts.
#[test]
fn with_two_coordinators_the_same_seed_is_the_same_trace() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/replicated.toml");
    let config = Config::load(&file, &[], std::iter::empty()).unwrap();
    let sim = Sim::short_cluster(config, 60).unwrap().swarm(Swarm::default());
    for seed in 0..40 {
        assert_same(&sim, &sim.run(Seed(seed)));
    }
}

#[test]
fn the_same_seeds_in_two_processes_are_the_same_traces() {
    let config = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/digits.toml");
    let run = |arguments: &[&str]| {
        let mut node = Command::new(env!("CARGO_BIN_EXE_node"));
        let output = node.args(["--config", config, "simulate"]).args(arguments).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let traces = || {
        let summary = run(&["--seeds", "100", "--json"]);
        let summary: serde_json::Value = serde_json::from_str(&summary).unwrap();
        summary["trace_hash"].as_str().unwrap().to_owned()
    };
    if traces() == traces() {
        return;
    }
    for seed in 0..SEEDS {
        let timeline = || run(&["--seed", &seed.to_string()]);
        let (one, other) = (timeline(), timeline());
        let differ = one.lines().zip(other.lines()).find(|(one, other)| one != other);
        assert_eq!(differ, None, "seed {seed}");
    }
    panic!("traces differ, and timelines don't");
}

#[test]
fn another_seed_is_another_trace() {
    let sim = swarm();
    assert_ne!(sim.run(Seed(1)).trace_hash, sim.run(Seed(2)).trace_hash);
}

#[test]
fn two_runs_that_differ_say_where() {
    let one = digits(&[]).keep_events().run(Seed(1));
    let other = digits(&["job.seed=2"]).keep_events().run(Seed(1));
    let difference = one.first_difference(&other).unwrap();
    assert!(difference.starts_with("event "), "{difference}");
}
