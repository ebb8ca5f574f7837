//! The leader is cut off: from the other hosts, from the store alone, or from all but the store.

use crate::cluster::{Cluster, Setup, Store, calm_digest, leads};
use crate::network::{Cut, HOSTS, Network};
use crate::partitions::{GOES_ON, is_whole, number};

/// Waits for a whole cluster that trains; who leads it, who doesn't, in which view.
fn trains(cluster: &Cluster<'_>) -> (u8, u8, u64) {
    let (leader, other) = cluster.leader_and_other();
    let before = cluster.wait_until(leader, "whole cluster that trains", |status| {
        leads(status) && is_whole(status) && number(status, "version") >= GOES_ON
    });
    (leader, other, number(&before, "view"))
}

fn newest_view(cluster: &Cluster<'_>, host: u8) -> u64 {
    cluster.views_of(&format!("server-{host}")).into_iter().max().unwrap_or(0)
}

#[cfg(feature = "etcd")]
mod over_etcd {
    use super::*;

    const TWO: Setup = Setup { coordinators: &[1, 2], members: &HOSTS, store: Store::Etcd };

    /// Cuts the leader off from the other hosts, on one of which the log is.
    fn the_other_coordinator_takes_over(cut: fn(u8) -> Cut) {
        let Some(network) = Network::new() else { return };
        let calm = calm_digest(TWO);
        let cluster = Cluster::start(&network, TWO);
        let (leader, other, before) = trains(&cluster);
        let led = cluster.leaderships(leader);
        network.cut(cut(leader));
        let taken = cluster.wait_until(other, "takeover", leads);
        let (first, from) = (number(&taken, "view"), number(&taken, "version"));
        assert!(first > before, "view {first} after {before}");
        let alone = cluster.wait_until(other, "steps of the larger side", |status| {
            number(status, "servers") == 2 && number(status, "version") >= from + GOES_ON
        });
        assert_eq!(number(&alone, "rollbacks"), 0, "replicas have all that was committed: {alone}");
        assert!(number(&alone, "promotions") > 0, "it was the primary of a shard: {alone}");
        // The log has one entry of a number, and those from `first` on are another one's.
        let cut_off = cluster.wait_until(leader, "word of the one that is cut off", |_| true);
        assert!(number(&cut_off, "view") < first, "{cut_off}");
        assert_eq!(cluster.leaderships(leader), led, "it has won no term");
        let view = number(&alone, "view");
        assert!(newest_view(&cluster, leader) < view, "what it commits is of a view that is over");
        network.heal(cut(leader));
        cluster.wait_until(leader, "follower", |status| !leads(status));
        let again = || newest_view(&cluster, leader) > view;
        cluster.wait_until(other, "part of the host that was cut off", |_| again());
        assert_eq!(cluster.digest(), calm);
    }

    #[test]
    fn a_leader_that_is_cut_off_both_ways_is_succeeded_and_follows_when_it_is_back() {
        the_other_coordinator_takes_over(Cut::Both);
    }

    #[test]
    fn a_leader_that_nobody_hears_is_succeeded_and_follows_when_it_is_heard_again() {
        the_other_coordinator_takes_over(Cut::From);
    }

    #[test]
    fn a_leader_that_hears_nobody_is_succeeded_and_follows_when_it_hears_again() {
        the_other_coordinator_takes_over(Cut::To);
    }

    /// All members still hear it, and obey the newer view.
    #[test]
    fn a_leader_that_reaches_everyone_but_the_store_is_succeeded_without_a_loss() {
        let Some(network) = Network::new() else { return };
        let calm = calm_digest(TWO);
        let cluster = Cluster::start(&network, TWO);
        let (leader, other, before) = trains(&cluster);
        let led = cluster.leaderships(leader);
        network.cut(Cut::Store(leader));
        let taken = cluster.wait_until(other, "takeover", leads);
        let (first, from) = (number(&taken, "view"), number(&taken, "version"));
        assert!(first > before, "view {first} after {before}");
        let after = cluster.wait_until(other, "steps after it", |status| {
            is_whole(status) && number(status, "version") >= from + GOES_ON
        });
        let losses = ["lost", "rollbacks", "promotions"].map(|key| number(&after, key));
        assert_eq!(losses, [0, 0, 0], "{after}");
        for host in HOSTS {
            assert!(newest_view(&cluster, host) >= first, "server-{host} obeys the newer view");
        }
        let cut_off = cluster.wait_until(leader, "word of the one that is cut off", |_| true);
        assert!(number(&cut_off, "view") < first, "{cut_off}");
        assert_eq!(cluster.leaderships(leader), led, "it has won no term");
        network.heal(Cut::Store(leader));
        cluster.wait_until(leader, "follower", |status| !leads(status));
        assert_eq!(cluster.digest(), calm);
    }
}

/// The log is in a folder that no partition cuts off, so the log's leader stays: its side goes on.
#[test]
fn a_leader_that_reaches_the_shared_folder_and_a_server_goes_on_without_the_other_hosts() {
    let Some(network) = Network::new() else { return };
    let two = Setup { coordinators: &[1, 2], members: &HOSTS, store: Store::Folder };
    let calm = calm_digest(two);
    let cluster = Cluster::start(&network, two);
    let (leader, other, before) = trains(&cluster);
    network.cut(Cut::Both(leader));
    let alone = cluster.wait_until(leader, "view without the others", |status| {
        number(status, "servers") == 1 && number(status, "view") > before
    });
    assert!(leads(&alone), "{alone}");
    let from = number(&alone, "version");
    let alone = cluster.wait_until(leader, "steps of the leader's side", |status| {
        number(status, "rollbacks") == 1 && number(status, "version") >= from + GOES_ON
    });
    let view = number(&alone, "view");
    for host in HOSTS.into_iter().filter(|host| *host != leader) {
        assert!(newest_view(&cluster, host) < view, "server-{host} commits nothing of {view}");
    }
    assert_eq!(cluster.leaderships(other), 0);
    network.heal(Cut::Both(leader));
    cluster.wait_until(leader, "whole cluster again", is_whole);
    assert_eq!(cluster.digest(), calm);
}

/// Server and worker are on the third host: the folder would let the leader lead for ever.
#[test]
fn a_leader_that_reaches_the_shared_folder_alone_gives_way_and_follows_when_it_is_back() {
    let Some(network) = Network::new() else { return };
    let two = Setup { coordinators: &[1, 2], members: &[3], store: Store::Folder };
    let calm = calm_digest(two);
    let cluster = Cluster::start(&network, two);
    let (leader, other) = cluster.leader_and_other();
    let before = cluster.wait_until(leader, "steps", |status| {
        leads(status) && number(status, "version") >= GOES_ON
    });
    network.cut(Cut::Both(leader));
    let taken = cluster.wait_until(other, "takeover", leads);
    assert!(number(&taken, "view") > number(&before, "view"), "{taken}");
    let from = number(&taken, "version");
    let alone = cluster.wait_until(other, "steps without it", |status| {
        number(status, "version") >= from + GOES_ON
    });
    assert_eq!(["lost", "rollbacks"].map(|key| number(&alone, key)), [0, 0], "{alone}");
    network.heal(Cut::Both(leader));
    let name = format!("main-{other}");
    cluster.wait_until(leader, "follower", |status| status["progress"]["leader"] == *name);
    assert_eq!(cluster.digest(), calm);
}
