//! Servers come and go at random; whoever was promised a copy has one, and it settles.

use proptest::prelude::*;

use super::*;

fn servers(ids: &[u32]) -> Vec<ServerId> {
    ids.iter().copied().map(ServerId).collect()
}

fn everyone(holders: &[Holders]) -> BTreeSet<ShardCopy> {
    copies(holders).collect()
}

/// All learners have been filled.
fn filled(holders: &[Holders]) -> Vec<Holders> {
    let fill = |held: &Holders| Holders {
        primary: held.primary,
        replicas: held.replicas.iter().chain(&held.learners).copied().collect(),
        learners: Vec::new(),
    };
    holders.iter().map(fill).collect()
}

/// Changes and fills until nothing changes any more.
fn settled(mut holders: Vec<Holders>, servers: &[ServerId], replicas: u32) -> Vec<Holders> {
    let bound = 4 * holders.len() + 8;
    for _ in 0..bound {
        let next = improve(&filled(&holders), servers, replicas);
        if next == holders {
            return holders;
        }
        holders = next;
    }
    panic!("does not settle: {holders:?} on {servers:?}");
}

fn check(holders: &[Holders], servers: &[ServerId], replicas: u32) {
    let wanted = (replicas as usize).min(servers.len() - 1);
    for held in holders {
        let distinct: BTreeSet<ServerId> = held.servers().collect();
        assert_eq!(distinct.len(), wanted + 1, "{held:?}");
        assert!(distinct.iter().all(|server| servers.contains(server)), "{held:?}");
    }
    for load in [copy_load(holders), primary_load(holders)] {
        let load = |server: &ServerId| load.get(server).copied().unwrap_or(0);
        let (least, most) = (servers.iter().map(load).min(), servers.iter().map(load).max());
        assert!(most.unwrap() <= least.unwrap() + 2, "{holders:?} on {servers:?}");
    }
}

#[test]
fn the_first_placement_is_spread_and_has_no_two_copies_on_one_server() {
    for count in 1..6u32 {
        let servers: Vec<ServerId> = (0..count).map(ServerId).collect();
        for shards in 1..12 {
            for replicas in 0..4 {
                check(&place(shards, &servers, replicas), &servers, replicas);
            }
        }
    }
}

#[test]
fn a_lost_primary_is_followed_by_its_replica_and_a_lost_replica_by_nobody() {
    let holders = place(2, &servers(&[0, 1, 2]), 1);
    assert_eq!(holders[0].replicas, servers(&[1]));
    let mut there = everyone(&holders);
    there.retain(|copy| copy.server != ServerId(0));
    let left = promote(&holders, &there).unwrap();
    assert_eq!((left[0].primary, left[0].replicas.len()), (ServerId(1), 0));
    assert_eq!(left[1], holders[1]);
}

#[test]
fn a_shard_whose_only_other_copy_is_being_filled_can_not_go_on() {
    let holders =
        vec![Holders { primary: ServerId(0), replicas: Vec::new(), learners: vec![ServerId(1)] }];
    let there = BTreeSet::from([ShardCopy { shard: ShardId(0), server: ServerId(1) }]);
    assert_eq!(promote(&holders, &there), None);
}

#[test]
fn without_replicas_a_server_that_joins_gets_its_share_and_one_that_leaves_gives_it_back() {
    let holders = place(4, &servers(&[0]), 0);
    let both = settled(holders, &servers(&[0, 1]), 0);
    assert_eq!(primary_load(&both), BTreeMap::from([(ServerId(0), 2), (ServerId(1), 2)]));
    let back = settled(both, &servers(&[1]), 0);
    assert_eq!(primary_load(&back), BTreeMap::from([(ServerId(1), 4)]));
}

proptest! {
    #[test]
    fn whoever_comes_and_goes_it_settles_evenly_and_no_state_is_given_up(
        shards in 1u32..9,
        replicas in 0u32..3,
        changes in prop::collection::vec((0u32..5, any::<bool>()), 1..12),
    ) {
        let mut there: BTreeSet<u32> = BTreeSet::from([0, 1, 2]);
        let list = |there: &BTreeSet<u32>| there.iter().copied().map(ServerId).collect::<Vec<_>>();
        let mut holders = place(shards, &list(&there), replicas);
        for (server, leaves) in changes {
            if leaves && there.len() > 1 {
                there.remove(&server);
            } else {
                there.insert(server);
            }
            let servers = list(&there);
            // Each change keeps somebody who has the state.
            let before = holders.clone();
            let next = improve(&filled(&holders), &servers, replicas);
            for (next, before) in next.iter().zip(filled(&before)) {
                prop_assert!(next.in_sync().all(|server| before.holds(server)));
            }
            holders = settled(next, &servers, replicas);
            check(&holders, &servers, replicas);
        }
    }

    /// One learner is filled at a time, whichever.
    #[test]
    fn while_servers_leave_no_shard_has_fewer_copies_in_sync_than_it_had_or_than_are_wanted(
        shards in 1u32..9,
        replicas in 0u32..3,
        changes in prop::collection::vec((0u32..5, any::<bool>(), 0usize..6), 1..12),
    ) {
        let mut stay: BTreeSet<u32> = (0..5).collect();
        let list = |stay: &BTreeSet<u32>| stay.iter().copied().map(ServerId).collect::<Vec<_>>();
        let mut holders = place(shards, &list(&stay), replicas);
        for (server, leaves, fills) in changes {
            if leaves && stay.len() > 1 {
                stay.remove(&server);
            } else {
                stay.insert(server);
            }
            let wanted = (replicas as usize).min(stay.len() - 1) + 1;
            for step in 0..=fills {
                let mut learning = holders.iter_mut().filter(|held| !held.learners.is_empty());
                if let Some(held) = learning.nth(step % 3) {
                    let learner = held.learners.remove(0);
                    held.replicas.push(learner);
                }
                let next = improve(&holders, &list(&stay), replicas);
                for (next, before) in next.iter().zip(&holders) {
                    let kept = before.in_sync().count().min(wanted);
                    prop_assert!(next.in_sync().count() >= kept, "{before:?} to {next:?}");
                }
                holders = next;
            }
        }
        let servers = list(&stay);
        let settled = settled(holders, &servers, replicas);
        check(&settled, &servers, replicas);
    }
}
