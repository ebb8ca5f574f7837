//! What workers and shards report: failures, progress, bytes.

use super::*;

pub(super) fn failure(kind: FailureKind) -> ReportFailure {
    ReportFailure { view: View(1), worker: WorkerId(0), kind, cause: "not finite".into() }
}

#[test]
fn a_worker_that_can_not_read_its_checkpoint_makes_all_go_back_to_one_that_can_be_read() {
    let mut world = World::new(CodecKind::TopK);
    world.save(4);
    let before = world.stored.clone();
    world.save(8);
    world.stored = before;
    let (answer, commands) = world.training.report_failure(failure(FailureKind::Checkpoint));
    assert_eq!((answer, &commands[..]), (Ok(()), &[][..]));
    world.pass(2);
    assert_eq!(world.leases[&WorkerId(0)].rolled_back_to, Version(4));
}

#[test]
fn a_failure_that_would_repeat_ends_the_run_with_its_cause() {
    let mut world = World::new(CodecKind::None);
    world.training.report_failure(failure(FailureKind::Lasting)).0.unwrap();
    world.pass(30);
    let failed = Progress::Failed { cause: "not finite".into() };
    assert_eq!(world.training.status().progress, failed);
}

#[test]
fn a_late_report_of_a_checkpoint_does_not_turn_progress_back() {
    let mut world = World::new(CodecKind::None);
    let report = |version: u64, pushed: u64| ReportShard {
        view: View(1),
        copy: copy(0, 0),
        synced: Vec::new(),
        version: Version(version),
        ledger: Some(Ledger { rows: version, ..Ledger::default() }),
        bytes: BytesMoved { pushed, pushed_dense: pushed, pulled: pushed, replicated: 0 },
    };
    world.training.report_shard(report(9, 900)).0.unwrap();
    world.training.report_shard(report(8, 800)).0.unwrap();
    let status = world.training.status();
    assert_eq!((status.bytes.pushed, status.ledger.rows), (900, 9));
}

#[test]
fn bytes_of_rolled_back_steps_count_too() {
    let mut world = World::new(CodecKind::None);
    let report = |view: u64, pushed: u64| ReportShard {
        view: View(view),
        copy: copy(0, 0),
        synced: Vec::new(),
        version: Version(1),
        ledger: None,
        bytes: BytesMoved { pushed, ..BytesMoved::default() },
    };
    world.training.report_shard(report(1, 900)).0.unwrap();
    world.lives.insert(SERVERS[1], 2);
    world.pass(2);
    world.training.report_shard(report(2, 100)).0.unwrap();
    assert_eq!(world.training.status().bytes.pushed, 1000);
}
