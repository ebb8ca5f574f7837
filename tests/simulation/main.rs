//! The whole cluster on a simulated clock, network and disk.
//!
//! `GRADMESH_SIM_SEEDS=10000 cargo test --test simulation swarm` runs more seeds than CI does.

#![allow(clippy::unwrap_used, reason = "the helpers of a test fail with it")]

mod by_hand;
mod elastic;
mod registries;
mod repeatability;
mod slow;
mod swarm;
mod two_registries;

use std::path::Path;

use gradmesh::config::Config;
use gradmesh::sim::Sim;

/// The digits on two servers and two workers: 115 steps, a checkpoint each 20.
fn digits(sets: &[&str]) -> Sim {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/digits.toml");
    let short =
        ["job.epochs=5", "workers.count=2", "servers.shards=2", "checkpoint.every_steps=20"];
    let sets: Vec<String> = short.iter().chain(sets).map(|set| (*set).to_owned()).collect();
    Sim::cluster(Config::load(&file, &sets, std::iter::empty()).unwrap()).unwrap()
}

/// Residuals at the workers, a norm over both shards, state at the servers.
const HARD: &[&str] =
    &["job.gradient.codec=top-k", "job.gradient.clip_norm=0.5", "job.optimizer.kind=momentum"];
