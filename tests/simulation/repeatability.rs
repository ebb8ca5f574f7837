//! The same seed is the same run, to the last event.

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
