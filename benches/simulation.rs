//! How many simulated seconds a CPU second gives: one server, 8 or 100 workers, a push each 100 ms.
//!
//! `cargo bench --bench simulation`; `-- 8` or `-- 100` for one of the two.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark")]

use std::path::Path;
use std::time::Duration;

use gradmesh::config::Config;
use gradmesh::sim::{ANY, Seed, Sim, delay};
use mimalloc::MiMalloc;
use nix::time::{ClockId, clock_gettime};

/// As `node` has it.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

const RUNS: u64 = 5;

fn main() {
    let only: Vec<u32> = std::env::args().filter_map(|argument| argument.parse().ok()).collect();
    let is_wanted = |workers: u32| only.is_empty() || only.contains(&workers);
    // So long that starting and ending the nodes is little of it.
    let clusters = [(8, 120, 2000.0), (100, 600, 200.0)];
    for (workers, epochs, goal) in clusters.into_iter().filter(|(workers, ..)| is_wanted(*workers))
    {
        let sim = cluster(workers, epochs);
        let mut speeds: Vec<f64> = (0..RUNS).map(|seed| speed(&sim, Seed(seed))).collect();
        speeds.sort_by(f64::total_cmp);
        println!(
            "1 server + {workers} workers: {:.0} simulated s a CPU s (median of {RUNS}, {:.0} to {:.0}; goal {goal})",
            speeds[speeds.len() / 2],
            speeds[0],
            speeds[speeds.len() - 1]
        );
    }
}

/// A linear model on the digits, over links so slow that a step takes 100 ms.
fn cluster(workers: u32, epochs: u32) -> Sim {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/digits.toml");
    let sets = [
        format!("workers.count={workers}"),
        "servers.shards=1".to_owned(),
        format!("job.epochs={epochs}"),
        // One slot of two rows each.
        format!("job.virtual_workers={workers}"),
        format!("job.batch_size={}", workers * 2),
        "job.model.kind=linear".to_owned(),
        "checkpoint.every_steps=1000".to_owned(),
    ];
    let config = Config::load(&file, &sets, std::iter::empty()).unwrap();
    let far = delay(ANY, ANY, 48).at("0s").for_("5000s");
    Sim::cluster(config).unwrap().faults([far]).limit(Duration::from_secs(5000))
}

fn speed(sim: &Sim, seed: Seed) -> f64 {
    let before = cpu_time();
    let report = sim.run(seed);
    assert!(report.passed(), "{report}");
    report.took.as_secs_f64() / (cpu_time() - before).as_secs_f64()
}

/// Of this process, all threads.
fn cpu_time() -> Duration {
    let now = clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).unwrap();
    Duration::new(now.tv_sec() as u64, now.tv_nsec() as u32)
}
