//! Copies that die, come, and catch up.

use super::*;

impl World {
    /// A primary says that these servers have caught up.
    pub(super) fn caught_up(&mut self, shard: u32, servers: &[u32]) -> Vec<Command> {
        let report = ReportShard {
            view: self.training.view,
            copy: self.primary(shard),
            version: Version(1),
            synced: servers.iter().copied().map(ServerId).collect(),
            ledger: None,
            bytes: BytesMoved::default(),
        };
        let (answer, commands) = self.training.report_shard(report);
        answer.unwrap();
        commands
    }

    pub(super) fn duty(&self, shard: u32, server: u32) -> Duty {
        self.adopted[&copy(shard, server)].appointment.duty.clone()
    }
}

#[test]
fn the_replica_of_a_lost_primary_takes_its_place_and_nobody_goes_back() {
    let mut world = World::with(CodecKind::None, 2, 1);
    world.lives.remove(&SERVERS[0]);
    world.pass(5);
    let status = world.training.status();
    assert_eq!((status.progress, status.rollbacks, status.promotions), (Progress::Running, 0, 1));
    let alone = Duty::Primary { replicas: Vec::new(), learners: Vec::new() };
    assert_eq!(world.duty(0, 1), alone);
    assert_eq!(world.leases[&WorkerId(0)].primaries, [ServerId(1); 2]);
    assert_eq!(world.leases[&WorkerId(0)].lineage, View(1));
}

#[test]
fn a_server_that_comes_back_learns_and_counts_when_its_primary_says_so() {
    let mut world = World::with(CodecKind::None, 2, 1);
    world.lives.remove(&SERVERS[0]);
    world.pass(5);
    world.lives.insert(SERVERS[0], 2);
    world.pass(1);
    assert_eq!((world.duty(0, 0), world.duty(1, 0)), (Duty::Learner, Duty::Learner));
    assert_eq!(world.training.status().replicas, 0);
    let commands = world.caught_up(0, &[0]);
    world.inbox.extend(commands);
    world.pass(1);
    // A replica again, and at once the primary: server 1 had both.
    let first = Duty::Primary { replicas: vec![ServerId(1)], learners: Vec::new() };
    assert_eq!((world.duty(0, 0), world.training.status().handovers), (first, 1));
}

#[test]
fn a_server_that_restarts_unseen_is_not_taken_for_one_that_has_its_state() {
    let mut world = World::with(CodecKind::None, 3, 1);
    world.lives.insert(SERVERS[1], 2);
    world.pass(1);
    let status = world.training.status();
    assert_eq!((status.rollbacks, status.promotions), (0, 1));
    assert_eq!(world.training.holders[1].primary, ServerId(2));
    assert!(world.training.holders[0].learners.len() == 1, "{:?}", world.training.holders);
}

#[test]
fn a_learner_that_caught_up_before_its_primary_died_takes_its_place() {
    let mut world = World::with(CodecKind::None, 2, 1);
    world.lives.insert(SERVERS[1], 2);
    world.pass(1);
    assert_eq!(world.duty(0, 1), Duty::Learner);
    // The view that makes it a replica is on its way when the primary dies.
    let raise = world.caught_up(0, &[1]);
    assert!(matches!(raise[..], [Command::RaiseView { .. }]), "{raise:?}");
    let _ = world.caught_up(1, &[1]);
    world.lives.remove(&SERVERS[0]);
    world.inbox.extend(raise);
    world.pass(1);
    let commands = world.caught_up(1, &[1]);
    world.inbox.extend(commands);
    world.pass(6);
    let status = world.training.status();
    assert_eq!((status.progress, status.rollbacks), (Progress::Running, 0));
}

#[test]
fn primary_and_replica_lost_together_roll_everyone_back() {
    let mut world = World::with(CodecKind::None, 3, 1);
    world.save(4);
    world.lives.remove(&SERVERS[0]);
    world.lives.insert(SERVERS[1], 2);
    world.now += Duration::from_secs(1);
    world.pass(10);
    let status = world.training.status();
    assert_eq!((status.progress, status.rollbacks), (Progress::Running, 1));
    assert_eq!(world.restored[&ShardId(0)], Version(4));
    assert!(world.training.holders.iter().all(|held| held.replicas.len() == 1));
}

