//! The whole cluster on a simulated clock, network and disk.

#![allow(clippy::unwrap_used, reason = "the helpers of a test fail with it")]

use std::path::Path;

use gradmesh::config::Config;
use gradmesh::sim::{Seed, Sim, Swarm, kill};

/// The digits on two servers and two workers, with a few steps.
fn digits(extra: &str) -> Sim {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/digits.toml");
    let mut sets = vec!["job.epochs=2", "workers.count=2", "servers.shards=2"];
    sets.extend(extra.split_whitespace());
    let sets: Vec<String> = sets.into_iter().map(str::to_owned).collect();
    Sim::cluster(Config::load(&file, &sets, std::iter::empty()).unwrap()).unwrap()
}

#[test]
fn a_calm_run_trains_to_its_end() {
    let report = digits("").run(Seed(1));
    println!("{report}\n{}", report.timeline());
    assert!(report.digest().is_some(), "{report}");
}

#[test]
fn probe_kill() {
    let calm = digits("").run(Seed(1));
    let report = digits("").faults([kill("ps-0").at("300ms").for_("800ms")]).run(Seed(1));
    println!("{report}\n{}", report.timeline());
    assert_eq!(report.digest(), calm.digest());
}

#[test]
fn probe_swarm() {
    let start = std::time::Instant::now();
    let calm = digits("").run(Seed(1));
    for seed in 0..50 {
        let report = digits("").swarm(Swarm::default()).run(Seed(seed));
        println!(
            "{} {:?} {} {:?}",
            seed,
            report.broken,
            report.took.as_secs_f64(),
            start.elapsed()
        );
        if report.broken.is_some() || report.digest() != calm.digest() {
            println!("{report}");
        }
    }
}
