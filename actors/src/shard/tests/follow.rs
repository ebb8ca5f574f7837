//! A copy that follows, and one that takes its primary's place.

use super::*;
use crate::ids::{ServerId, ShardCopy};
use crate::messages::ReplicateError;

const TO: ShardCopy = ShardCopy { shard: ShardId(0), server: ServerId(1) };

fn adam() -> JobSpec {
    let mut job = job();
    job.optimizer.kind = crate::job::OptimizerKind::Adam;
    job
}

fn pair() -> (Shard, Shard) {
    let plan = plan(adam(), 1);
    let state = || ShardState {
        version: Version(0),
        parameters: (0..600).map(|i| i as f32 / 100.0).collect(),
        optimizer: vec![vec![0.0; 600]; 2],
        ledger: Ledger::default(),
    };
    let shard = || Shard::new(ShardId(0), Arc::clone(&plan), 4, View(1), state());
    (shard(), shard())
}

fn step(primary: &mut Shard) -> Arc<Update> {
    let plan = Arc::clone(&primary.plan);
    primary.accept(&push(&plan, 0, primary.version.0, 0..4)).unwrap();
    primary.aggregate().unwrap();
    primary.apply(None, true).unwrap().unwrap()
}

fn same(one: &Shard, other: &Shard) -> bool {
    (one.checksum(), &one.ledger, one.version) == (other.checksum(), &other.ledger, other.version)
}

#[test]
fn a_copy_that_follows_has_the_same_bits_and_counts() {
    let (mut primary, mut replica) = pair();
    for _ in 0..3 {
        let update = step(&mut primary);
        assert_eq!(replica.follow(TO, &update), Ok(primary.applied()));
        primary.commit();
        assert!(same(&primary, &replica));
    }
    assert_eq!(replica.ledger.rows, 12 * ROWS);
}

#[test]
fn a_step_that_comes_twice_is_applied_once_and_one_ahead_not_at_all() {
    let (mut primary, mut replica) = pair();
    let first = step(&mut primary);
    primary.commit();
    let second = step(&mut primary);
    let ahead = replica.follow(TO, &second);
    assert_eq!(ahead, Err(ReplicateError::Ahead { step: Version(1), applied: 0 }));
    assert_eq!(replica.follow(TO, &first), Ok(1));
    assert_eq!(replica.follow(TO, &first), Ok(1));
    assert_eq!(replica.follow(TO, &second), Ok(2));
    assert!(same(&primary, &replica));
}

#[test]
fn what_is_applied_is_seen_and_the_next_step_waits_until_it_is_committed() {
    let (mut primary, _) = pair();
    step(&mut primary);
    let plan = Arc::clone(&primary.plan);
    assert_eq!(newest(&mut primary).version, Version(1));
    assert_eq!(primary.committed(), Version(0));
    assert_eq!(primary.accept(&push(&plan, 0, 0, 0..2)), Ok(Accepted::Applied));
    assert_eq!(primary.at_or_newest(Version(0)).version, Version(0));
    assert_eq!(primary.accept(&push(&plan, 0, 1, 0..4)), Ok(Accepted::Waiting));
    assert!(!primary.is_complete());
    primary.commit();
    assert!(primary.is_complete());
}

#[test]
fn a_promoted_copy_goes_on_when_the_others_have_its_newest_step() {
    let (mut primary, mut replica) = pair();
    let update = step(&mut primary);
    replica.follow(TO, &update).unwrap();
    replica.lead(View(2), true);
    let plan = Arc::clone(&replica.plan);
    let next = PushGradient { view: View(2), ..push(&plan, 0, 1, 0..4) };
    assert_eq!(replica.accept(&next), Ok(Accepted::Waiting));
    replica.commit();
    assert!(replica.is_complete());
    // Alone it needs nobody.
    let (_, mut alone) = pair();
    alone.follow(TO, &update).unwrap();
    alone.lead(View(2), false);
    assert_eq!(alone.accept(&next), Ok(Accepted::Complete));
}

/// The newest step was seen, and is lost with its primary: whoever computed on it starts again from
/// the replica, which makes the same bits of the same gradients.
#[test]
fn a_step_that_was_lost_before_it_was_committed_is_made_again() {
    let (mut primary, mut replica) = pair();
    let first = step(&mut primary);
    replica.follow(TO, &first).unwrap();
    primary.commit();
    step(&mut primary);
    let seen = newest(&mut primary);
    replica.lead(View(2), false);
    let plan = Arc::clone(&replica.plan);
    let ahead = PushGradient { view: View(2), ..push(&plan, 0, 2, 0..4) };
    let refused = replica.accept(&ahead);
    assert_eq!(refused, Err(PushError::OutOfWindow { got: Version(2), version: Version(1) }));
    let again = PushGradient { view: View(2), ..push(&plan, 0, 1, 0..4) };
    replica.accept(&again).unwrap();
    replica.aggregate().unwrap();
    replica.apply(None, true).unwrap();
    assert_eq!(newest(&mut replica), seen);
}

#[test]
fn a_copy_that_is_filled_in_the_middle_goes_on_with_the_same_bits() {
    let (mut primary, _) = pair();
    for _ in 0..2 {
        step(&mut primary);
        primary.commit();
    }
    let (fill, applied) = primary.fill(TO, 1).unwrap();
    assert_eq!(applied, 2);
    let mut learner = Shard::filled(Arc::clone(&primary.plan), fill).unwrap();
    assert!(same(&primary, &learner));
    let update = step(&mut primary);
    learner.follow(TO, &update).unwrap();
    assert!(same(&primary, &learner));
}

#[test]
fn a_fill_or_a_step_that_is_not_this_shards_is_refused_and_changes_nothing() {
    let (mut primary, mut replica) = pair();
    let (mut fill, _) = primary.fill(TO, 1).unwrap();
    fill.vectors.pop();
    let plan = Arc::clone(&primary.plan);
    assert!(matches!(Shard::filled(plan, fill), Err(ReplicateError::Wrong { .. })));
    let before = replica.checksum();
    let good = (*step(&mut primary)).clone();
    let spoiled = [
        Update { gradient: Arc::new(vec![0.0; 599]), ..good.clone() },
        Update { gradient: Arc::new(vec![f32::NAN; 600]), ..good.clone() },
        Update { reports: good.reports[1..].to_vec(), ..good.clone() },
        Update { reports: vec![good.reports[0]; 4], ..good },
    ];
    for update in spoiled {
        let refused = replica.follow(TO, &Arc::new(update));
        assert!(matches!(refused, Err(ReplicateError::Wrong { .. })), "{refused:?}");
    }
    assert_eq!((replica.checksum(), replica.applied()), (before, 0));
}

#[test]
fn a_primary_that_steps_down_forgets_the_step_in_flight_and_follows() {
    let (mut primary, mut next) = pair();
    let plan = Arc::clone(&primary.plan);
    primary.accept(&push(&plan, 0, 0, 0..3)).unwrap();
    primary.stand_by(View(2));
    next.lead(View(2), true);
    let later = PushGradient { view: View(2), ..push(&plan, 0, 0, 0..4) };
    next.accept(&later).unwrap();
    next.aggregate().unwrap();
    let update = next.apply(None, true).unwrap().unwrap();
    primary.follow(TO, &update).unwrap();
    assert!(same(&primary, &next));
}
