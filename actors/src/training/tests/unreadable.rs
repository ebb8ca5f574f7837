//! Checkpoints that the store takes for whole and that a member can't restore.

use super::reports::failure;
use super::*;

/// A checkpoint of version 4 that shards answer this to, and a server that has just restarted.
fn world(error: RestoreError) -> World {
    let mut world = World::new(CodecKind::None);
    world.save(4);
    world.unreadable = Some((Version(4), error));
    world.lives.insert(SERVERS[1], 2);
    world
}

fn damaged() -> RestoreError {
    RestoreError::Checkpoint { cause: "momentum is not there".into() }
}

#[test]
fn a_checkpoint_that_a_shard_can_not_restore_is_passed_over_instead_of_tried_for_ever() {
    let mut world = world(damaged());
    world.pass(30);
    assert_eq!(world.training.status().progress, Progress::Running);
    assert_eq!(world.restored[&ShardId(1)], Version(0));
    assert_eq!(world.stored_view, View(3), "one view for the try and one for what is before it");
}

#[test]
fn a_checkpoint_that_was_passed_over_counts_again_when_it_is_written_anew() {
    let mut world = world(damaged());
    world.pass(30);
    world.unreadable = None;
    world.save(4);
    world.lives.insert(SERVERS[1], 3);
    world.pass(2);
    assert_eq!(world.restored[&ShardId(1)], Version(4));
}

#[test]
fn a_store_that_can_not_be_read_for_a_while_costs_no_checkpoint_and_no_view() {
    let mut world = world(RestoreError::Store { cause: "no such mount".into() });
    world.pass(30);
    assert_eq!(world.training.status().progress, Progress::Assigning);
    world.unreadable = None;
    world.pass(2);
    assert_eq!(world.training.status().progress, Progress::Running);
    assert_eq!((world.restored[&ShardId(1)], world.stored_view), (Version(4), View(2)));
}

#[test]
fn residuals_that_a_worker_can_not_read_cost_that_checkpoint() {
    let mut world = World::new(CodecKind::TopK);
    world.save(4);
    world.lives.insert(SERVERS[1], 2);
    world.pass(2);
    let report = ReportFailure { view: View(2), ..failure(FailureKind::Checkpoint) };
    world.training.report_failure(report).0.unwrap();
    world.pass(2);
    assert_eq!(world.leases[&WorkerId(0)].rolled_back_to, Version(0));
}
