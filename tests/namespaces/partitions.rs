//! The side with the coordinator and two of three servers goes on, the other one commits nothing.

use serde_json::Value;

use crate::cluster::{Cluster, ONE_COORDINATOR, calm_digest};
use crate::network::{Cut, Network};

/// Steps by which it is sure that a cluster goes on.
pub(crate) const GOES_ON: u64 = 100;

/// The answer to the step before may be what is cut off: then it holds no step.
const CUTS_MAX: u32 = 8;

pub(crate) fn number(status: &Value, key: &str) -> u64 {
    status[key].as_u64().unwrap_or_else(|| panic!("no {key} in {status}"))
}

/// All are there, and each shard could lose its primary.
pub(crate) fn is_whole(status: &Value) -> bool {
    ["servers", "replicas", "workers"].into_iter().all(|key| number(status, key) == 3)
}

/// Cuts host 3 off while it trains.
fn larger_side_goes_on_alone(cut: Cut) {
    let Some(network) = Network::new() else { return };
    let calm = calm_digest(ONE_COORDINATOR);
    let cluster = Cluster::start(&network, ONE_COORDINATOR);
    let before = cluster.wait_until(1, "whole cluster that trains", |status| {
        is_whole(status) && number(status, "version") >= GOES_ON
    });
    network.cut(cut);
    let view = number(&before, "view");
    let first = cluster.wait_until(1, "new view", |status| number(status, "view") > view);
    let first = number(&first, "version").max(number(&before, "version"));
    let alone = cluster.wait_until(1, "steps of the larger side", |status| {
        number(status, "servers") == 2 && number(status, "version") >= first + GOES_ON
    });
    assert_eq!(number(&alone, "rollbacks"), 0, "replicas have all that was committed: {alone}");
    assert!(number(&alone, "promotions") > 0, "server-3 is the primary of a shard: {alone}");
    // A view that was raised for its worker, missed a moment before, may have reached server-3.
    let view = number(&alone, "view");
    let newest = |name| cluster.views_of(name).into_iter().max().unwrap_or(0);
    assert!(newest("server-3") < view, "{:?} before {view}", cluster.views_of("server-3"));
    assert!(newest("server-1") >= view && newest("server-2") >= view);
    network.heal(cut);
    cluster.wait_until(1, "part of the host that was cut off", |_| newest("server-3") > view);
    assert_eq!(cluster.digest(), calm);
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

/// It hears the pushes of a step, and may commit it only when its replica has it, which hears nothing.
#[test]
fn a_primary_that_nobody_hears_is_refused_what_it_wants_to_commit() {
    let Some(network) = Network::new() else { return };
    let calm = calm_digest(ONE_COORDINATOR);
    let cluster = Cluster::start(&network, ONE_COORDINATOR);
    for _ in 0..CUTS_MAX {
        let before = cluster.wait_until(1, "whole cluster", |status| {
            is_whole(status) && number(status, "version") >= GOES_ON
        });
        network.cut(Cut::From(3));
        let view = number(&before, "view");
        cluster.wait_until(1, "new view", |status| number(status, "view") > view);
        network.heal(Cut::From(3));
        cluster.wait_until(1, "whole cluster again", |status| {
            is_whole(status) && number(status, "view") > view
        });
        if cluster.fenced("server-3") > 0 {
            break;
        }
    }
    assert!(cluster.fenced("server-3") > 0, "no step of server-3 was refused");
    assert_eq!(cluster.digest(), calm);
}
