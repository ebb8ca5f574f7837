//! The whole cluster on a simulated clock, network and disk.
//!
//! `GRADMESH_SIM_SEEDS=10000 cargo test --test simulation swarm` runs more seeds than CI does.

#![allow(clippy::unwrap_used, reason = "the helpers of a test fail with it")]

mod by_hand;
mod cost;
mod elastic;
mod registries;
mod repeatability;
mod shapes;
mod slow;
mod swarm;
mod two_registries;

use std::path::Path;

use gradmesh::config::Config;
use gradmesh::sim::{Sim, one_role_each};

const SHORT: [&str; 4] =
    ["job.epochs=5", "workers.count=2", "servers.shards=2", "checkpoint.every_steps=20"];

/// The digits on two servers and two workers: 115 steps, a checkpoint each 20.
fn digits(sets: &[&str]) -> Sim {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/digits.toml");
    let sets: Vec<String> = SHORT.iter().chain(sets).map(|set| (*set).to_owned()).collect();
    Sim::cluster(Config::load(&file, &sets, std::iter::empty()).unwrap()).unwrap()
}

/// The same with two coordinators, each with a registry.
fn digits_of_two_coordinators(sets: &[&str]) -> Sim {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/digits.toml");
    let sets: Vec<String> = SHORT.iter().chain(sets).map(|set| (*set).to_owned()).collect();
    let mut config = Config::load(&file, &sets, std::iter::empty()).unwrap();
    config.nodes = one_role_each(&config);
    let mut spare = config.nodes[0].clone();
    spare.name = "spare".to_owned();
    spare.address.set_port(7100);
    config.nodes.push(spare);
    Sim::cluster(config).unwrap()
}

/// Residuals at the workers, a norm over both shards, state at the servers.
const HARD: &[&str] =
    &["job.gradient.codec=top-k", "job.gradient.clip_norm=0.5", "job.optimizer.kind=momentum"];
