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
    for codec in ["none", "top-k"] {
        let start = std::time::Instant::now();
        let sim = digits(&format!(
            "job.epochs=10 checkpoint.every_steps=20 job.gradient.clip_norm=0.5 job.gradient.codec={codec}"
        ));
        let calm = sim.run(Seed(1));
        println!("calm {codec} {}", calm.took.as_secs_f64());
        let sim = sim.swarm(Swarm::default().until(std::time::Duration::from_secs(6)));
        let (mut bad, mut sum) = (0, 0.0);
        let from: u64 = std::env::var("FROM").map_or(0, |f| f.parse().unwrap());
        for seed in from..from + 200 {
            let report = sim.run(Seed(seed));
            sum += report.took.as_secs_f64();
            if report.broken.is_some() || report.digest() != calm.digest() {
                bad += 1;
                println!("{report} {:?}", report.digest() == calm.digest());
            }
        }
        println!("{codec}: {bad} bad, {sum} simulated s, {:?}", start.elapsed());
    }
}
