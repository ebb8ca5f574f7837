//! One fault at a time, at a time of its own.

use gradmesh::sim::{
    Fault, Report, Seed, duplicate, fail_writes, flip_bit, kill, lose, partition, pause,
    power_loss, reorder, skew, stop,
};
use gradmesh_actors::training::{Cause, Event, EventKind};

use crate::{HARD, digits, digits_of_two_coordinators};

/// Runs under these faults and demands the calm digest.
#[track_caller]
fn survives(faults: impl IntoIterator<Item = Fault>) -> Report {
    let report = digits(HARD).faults(faults).must_pass(Seed(1));
    assert!(report.counts.faults_begun > 0, "{report}");
    report
}

#[test]
fn the_replica_of_a_killed_server_takes_its_place() {
    let report = survives([kill("ps-1").at("300ms").for_("500ms")]);
    assert!(report.promotions() > 0, "{report}");
    assert_eq!(report.training.unwrap().rollbacks, 0);
    assert_eq!(report.counts.restarts, 1);
}

/// A step that was shown and is lost with its primary is pushed again by workers who have gone on: their residuals
/// have too, so that they can't compute it anew.
#[test]
fn a_lost_step_is_pushed_again_from_what_its_workers_keep() {
    let mut promotions = 0;
    for at in (100..400).step_by(15) {
        let cut = lose("ps-1", "ps-0", 1000).at(&format!("{at}ms")).for_("30ms");
        let report = survives([cut, kill("ps-1").at(&format!("{}ms", at + 20)).for_("500ms")]);
        promotions += report.promotions();
        assert_eq!(report.training.as_ref().unwrap().rollbacks, 0, "killed at {at} ms: {report}");
    }
    assert!(promotions > 0);
}

/// By its heartbeats alone it would be missed after 1.5 s, as its address refuses calls.
#[test]
fn a_killed_server_has_hung_up_and_is_missed_before_its_next_heartbeat() {
    let slow = ["detector.heartbeat_ms=1000", "detector.dead_after_ms=3000"];
    let kill = kill("ps-1").at("300ms").for_("20s");
    let training = digits(&slow).faults([kill]).must_pass(Seed(1)).training.unwrap();
    let lost = |event: &&Event| matches!(event.kind, EventKind::Lost { .. });
    let lost = training.events.newest.iter().find(lost).unwrap();
    assert!((300..500).contains(&lost.at_ms), "{lost:?}");
    assert!(matches!(lost.cause, Some(Cause::Refused { ms: 300..500 })), "{lost:?}");
}

#[test]
fn a_server_and_its_replica_that_are_killed_together_are_rolled_back_to() {
    let both = ["ps-0", "ps-1"].map(|server| kill(server).at("300ms").for_("500ms"));
    let report = survives(both);
    assert!(report.training.unwrap().rollbacks > 0);
}

#[test]
fn a_killed_worker_leaves_its_slots_to_the_others() {
    let kill = kill("worker-0").at("300ms").for_("20s");
    let report = digits(&[]).faults([kill]).must_pass(Seed(1));
    let training = report.training.unwrap();
    assert_eq!((training.new_leases, training.rollbacks), (1, 0));
}

#[test]
fn a_coordinator_without_power_goes_on_from_its_store() {
    survives([power_loss("main").at("300ms").for_("1s")]);
}

#[test]
fn a_machine_that_has_power_again_listens_where_it_did() {
    let report = survives([power_loss("ps-1").at("300ms").for_("1s")]);
    assert_eq!(report.counts.restarts, 1, "{report}");
}

#[test]
fn everything_killed_at_once_goes_on_from_the_last_checkpoint() {
    let report = survives([kill("*").at("400ms").for_("1s")]);
    assert_eq!(report.counts.restarts, 5);
    assert!(report.training.unwrap().resumed_from.unwrap().0 > 0);
}

#[test]
fn a_paused_worker_comes_back_as_a_zombie_and_changes_nothing() {
    let report = survives([pause("worker-1").at("300ms").for_("10s")]);
    assert!(report.training.unwrap().lost > 0);
}

#[test]
fn a_paused_coordinator_holds_nobody_up_for_ever() {
    survives([pause("main").at("300ms").for_("10s")]);
}

/// Cut off for longer than the run may take.
fn cut_off_for_good(node: &str, from: &str) -> impl Iterator<Item = Fault> {
    partition(node, "*").map(|fault| fault.at(from).for_("300s")).into_iter()
}

#[test]
fn a_leader_that_reaches_nobody_but_the_store_gives_way_to_another_one() {
    let report = digits_of_two_coordinators(HARD)
        .faults(cut_off_for_good("main", "300ms"))
        .must_pass(Seed(1));
    assert!(report.counts.faults_begun > 0, "{report}");
}

/// Its next life knows nobody, and is told of a run that others took part in.
#[test]
fn a_leader_that_was_started_again_and_reaches_nobody_gives_way_too() {
    let kill = kill("main").at("300ms").for_("100ms");
    digits_of_two_coordinators(HARD)
        .faults(cut_off_for_good("main", "300ms").chain([kill]))
        .must_pass(Seed(1));
}

#[test]
fn servers_that_can_not_reach_each_other_wait_for_the_norm() {
    let [one, other] = partition("ps-0", "ps-1");
    survives([one.at("300ms").for_("5s"), other.at("300ms").for_("5s")]);
}

#[test]
fn a_node_that_is_asked_to_end_ends_and_comes_back() {
    survives([stop("ps-0").at("300ms").for_("500ms")]);
}

#[test]
fn lost_doubled_and_overtaken_messages_count_once() {
    let everywhere = [lose("*", "*", 20), duplicate("*", "*", 100), reorder("*", "*", 100)];
    survives(everywhere.map(|fault| fault.at("0s").for_("60s")));
}

#[test]
fn a_disk_that_fails_half_of_its_writes_is_written_again() {
    survives([fail_writes("*", 500).at("0s").for_("30s")]);
}

#[test]
fn a_flipped_bit_of_a_checkpoint_is_noticed_when_it_is_needed() {
    survives([
        flip_bit("checkpoints/v").at("350ms"),
        flip_bit("checkpoints/v").at("360ms"),
        kill("ps-0").at("400ms").for_("500ms"),
    ]);
}

#[test]
fn a_clock_that_is_set_back_makes_no_new_life_an_old_one() {
    survives([
        skew("ps-0", -3_600_000).at("300ms").for_("20s"),
        kill("ps-0").at("400ms").for_("500ms"),
    ]);
}
