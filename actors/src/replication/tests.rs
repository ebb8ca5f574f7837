//! What is sent to whom, and what a commit waits for.

use super::*;
use crate::ids::Version;

const REPLICA: ServerId = ServerId(1);
const LEARNER: ServerId = ServerId(2);

fn update(step: u64) -> Arc<Update> {
    let (step, gradient) = (Version(step), Arc::new(vec![0.0]));
    Arc::new(Update { step, sum_of_squares: None, reports: Vec::new(), gradient })
}

/// A primary at version 5 that knows its newest step.
fn followers() -> Followers {
    Followers::new(&[REPLICA], &[LEARNER], 5, Some(&update(4)))
}

fn steps(due: Vec<(ServerId, Next)>, to: ServerId) -> Vec<Next> {
    due.into_iter().filter(|(server, _)| *server == to).map(|(_, next)| next).collect()
}

#[test]
fn a_replica_of_a_new_view_is_sent_the_newest_step_before_anything_is_committed() {
    let mut followers = followers();
    assert!(!followers.have(5));
    assert_eq!(steps(followers.due(), REPLICA), [Next::Update(update(4))]);
    followers.answered(REPLICA, 5, 5);
    assert!(followers.have(5));
}

#[test]
fn a_primary_that_knows_no_step_was_restored_with_its_replicas() {
    let followers = Followers::new(&[REPLICA], &[], 5, None);
    assert!(followers.have(5));
    assert!(!followers.have(6));
}

#[test]
fn one_thing_at_a_time_is_under_way_and_steps_go_in_their_order() {
    let mut followers = Followers::new(&[REPLICA], &[], 5, None);
    [5, 6].iter().for_each(|step| followers.push(&update(*step)));
    assert_eq!(followers.due(), [(REPLICA, Next::Update(update(5)))]);
    assert_eq!(followers.due(), []);
    // Nobody knows what became of it: the same again.
    followers.unanswered(REPLICA);
    assert_eq!(followers.due(), [(REPLICA, Next::Update(update(5)))]);
    followers.answered(REPLICA, 6, 7);
    assert_eq!(followers.due(), [(REPLICA, Next::Update(update(6)))]);
}

#[test]
fn a_learner_without_state_is_filled_and_sent_what_came_meanwhile() {
    let mut followers = followers();
    followers.due();
    followers.refused(LEARNER);
    assert_eq!(steps(followers.due(), LEARNER), [Next::Fill]);
    followers.filling(LEARNER, 5);
    followers.push(&update(5));
    followers.answered(LEARNER, 5, 6);
    assert_eq!(steps(followers.due(), LEARNER), [Next::Update(update(5))]);
}

#[test]
fn a_learner_counts_after_two_steps_of_its_own_and_is_then_waited_for() {
    let mut followers = Followers::new(&[], &[LEARNER], 5, None);
    followers.due();
    followers.filling(LEARNER, 5);
    followers.answered(LEARNER, 5, 5);
    // It lacks the versions before, which a worker may need.
    for step in [5, 6] {
        assert_eq!(followers.synced(step), []);
        assert!(followers.have(step + 1), "nobody waits for it yet");
        followers.push(&update(step));
        followers.answered(LEARNER, step + 1, step + 1);
    }
    assert_eq!(followers.synced(7), [LEARNER]);
    assert!(!followers.have(8));
    assert_eq!(followers.synced(8), [], "it lacks what was committed");
}

#[test]
fn a_fill_that_is_slower_than_the_steps_holds_them_up_before_memory_runs_out() {
    let mut followers = Followers::new(&[], &[LEARNER], 0, None);
    followers.due();
    followers.filling(LEARNER, 0);
    (0..QUEUE_MAX as u64).for_each(|step| followers.push(&update(step)));
    assert!(followers.have(QUEUE_MAX as u64));
    followers.push(&update(QUEUE_MAX as u64));
    assert!(!followers.have(QUEUE_MAX as u64 + 1));
    followers.answered(LEARNER, 5, QUEUE_MAX as u64 + 1);
    assert!(followers.have(QUEUE_MAX as u64 + 1));
}