#[test]
fn a_copy_that_answers_that_it_has_no_state_is_done_without() {
    let mut world = World::with(CodecKind::None, 2, 1);
    world.lives.remove(&WORKERS[0]);
    world.now += Duration::from_secs(2);
    for process in [SERVERS[0], SERVERS[1], WORKERS[1]] {
        world.beat(process, 1);
    }
    let raise = world.training.tick(world.now);
    assert!(matches!(raise[..], [Command::RaiseView { .. }]), "{raise:?}");
    world.training.view_raised(View(2));
    let empty = Err(RestoreError::NotReady(copy(0, 0)));
    let raise = world.training.copy_answered(copy(0, 0), View(2), &empty);
    assert!(matches!(raise[..], [Command::RaiseView { .. }]), "{raise:?}");
    world.stored_view = View(2);
    world.inbox.extend(raise);
    world.pass(1);
    assert_eq!(world.training.holders[0].primary, ServerId(1));
    assert_eq!(world.duty(0, 0), Duty::Learner);
}

#[test]
fn all_workers_may_leave_and_the_shards_wait_for_the_next_one() {
    let mut world = World::with(CodecKind::None, 2, 1);
    world.lives.retain(|process, _| !WORKERS.contains(process));
    world.pass(5);
    let status = world.training.status();
    assert_eq!((status.progress, status.rollbacks), (Progress::Running, 0));
    world.lives.insert(WORKERS[1], 2);
    world.pass(1);
    assert_eq!(world.spans(), [(0, 4)]);
    assert_eq!(world.leases[&WorkerId(1)].lineage, View(1));
}

#[test]
fn workers_of_a_lossy_job_keep_their_slots_when_a_primary_dies() {
    let mut world = World::with(CodecKind::TopK, 2, 1);
    world.lives.remove(&SERVERS[0]);
    world.pass(5);
    assert_eq!(world.training.status().rollbacks, 0);
    assert_eq!(world.spans(), [(0, 2), (2, 4)]);
    assert_eq!(world.leases[&WorkerId(1)].view, View(2));
}

/// Its primary may have made commits wait for the life before.
#[test]
fn a_learner_that_restarts_is_appointed_anew() {
    let mut world = World::with(CodecKind::None, 2, 1);
    world.lives.insert(SERVERS[1], 2);
    world.pass(1);
    assert_eq!(world.duty(0, 1), Duty::Learner);
    let before = world.training.view;
    world.lives.insert(SERVERS[1], 3);
    world.pass(1);
    assert_eq!(world.adopted[&copy(0, 1)].appointment.view, before.next().unwrap());
    assert_eq!(world.duty(0, 1), Duty::Learner);
}

#[test]
fn a_copy_that_is_lost_while_a_view_is_raised_is_not_waited_for() {
    let mut world = World::with(CodecKind::None, 3, 1);
    world.lives.remove(&WORKERS[0]);
    world.now += Duration::from_secs(2);
    for process in [SERVERS[0], SERVERS[1], Process::Server(2), WORKERS[1]] {
        world.beat(process, 1);
    }
    let raise = world.training.tick(world.now);
    assert!(matches!(raise[..], [Command::RaiseView { .. }]), "{raise:?}");
    // Server 0 is silent from here on: noticed before the view is there, and never again.
    world.lives.remove(&SERVERS[0]);
    world.now += Duration::from_millis(900);
    for process in [SERVERS[1], Process::Server(2), WORKERS[1]] {
        world.beat(process, 1);
    }
    world.now += Duration::from_millis(200);
    assert_eq!(world.training.tick(world.now), []);
    // The dead will not answer: the next view is raised without a word to anyone in this one.
    let next = world.training.view_raised(View(2));
    assert!(matches!(next[..], [Command::RaiseView { above: View(2), .. }]), "{next:?}");
    world.stored_view = View(2);
    world.inbox.extend(next);
    world.carry_out();
    assert_eq!(world.training.status().progress, Progress::Running);
    assert_eq!(world.training.holders[0].primary, ServerId(1));
}
