//! Peers that shook hands, and say what can't be.

use super::reports::failure;
use super::*;
use crate::ids::Slot;
use crate::ledger::EpochRecord;
use crate::messages::LeaseError;

fn shard(shard: u32, version: u64) -> ReportShard {
    ReportShard {
        view: View(1),
        copy: copy(shard, shard.min(1)),
        synced: Vec::new(),
        version: Version(version),
        ledger: None,
        bytes: BytesMoved::default(),
    }
}

fn part(content: PartContent, version: u64, shard: Option<ReportShard>) -> ReportPart {
    let part = SavedPart { content, path: String::new(), bytes: 1, digest: String::new() };
    ReportPart { view: View(1), version: Version(version), part, shard }
}

fn residuals(slots: &[u32], version: u64) -> ReportPart {
    let slots = slots.iter().copied().map(Slot).collect();
    part(PartContent::Residuals { slots }, version, None)
}

fn range(start: usize, end: usize, version: u64, owner: u32) -> ReportPart {
    part(PartContent::Parameters { start, end }, version, Some(shard(owner, version)))
}

#[test]
fn members_beyond_the_configuration_are_refused_with_the_key_that_counts_them() {
    let mut world = World::new(CodecKind::None);
    for (member, key) in [
        (Member::Copy(copy(2, 0)), "servers.shards is 2"),
        (Member::Copy(copy(0, 2)), "role server is 2"),
        (Member::Worker(WorkerId(2)), "workers.count is 2"),
    ] {
        let heartbeat = Heartbeat {
            node: "stranger".into(),
            life: Incarnation(1),
            members: vec![(Member::Worker(WorkerId(0)), Incarnation(9)), (member, Incarnation(1))],
            number: 1,
            offer: Some(Box::new(offer(world.training.job.clone()))),
        };
        let Heard { answer, commands, .. } = world.training.heartbeat(&heartbeat, world.now);
        let refused = answer.unwrap_err().to_string();
        assert!(refused.contains(key), "{refused}");
        assert_eq!(commands, [], "nobody of that node counts");
    }
    world.pass(2);
    assert_eq!(world.training.status().lost, 0);
}

#[test]
fn shards_that_do_not_exist_and_versions_that_never_come_are_refused() {
    let mut world = World::new(CodecKind::None);
    let (refused, _) = world.training.report_shard(shard(2, 1));
    assert_eq!(refused, Err(ReportError::NoSuchShard { got: ShardId(2), shards: 2 }));
    let (refused, _) = world.training.report_shard(shard(1, 19));
    let (got, last) = (Version(19), Version(18));
    assert_eq!(refused, Err(ReportError::BeyondLast { got, last }));
    assert_eq!(world.training.status().version, Version(0));
}

#[test]
fn the_ledger_is_the_first_shards_and_has_no_more_epochs_than_the_job() {
    let mut world = World::new(CodecKind::None);
    let ledger = Some(Ledger { rows: 5, ..Ledger::default() });
    let (refused, _) = world.training.report_shard(ReportShard { ledger, ..shard(1, 1) });
    assert_eq!(refused, Err(ReportError::NotItsLedger { got: ShardId(1) }));
    let (train_loss, test_loss, test_accuracy) = (0.0, None, None);
    let epoch = EpochRecord { epoch: 1, rows: 1, train_loss, test_loss, test_accuracy };
    let ledger = Some(Ledger { finished: vec![epoch; 4], ..Ledger::default() });
    let (refused, _) = world.training.report_shard(ReportShard { ledger, ..shard(0, 1) });
    assert_eq!(refused, Err(ReportError::TooManyEpochs { got: 4, epochs: 3 }));
    assert_eq!(world.training.status().ledger, Ledger::default());
}

#[test]
fn parts_of_versions_that_are_not_saved_are_refused() {
    let mut world = World::new(CodecKind::None);
    for version in [0, 3, 20] {
        let refused = world.training.report_part(range(0, 256, version, 0)).0;
        let (got, last) = (Version(version), Version(18));
        assert_eq!(refused, Err(ReportError::NotSaved { got, every: 4, last }));
    }
    world.training.report_part(range(0, 256, 18, 0)).0.unwrap();
}

