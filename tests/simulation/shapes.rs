//! Clusters and jobs of all shapes, drawn by a number, each under a swarm: the digest of its calm run, and of
//! the same job on one server and one worker.
//!
//! `GRADMESH_SIM_SHAPES=1000 cargo test --test simulation shapes` draws more than CI does, with
//! `GRADMESH_SIM_SHAPE=17` before it from that number on.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use gradmesh::config::{Config, NodeConfig, Role};
use gradmesh::sim::{ANY, Seed, Sim, Swarm, one_role_each, slow};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// Of each shape. Many shapes find more than many seeds of one.
const SEEDS: u64 = 12;

struct Draw(ChaCha8Rng);

impl Draw {
    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.0.next_u64() as usize % of.len()]
    }
}

/// One of up to 40 nodes, and its job alone on one server and one worker.
fn shape(number: u64) -> (Sim, Sim) {
    let mut draw = Draw(ChaCha8Rng::seed_from_u64(number));
    let coordinators = draw.one(&[1, 1, 2, 3]);
    let registries = draw.one(&[1, 1, 2]);
    let (servers, workers) = (draw.one(&[1, 2, 3, 4, 6, 12]), draw.one(&[1, 2, 3, 5, 9, 16, 24]));
    // Some nodes are server and worker, and one of them may lead as well.
    let both = draw.one(&[0, 0, 1, servers.min(workers)]);
    let leads = draw.one(&[false, false, true]);
    let slots = draw.one(&[1, 2, 4, 8, 16, 32]);
    let sets = [
        format!("workers.count={workers}"),
        format!("workers.rebalance={}", draw.one(&[true, false])),
        format!("servers.shards={}", draw.one(&[1, 2, 3, 5, 8])),
        format!("servers.replicas={}", draw.one(&[0, 1, 1, 2, 3])),
        format!("job.seed={number}"),
        format!("job.virtual_workers={slots}"),
        format!("job.batch_size={}", slots * draw.one(&[1, 4, 8])),
        format!("job.model.hidden={}", draw.one(&["[32]", "[32, 16]", "[48]"])),
        format!("job.model.activation={}", draw.one(&["relu", "tanh", "sigmoid"])),
        format!("job.optimizer.kind={}", draw.one(&["sgd", "momentum", "nesterov", "adam"])),
        format!("job.optimizer.schedule.kind={}", draw.one(&["constant", "cosine", "step"])),
        format!("job.optimizer.schedule.warmup_steps={}", draw.one(&[0, 7])),
        format!("job.gradient.codec={}", draw.one(&["none", "none", "bf16", "int8", "top-k"])),
        format!("job.gradient.clip_norm={}", draw.one(&["0", "0", "0.1", "1"])),
        format!("job.gradient.clip_value={}", draw.one(&["0", "0", "0.05"])),
        format!("checkpoint.every_steps={}", draw.one(&[1, 3, 10, 50])),
        format!("checkpoint.keep={}", draw.one(&[1, 2, 2])),
        format!("detector.heartbeat_ms={}", draw.one(&[50, 100, 100, 250])),
    ];
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/digits.toml");
    let mut config = Config::load(&file, &sets, std::iter::empty()).unwrap();
    let mut nodes = vec![Vec::new(); coordinators.max(registries)];
    nodes[..coordinators].iter_mut().for_each(|roles| roles.push(Role::Coordinator));
    nodes[..registries].iter_mut().for_each(|roles| roles.push(Role::Registry));
    let first = nodes.len() - usize::from(leads);
    nodes.resize(first + servers + workers - both, Vec::new());
    let all = &mut nodes[first..];
    all[..servers].iter_mut().for_each(|roles| roles.push(Role::Server));
    all[servers - both..].iter_mut().for_each(|roles| roles.push(Role::Worker));
    let node = |(port, roles)| NodeConfig {
        name: format!("node-{}", port - 7000),
        address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
        roles,
        listen: None,
        grpc_listen: None,
    };
    config.nodes = (7000..).zip(nodes).map(node).collect();
    let mut alone = config.clone();
    (alone.workers.count, alone.servers.shards, alone.servers.replicas) = (1, 1, 0);
    alone.nodes = one_role_each(&alone);
    let steps = draw.one(&[20, 60, 120]);
    let alone = Sim::short_cluster(alone, steps).unwrap();
    let sim = Sim::short_cluster(config, steps).unwrap();
    let swarm = match draw.one(&[false, true]) {
        true => Swarm::default().faults_max(40),
        false => Swarm::default(),
    };
    let swarm = sim.clone().swarm(swarm);
    // Answers come while gradients are computed: computing takes no time otherwise.
    let is_slow = draw.one(&[false, true]);
    let sim = sim.plans(move |seed| {
        let mut plan = swarm.plan_of(seed);
        plan.faults.extend(is_slow.then(|| slow(ANY, 2).at("0s").for_("600s")));
        plan
    });
    (sim, alone)
}

#[test]
fn whatever_the_cluster_and_the_job_look_like_the_digest_is_that_of_a_calm_run() {
    let number = |name, fallback| match std::env::var(name) {
        Ok(text) => text.parse::<u64>().unwrap(),
        Err(_) => fallback,
    };
    let from = number("GRADMESH_SIM_SHAPE", 0);
    for drawn in from..from + number("GRADMESH_SIM_SHAPES", 60) {
        let again = "cargo test --test simulation shapes -- --nocapture";
        let again = format!("GRADMESH_SIM_SHAPE={drawn} GRADMESH_SIM_SEED={{seed}} {again}");
        let (sim, alone) = shape(drawn);
        let campaign = sim.seeds(drawn * 1000..drawn * 1000 + SEEDS);
        let campaign = campaign.built_by(&format!("shape({drawn}).0")).repeated_by(&again);
        let summary = campaign.check();
        let alone = alone.run(Seed(drawn));
        assert_eq!(summary.digest.as_deref(), alone.digest(), "shape {drawn}: {alone}");
    }
}
