use super::*;
use crate::ids::ShardId;

const WORKER: Member = Member::Worker(WorkerId(1));
const SHARD: Member = Member::Copy(ShardCopy { shard: ShardId(0), server: ServerId(0) });

const PATIENCE: Patience =
    Patience { dead_after: Duration::from_secs(1), refused_after: Duration::from_millis(150) };

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
    assert_eq!(members.expire(at(1001)), [Change::Lost(SHARD), Change::Lost(WORKER)]);
    assert_eq!(members.workers(), []);
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