#[test]
fn a_shard_saves_its_own_range_and_nothing_else() {
    let mut world = World::new(CodecKind::None);
    for (start, end, owner) in [(0, 600, 0), (0, 256, 1), (256, 601, 1)] {
        let refused = world.training.report_part(range(start, end, 4, owner)).0;
        assert!(matches!(refused, Err(ReportError::WrongRange { .. })), "{refused:?}");
    }
    let refused = world.training.report_part(range(0, 256, 4, 7)).0;
    assert!(matches!(refused, Err(ReportError::NoSuchShard { .. })), "{refused:?}");
    let nobodys = part(PartContent::Parameters { start: 0, end: 256 }, 4, None);
    assert_eq!(world.training.report_part(nobodys).0, Err(ReportError::NobodysRange));
    assert!(world.training.collected.is_empty());
}

#[test]
fn residuals_of_slots_that_the_job_does_not_have_are_refused() {
    let mut world = World::new(CodecKind::TopK);
    let refused = world.training.report_part(residuals(&[3, 4], 4)).0;
    assert_eq!(refused, Err(ReportError::WrongSlot { got: Slot(4), slots: 4 }));
    let mut world = World::new(CodecKind::None);
    let refused = world.training.report_part(residuals(&[0], 4)).0;
    assert_eq!(refused, Err(ReportError::WrongSlot { got: Slot(0), slots: 0 }));
}

#[test]
fn residuals_that_were_reported_wrongly_are_replaced_by_the_right_ones() {
    let mut world = World::new(CodecKind::TopK);
    world.training.report_part(residuals(&[1, 2], 4)).0.unwrap();
    world.save(4);
    assert_eq!(world.training.status().checkpoint, Some(Version(4)));
}

#[test]
fn parts_are_collected_of_a_bounded_number_of_checkpoints() {
    let mut world = World::new(CodecKind::None);
    world.training.config.checkpoint_every = 1;
    world.training.plan.as_mut().unwrap().offer.job.epochs = 1000;
    for version in 1..=100 {
        world.training.report_part(range(0, 256, version, 0)).0.unwrap();
    }
    let collected = &world.training.collected;
    assert_eq!(collected.len(), COLLECTED_MAX);
    assert!(collected.contains_key(&Version(100)));
}

#[test]
fn reports_before_the_first_view_are_refused() {
    let mut world = World::new(CodecKind::None);
    let config = world.training.config.clone();
    world.training = Training::new(world.training.job.clone(), config, "run-2".into());
    let (refused, _) = world.training.report_shard(ReportShard { view: View(0), ..shard(0, 1) });
    assert_eq!(refused, Err(ReportError::StaleView { got: View(0), current: View(0) }));
}

#[test]
fn a_failure_of_a_worker_that_does_not_exist_is_not_believed() {
    let mut world = World::new(CodecKind::None);
    let report = ReportFailure { worker: WorkerId(2), ..failure(FailureKind::Lasting) };
    let refused = world.training.report_failure(report).0;
    assert_eq!(refused, Err(ReportError::NoSuchWorker { got: WorkerId(2), workers: 2 }));
    assert_eq!(world.training.status().progress, Progress::Running);
}

#[test]
fn a_lease_that_a_worker_can_never_take_ends_the_run_with_the_cause() {
    for refused in [
        LeaseError::WrongShards { expected: 3, got: 2 },
        LeaseError::WrongSlots { got: Span { first: 0, end: 4 }, slots: 2 },
    ] {
        let mut world = World::new(CodecKind::None);
        world.training.worker_answered(WorkerId(1), View(1), &Err(refused.clone()));
        let Progress::Failed { cause } = world.training.status().progress else {
            panic!("{:?}", world.training.status())
        };
        assert!(cause.contains("worker-1") && cause.contains(&refused.to_string()), "{cause}");
    }
}

#[test]
fn nodes_that_are_remembered_are_bounded_and_those_forgotten_are_asked_again() {
    let mut world = World::new(CodecKind::None);
    for node in 0..2 * OFFERS_MAX {
        let heartbeat = Heartbeat {
            node: node.to_string(),
            life: Incarnation(1),
            members: Vec::new(),
            number: 1,
            offer: Some(Box::new(offer(world.training.job.clone()))),
        };
        world.training.heartbeat(&heartbeat, world.now).answer.unwrap();
    }
    assert!(world.training.recoveries.offered.len() <= OFFERS_MAX);
    world.pass(2);
    assert_eq!(world.training.status().progress, Progress::Running);
}
