//! The side with the coordinator and two of three servers goes on, the other one commits nothing.

use crate::cluster::{Cluster, calm_digest};
use crate::network::{Cut, Network};

/// Steps by which it is sure that a cluster goes on.
const GOES_ON: u64 = 100;

fn number(status: &serde_json::Value, key: &str) -> u64 {
    status[key].as_u64().unwrap_or_else(|| panic!("no {key} in {status}"))
}

/// Cuts host 3 off while it trains.
fn larger_side_goes_on_alone(cut: Cut) {
    let Some(network) = Network::new() else { return };
    let calm = calm_digest();
    let cluster = Cluster::start(&network);
    let before = cluster.wait_until("whole cluster that trains", |status| {
        let whole = number(status, "replicas") == 3 && number(status, "workers") == 3;
        whole && number(status, "version") >= GOES_ON
    });
    network.cut(cut);
    let view = number(&before, "view");
    let first = cluster.wait_until("new view", |status| number(status, "view") > view);
    let first = number(&first, "version").max(number(&before, "version"));
    let alone = cluster.wait_until("steps of the larger side", |status| {
        number(status, "servers") == 2 && number(status, "version") >= first + GOES_ON
    });
    assert_eq!(number(&alone, "rollbacks"), 0, "replicas have all that was committed: {alone}");
    assert!(number(&alone, "promotions") > 0, "server-3 is the primary of a shard: {alone}");
    let later = |name| cluster.views_of(name).into_iter().filter(|of| *of > view).count();
    assert_eq!(later("server-3"), 0, "{:?}", cluster.views_of("server-3"));
    assert!(later("server-1") > 0 && later("server-2") > 0);
    network.heal(cut);
    cluster.wait_until("whole cluster again", |status| {
        number(status, "replicas") == 3 && number(status, "workers") == 3
    });
    assert!(later("server-3") > 0, "{:?}", cluster.views_of("server-3"));
    assert_eq!(cluster.digest(), calm);
    println!("{cut:?}: {} fenced, {} promotions", cluster.fenced("server-3"), alone["promotions"]);
}

#[test]
fn a_host_that_is_cut_off_both_ways_commits_nothing_and_comes_back() {
    larger_side_goes_on_alone(Cut::Both(3));
}

#[test]
fn a_host_that_nobody_hears_commits_nothing_and_comes_back() {
    larger_side_goes_on_alone(Cut::From(3));
}

#[test]
fn a_host_that_hears_nobody_commits_nothing_and_comes_back() {
    larger_side_goes_on_alone(Cut::To(3));
}
