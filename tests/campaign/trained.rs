//! Clusters that train.

use std::path::Path;

use gradmesh::config::Config;
use gradmesh::sim::{Broken, CampaignError, Fault, ShrinkBudget, Sim, Swarm, kill, pause};

/// The digits on two servers and two workers, with a few steps.
fn digits() -> Sim {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/digits.toml");
    let sets = ["job.epochs=2", "workers.count=2", "servers.shards=2"].map(str::to_owned);
    Sim::cluster(Config::load(&file, &sets, std::iter::empty()).unwrap()).unwrap()
}

#[test]
fn each_seed_trains_to_the_digest_of_the_run_without_faults() {
    let swarm = Swarm::default().until(std::time::Duration::from_millis(300));
    let summary = digits().swarm(swarm).seeds(0..8).check();
    assert!(summary.digest.is_some());
    assert!(summary.steps > 0);
}

#[test]
fn a_run_without_faults_that_fails_is_reported_as_such() {
    let error = digits().limit(std::time::Duration::from_millis(50)).seeds(0..8).run().unwrap_err();
    let CampaignError::Calm(report) = &error else { panic!("{error}") };
    assert!(matches!(report.broken, Some(Broken::Hung { .. })), "{report}");
    assert!(report.plan.faults.is_empty());
}

#[test]
fn a_cluster_that_can_not_run_says_so_at_once() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/digits.toml");
    let sets = ["servers.shards=40", "workers.count=2"].map(str::to_owned);
    let config = Config::load(&file, &sets, std::iter::empty()).unwrap();
    let error = Sim::cluster(config).unwrap().seeds(0..8).run().unwrap_err();
    let CampaignError::Calm(report) = &error else { panic!("{error}") };
    let Some(Broken::Ended { node, cause }) = &report.broken else { panic!("{report}") };
    assert_eq!(node, "worker-0");
    assert!(cause.contains("servers.shards"), "{cause}");
    assert!(report.took < std::time::Duration::from_secs(1), "{report}");
}

#[test]
fn twelve_faults_of_a_cluster_are_shrunk_to_the_one_that_matters() {
    let nodes = ["worker-0", "worker-1", "main", "ps-0"];
    let fault = |i: usize| {
        let fault = if i.is_multiple_of(2) { pause(nodes[i % 4]) } else { kill(nodes[i % 2 * 2]) };
        fault.at(&format!("{}ms", 11 + 23 * i)).for_("61ms")
    };
    let mut faults: Vec<Fault> = (0..11).map(fault).collect();
    faults.insert(5, kill("ps-1").at("143ms").for_("73ms"));
    let sim = digits().faults(faults).always("the second server stays", |world| {
        world.node("ps-1").is_none_or(|node| node.restarts == 0)
    });
    let error = sim.seeds(0..1).run().unwrap_err();
    println!("{error}");
    let shrunk = super::failure(error).shrunk.unwrap();
    assert_eq!(shrunk.report.plan.faults, [kill("ps-1").at("0s").for_("10ms")]);
    assert!(shrunk.took < ShrinkBudget::default().time, "{:?}", shrunk.took);
}

/// Two of these nine faults are needed, at once.
#[test]
fn faults_that_matter_only_together_are_left_together() {
    let idle = (0..7).map(|i| pause("worker-0").at(&format!("{}ms", 17 + 31 * i)).for_("23ms"));
    let pair = [kill("ps-0").at("87ms").for_("333ms"), kill("worker-1").at("133ms").for_("177ms")];
    let sim = digits().faults(idle.chain(pair)).always("one node at a time is down", |world| {
        let down = |name| world.node(name).is_some_and(|node| !node.up);
        !(down("ps-0") && down("worker-1"))
    });
    let error = sim.seeds(0..1).run().unwrap_err();
    println!("{error}");
    let shrunk = super::failure(error).shrunk.unwrap();
    let mut left: Vec<&str> = shrunk.report.plan.faults.iter().flat_map(Fault::nodes).collect();
    left.sort_unstable();
    assert_eq!(left, ["ps-0", "worker-1"]);
    assert!(shrunk.took < ShrinkBudget::default().time, "{:?}", shrunk.took);
}
