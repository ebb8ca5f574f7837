//! A worker that is slow gives slots away, and no bit changes.

use gradmesh::sim::{Report, Seed, kill, slow};
use gradmesh_actors::training::EventKind;

use crate::{HARD, digits};

/// Slots of both workers at the end, of which the first was slow all the time: 19 ms a gradient.
fn slots(report: &Report) -> Vec<u32> {
    let training = report.training.as_ref().unwrap();
    training.shares.iter().map(|share| share.slots).collect()
}

#[test]
fn slots_leave_a_slow_worker_and_the_digest_is_the_calm_one() {
    let slow = || [slow("worker-0", 20).at("0s").for_("60s")];
    let report = digits(&[]).faults(slow()).must_pass(Seed(1));
    assert_eq!(slots(&report), [1, 7], "{report}");
    let training = report.training.as_ref().unwrap();
    let moved = |event: &&_| matches!(event, EventKind::Rebalanced { workers: 2 });
    let kinds: Vec<&EventKind> = training.events.newest.iter().map(|event| &event.kind).collect();
    assert_eq!(kinds.iter().copied().filter(moved).count(), 1, "{kinds:?}");
    assert_eq!((training.new_leases, training.rollbacks), (1, 0));
    let still = digits(&["workers.rebalance=false"]).faults(slow()).must_pass(Seed(1));
    assert_eq!(slots(&still), [4, 4]);
    assert!(report.took < still.took, "{:?} and {:?}", report.took, still.took);
    let again = digits(&[]).faults(slow()).must_pass(Seed(1));
    assert_eq!(again.trace_hash, report.trace_hash);
}

#[test]
fn slots_with_residuals_leave_a_slow_worker_at_a_checkpoint() {
    let slow = slow("worker-0", 20).at("0s").for_("60s");
    let report = digits(HARD).faults([slow]).must_pass(Seed(1));
    assert_eq!(slots(&report), [1, 7], "{report}");
}

#[test]
fn a_slow_worker_that_dies_after_slots_have_moved_changes_no_bit() {
    let slow = slow("worker-0", 20).at("0s").for_("60s");
    let kill = kill("worker-0").at("3.5s").for_("300ms");
    let report = digits(&[]).faults([slow, kill]).must_pass(Seed(1));
    assert!(report.training.unwrap().lost > 0);
}
