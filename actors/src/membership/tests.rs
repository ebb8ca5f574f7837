use proptest::prelude::*;

use super::*;
use crate::ids::ShardId;

const WORKER: Member = Member::Worker(WorkerId(1));
const SHARD: Member = Member::Copy(ShardCopy { shard: ShardId(0), server: ServerId(0) });

const PATIENCE: Patience = Patience {
    dead_after: Duration::from_secs(1),
    refused_after: Duration::from_millis(150),
    gone_after: Duration::from_millis(50),
};

fn at(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn members() -> Membership {
    let mut members = Membership::new(PATIENCE);
    let alive = [(WORKER, Incarnation(1)), (SHARD, Incarnation(1))];
    assert_eq!(members.heard("a", &alive, at(0)).len(), 2);
    members
}

#[test]
fn silence_up_to_the_deadline_is_no_loss() {
    let mut members = members();
    assert_eq!(members.expire(at(1000)), []);
    assert_eq!(members.departed(), None);
    assert_eq!(members.expire(at(1001)), [Change::Lost(SHARD), Change::Lost(WORKER)]);
    let departed = Departure { last_word: at(0), noticed: at(1001), refused: false };
    assert_eq!((members.departed(), members.departed()), (Some(departed), None));
    assert_eq!(members.workers(), []);
}

#[test]
fn who_is_assumed_to_live_is_confirmed_by_its_first_word_or_lost_at_the_deadline() {
    let mut members = Membership::new(PATIENCE);
    members.assume([WORKER, SHARD].into_iter(), at(5000));
    let heard = members.heard("a", &[(WORKER, Incarnation(7))], at(5500));
    assert_eq!(heard, [Change::Confirmed(WORKER)]);
    assert_eq!(members.expire(at(6001)), [Change::Lost(SHARD)]);
    let next = members.heard("a", &[(WORKER, Incarnation(8))], at(6002));
    assert_eq!(next, [Change::Lost(WORKER), Change::Joined(WORKER)]);
}

#[test]
fn a_server_of_which_one_actor_gave_up_can_hold_nothing_new() {
    let mut members = members();
    assert_eq!(members.servers(1), [ServerId(0)]);
    assert_eq!(members.servers(2), []);
    let other = Member::Copy(ShardCopy { shard: ShardId(1), server: ServerId(0) });
    members.heard("a", &[(SHARD, Incarnation(1)), (other, Incarnation(1))], at(1));
    assert_eq!(members.servers(2), [ServerId(0)]);
}

#[test]
fn another_incarnation_is_a_loss_and_a_join() {
    let mut members = members();
    let next = [(WORKER, Incarnation(2)), (SHARD, Incarnation(1))];
    let changes = members.heard("a", &next, at(10));
    assert_eq!(changes, [Change::Lost(WORKER), Change::Joined(WORKER)]);
    // The earlier life's last heartbeat comes late: nothing changes.
    let late = [(WORKER, Incarnation(1)), (SHARD, Incarnation(1))];
    assert_eq!(members.heard("a", &late, at(20)), []);
}

#[test]
fn a_member_that_its_node_no_longer_names_is_lost() {
    let mut members = members();
    let changes = members.heard("a", &[(SHARD, Incarnation(1))], at(10));
    assert_eq!(changes, [Change::Lost(WORKER)]);
    assert_eq!(members.heard("b", &[], at(10)), []);
}

#[test]
fn a_member_that_has_moved_to_another_node_is_not_lost_with_the_one_before() {
    let mut members = members();
    let changes = members.heard("b", &[(WORKER, Incarnation(2))], at(10));
    assert_eq!(changes, [Change::Lost(WORKER), Change::Joined(WORKER)]);
    assert_eq!(members.heard("a", &[(SHARD, Incarnation(1))], at(11)), []);
    assert_eq!(members.heard("b", &[], at(12)), [Change::Lost(WORKER)]);
    assert_eq!(members.heard("a", &[], at(13)), [Change::Lost(SHARD)]);
    members.called("a", 1);
    assert!(members.alive.is_empty() && members.nodes.is_empty() && members.refused.is_empty());
}

#[test]
fn a_refused_call_shortens_the_patience_with_its_node_alone() {
    let mut members = members();
    let other = Member::Worker(WorkerId(2));
    members.heard("b", &[(other, Incarnation(1))], at(0));
    members.called("a", 1);
    assert_eq!(members.next_loss(), Some(at(150)));
    assert_eq!(members.expire(at(150)), []);
    assert_eq!(members.expire(at(151)), [Change::Lost(SHARD), Change::Lost(WORKER)]);
    assert_eq!(members.expire(at(1000)), []);
    assert_eq!(members.expire(at(1001)), [Change::Lost(other)]);
}

#[test]
fn a_heartbeat_takes_the_suspicion_away() {
    let mut members = members();
    members.called("a", 1);
    members.heard("a", &[(WORKER, Incarnation(1)), (SHARD, Incarnation(1))], at(150));
    assert_eq!(members.expire(at(1150)), []);
    // The call that is refused after it counts again.
    members.called("a", 1);
    assert_eq!(members.expire(at(1150)).len(), 2);
}

#[test]
fn a_beat_stands_for_the_word_of_its_node_and_for_nobody_elses() {
    let mut members = members();
    let other = Member::Worker(WorkerId(2));
    members.heard("b", &[(other, Incarnation(1))], at(0));
    members.called("a", 2);
    members.connected("a", false, at(10));
    members.beat("a", at(140));
    members.beat("stranger", at(140));
    assert_eq!(members.expire(at(1001)), [Change::Lost(other)]);
    assert_eq!(members.expire(at(1140)), []);
    // One that came before what was heard of since takes nothing back.
    members.beat("a", at(100));
    assert_eq!(members.expire(at(1140)), []);
    assert_eq!(members.losses(), 1);
    assert_eq!(members.expire(at(1141)).len(), 2);
    assert_eq!(members.losses(), 2);
    members.beat("a", at(1150));
    assert_eq!(members.workers(), []);
}

/// Else its beats would keep alive whoever is in its place, or was before the clock was set back.
#[test]
fn a_word_of_which_something_is_older_than_what_is_known_is_not_believed() {
    let mut members = members();
    let word = |life| [(WORKER, Incarnation(life)), (SHARD, Incarnation(1))];
    assert!(members.believes("a", &word(1)) && members.believes("a", &[]));
    members.heard("a", &word(2), at(1));
    members.heard("a", &word(1), at(2));
    assert!(members.believes("a", &word(2)) && !members.believes("a", &word(1)));
    members.heard("b", &word(3)[..1], at(3));
    assert!(!members.believes("a", &word(2)), "the worker is another node's by now");
}

#[test]
fn a_node_that_refuses_calls_and_has_hung_up_is_gone_soon() {
    for refused_first in [true, false] {
        let mut members = members();
        if refused_first {
            assert!(members.called("a", 1));
        }
        assert_eq!(members.connected("a", false, at(20)), refused_first);
        members.called("a", 1);
        assert_eq!(members.next_loss(), Some(at(120)), "one call alone says less");
        members.called("a", 2);
        assert_eq!(members.next_loss(), Some(at(70)), "{refused_first}");
        assert_eq!(members.expire(at(70)), []);
        assert_eq!(members.expire(at(71)).len(), 2);
        assert!(members.refused.is_empty() && members.hung_up.is_empty());
    }
}

#[test]
fn a_node_that_has_hung_up_and_refuses_no_call_has_all_its_time() {
    let mut members = members();
    assert!(!members.connected("a", false, at(20)));
    assert_eq!(members.next_loss(), None);
    assert_eq!(members.expire(at(1000)), []);
    members.called("a", 2);
    assert!(!members.called("a", 0), "somebody listens there");
    assert_eq!((members.next_loss(), members.expire(at(1000))), (None, vec![]));
}

#[test]
fn a_node_that_calls_again_has_not_hung_up() {
    let mut members = members();
    members.called("a", 2);
    members.connected("a", false, at(20));
    members.connected("a", true, at(60));
    assert_eq!(members.next_loss(), Some(at(150)));
    // Its word says so too, where the other news was lost.
    members.connected("a", false, at(70));
    members.heard("a", &[(WORKER, Incarnation(1)), (SHARD, Incarnation(1))], at(80));
    members.called("a", 2);
    assert_eq!(members.next_loss(), Some(at(230)));
}

#[test]
fn the_observers_own_pause_is_not_counted_since_a_node_has_hung_up() {
    let mut members = members();
    members.called("a", 2);
    members.connected("a", false, at(20));
    members.stood_still(at(500), at(530));
    assert_eq!(members.next_loss(), Some(at(570)));
}

#[test]
fn a_node_of_which_nobody_is_known_is_not_suspected() {
    let mut members = Membership::new(PATIENCE);
    members.called("a", 1);
    members.connected("a", false, at(0));
    members.heard("a", &[(WORKER, Incarnation(1))], at(0));
    assert_eq!(members.expire(at(1000)), []);
}

#[test]
fn what_the_observer_slept_through_is_nobodys_silence() {
    let mut members = members();
    members.stood_still(at(2000), at(2500));
    assert_eq!(members.expire(at(3000)), []);
    assert_eq!(members.expire(at(3001)).len(), 2);
    // Nobody is believed to be alive longer than since now.
    let mut members = self::members();
    members.stood_still(at(9000), at(100));
    assert_eq!(members.expire(at(1100)), []);
    assert_eq!(members.expire(at(1101)).len(), 2);
}

/// What a detector hears, in any order, some time after the thing before.
#[derive(Clone, Debug)]
enum Heard {
    Heartbeat,
    Refused,
    StoodStill(u64),
    Looked,
    /// It hung up and called again so much later.
    CalledAgain(u64),
}

proptest! {
    #[test]
    fn no_node_is_lost_while_its_heartbeats_come_in_time(
        events in proptest::collection::vec(
            (
                0..=150u64,
                prop_oneof![
                    Just(Heard::Heartbeat),
                    Just(Heard::Refused),
                    (0..500u64).prop_map(Heard::StoodStill),
                    Just(Heard::Looked),
                    (0..=50u64).prop_map(Heard::CalledAgain),
                ],
            ),
            1..200,
        ),
    ) {
        let mut members = Membership::new(PATIENCE);
        let (mut now, mut last) = (0, 0);
        let alive = [(WORKER, Incarnation(1))];
        members.heard("a", &alive, at(0));
        for (after, event) in events {
            // In time for the shortest patience.
            now = (now + after).min(last + 150);
            prop_assert_eq!(members.expire(at(now)), []);
            match event {
                Heard::Heartbeat => {
                    prop_assert_eq!(members.heard("a", &alive, at(now)), []);
                    last = now;
                }
                Heard::Refused => drop(members.called("a", 2)),
                Heard::StoodStill(pause) => members.stood_still(at(pause), at(now)),
                Heard::Looked => {}
                Heard::CalledAgain(after) => {
                    members.connected("a", false, at(now));
                    now = (now + after).min(last + 150);
                    prop_assert_eq!(members.expire(at(now)), []);
                    members.connected("a", true, at(now));
                }
            }
        }
    }

    /// At once when a moment more has passed than is borne, whatever was heard before.
    #[test]
    fn a_silent_node_is_lost_in_time(
        beats in proptest::collection::vec(0..=1000u64, 0..20),
        refused in proptest::bool::ANY,
    ) {
        let mut members = Membership::new(PATIENCE);
        let alive = [(WORKER, Incarnation(1))];
        let mut now = 0;
        members.heard("a", &alive, at(now));
        for after in beats {
            now += after;
            members.heard("a", &alive, at(now));
        }
        if refused {
            members.called("a", 1);
        }
        let patience = if refused { 150 } else { 1000 };
        prop_assert_eq!(members.next_loss(), refused.then(|| at(now + patience)));
        prop_assert_eq!(members.expire(at(now + patience)), []);
        prop_assert_eq!(members.expire(at(now + patience + 1)), [Change::Lost(WORKER)]);
    }
}

#[test]
fn nobody_is_deserted_before_everyone_has_been_silent_for_the_deadline_twice() {
    let mut members = members();
    members.heard("b", &[(WORKER, Incarnation(1))], at(500));
    members.expire(at(1400));
    assert!(!members.is_deserted(at(9000)), "a worker is there");
    members.expire(at(1501));
    assert!(!members.is_deserted(at(2500)) && members.is_deserted(at(2501)));
    members.heard("b", &[(WORKER, Incarnation(2))], at(2600));
    members.expire(at(2700));
    assert!(!members.is_deserted(at(9000)));
}

#[test]
fn who_has_never_heard_of_anybody_waits_ten_times_as_long_to_be_deserted() {
    let mut members = Membership::new(PATIENCE);
    members.assume([WORKER].into_iter(), at(0));
    members.expire(at(1001));
    members.expire(at(2000));
    assert!(!members.is_deserted(at(11_000)) && members.is_deserted(at(11_001)));
}

#[test]
fn a_pause_of_whoever_looks_deserts_nobody() {
    let mut members = members();
    members.expire(at(1001));
    members.stood_still(at(3000), at(4100));
    members.expire(at(4200));
    assert!(!members.is_deserted(at(5100)) && members.is_deserted(at(5200)));
}
