//! Servers and workers that are to leave while the run goes on.

use super::*;
use crate::messages::{Drain, DrainError, Draining};

const THIRD: Process = Process::Server(2);

fn drain(servers: &[u32], workers: &[u32]) -> Drain {
    Drain {
        servers: servers.iter().copied().map(ServerId).collect(),
        workers: workers.iter().copied().map(WorkerId).collect(),
        back: false,
    }
}

fn back(drain: Drain) -> Drain {
    Drain { back: true, ..drain }
}

impl World {
    /// Asks, and lets everyone act.
    fn drain(&mut self, drain: &Drain) -> Result<Draining, DrainError> {
        let (answer, commands) = self.training.drain(drain);
        self.inbox.extend(commands);
        self.carry_out();
        self.told.extend(self.training.happened(self.now));
        answer
    }

    /// Asks again, how far it is.
    fn far(&mut self, drain: &Drain) -> Draining {
        let view = self.training.view;
        let answer = self.drain(drain).unwrap();
        assert_eq!(self.training.view, view, "the same request raised a view");
        answer
    }

    fn in_sync(&self) -> Vec<usize> {
        self.training.holders.iter().map(|held| held.in_sync().count()).collect()
    }

    fn fill(&mut self, shard: u32, server: u32) {
        let commands = self.caught_up(shard, &[server]);
        self.inbox.extend(commands);
        self.carry_out();
    }

    fn kinds(&self) -> Vec<&'static str> {
        self.told.iter().map(|event| event.kind.name()).collect()
    }
}

#[test]
fn a_server_that_leaves_hands_over_and_goes_when_another_one_has_its_copies() {
    let mut world = World::with(CodecKind::None, 3, 1);
    let request = drain(&[0], &[]);
    let first = world.drain(&request).unwrap();
    assert!(!first.settled, "{first:?}");
    assert_eq!(world.training.holders[0].primary, ServerId(1));
    assert_eq!(world.duty(0, 2), Duty::Learner);
    assert_eq!(world.in_sync(), [2, 2], "what it has stays until somebody else has it");
    let holds = world.far(&request).leaving[0].holds;
    assert_eq!((holds, world.far(&request).settled), (1, false));
    world.fill(0, 2);
    assert_eq!(world.in_sync(), [2, 2]);
    assert_eq!(world.duty(0, 0), Duty::Released);
    assert!(world.far(&request).settled);
    // Stopped now, it is missed by nobody.
    let view = world.training.view;
    world.lives.remove(&SERVERS[0]);
    world.pass(6);
    let status = world.training.status();
    // To server 1, and from there evenly.
    assert_eq!((status.promotions, status.rollbacks, status.handovers), (0, 0, 2));
    assert_eq!((status.view, status.progress), (view, Progress::Running));
}

#[test]
fn both_copies_may_leave_at_once_and_neither_goes_before_its_successor_is_there() {
    let mut world = World::with(CodecKind::None, 4, 1);
    let request = drain(&[0, 1], &[]);
    world.drain(&request).unwrap();
    for (shard, server) in [(0, 2), (0, 3), (1, 3)] {
        assert!(world.in_sync().iter().all(|copies| *copies >= 2), "{:?}", world.training.holders);
        if world.training.holders[shard as usize].learners.contains(&ServerId(server)) {
            world.fill(shard, server);
        }
    }
    world.pass(1);
    let draining = world.far(&request);
    assert!(draining.settled, "{draining:?} {:?}", world.training.holders);
    assert_eq!(world.in_sync(), [2, 2]);
    assert_eq!(world.training.status().promotions, 0);
}

#[test]
fn too_few_servers_for_all_replicas_is_said_and_no_reason_to_stay() {
    let mut world = World::with(CodecKind::None, 2, 1);
    let request = drain(&[0], &[]);
    let draining = world.drain(&request).unwrap();
    assert_eq!((draining.replicas, draining.wanted), (0, 1));
    assert!(world.far(&request).settled);
    assert_eq!(world.in_sync(), [1, 1]);
    // Back again, it is filled like a new one.
    world.drain(&back(request.clone())).unwrap();
    assert_eq!((world.duty(0, 0), world.far(&back(request)).replicas), (Duty::Learner, 1));
}

#[test]
fn slots_leave_a_worker_at_once_and_come_back_to_it() {
    let mut world = World::new(CodecKind::None);
    let request = drain(&[], &[0]);
    world.drain(&request).unwrap();
    assert_eq!(world.spans(), [(0, 0), (0, 4)]);
    assert!(world.far(&request).settled);
    world.lives.remove(&WORKERS[0]);
    world.pass(6);
    assert_eq!((world.training.view, world.training.status().rollbacks), (View(2), 0));
    // Started again, it stays out until it is called back.
    world.lives.insert(WORKERS[0], 2);
    world.pass(2);
    assert_eq!(world.training.view, View(2));
    world.drain(&back(request.clone())).unwrap();
    assert_eq!(world.spans(), [(0, 2), (2, 4)]);
    assert!(world.far(&back(request)).settled);
    let kinds = world.kinds();
    assert!(kinds.contains(&"leaving") && kinds.contains(&"back"), "{kinds:?}");
}

#[test]
fn slots_with_residuals_leave_a_worker_at_the_next_checkpoint() {
    let mut world = World::new(CodecKind::TopK);
    let request = drain(&[], &[0]);
    world.drain(&request).unwrap();
    assert_eq!(world.spans(), [(0, 2), (2, 4)]);
    assert_eq!((world.far(&request).leaving[0].holds, world.far(&request).settled), (2, false));
    world.save(4);
    world.pass(2);
    assert_eq!(world.spans(), [(0, 0), (0, 4)]);
    assert_eq!(world.leases[&WorkerId(1)].rolled_back_to, Version(4));
    assert!(world.far(&request).settled);
}

#[test]
fn slow_workers_give_nothing_to_one_that_leaves() {
    let mut world = World::new(CodecKind::TopK);
    world.drain(&drain(&[], &[1])).unwrap();
    world.save(4);
    world.pass(2);
    let pace = |us: u64| crate::messages::Pace {
        steps: 10,
        slots: 20,
        computing_ns: 20 * us * 1000,
        passed_ns: 80_000_000,
    };
    for _ in 0..12 {
        for (worker, us) in [(0, 4000), (1, 1000)] {
            let worker = WorkerId(worker);
            let report = crate::messages::ReportSpeed { worker, pace: pace(us) };
            world.training.report_speed(report).unwrap();
        }
        world.pass(1);
    }
    world.save(8);
    world.pass(2);
    assert_eq!((world.spans(), world.training.status().rollbacks), (vec![(0, 4), (0, 0)], 1));
}

#[test]
fn the_next_leader_knows_who_leaves_and_takes_their_slots_at_a_checkpoint() {
    let mut world = World::with(CodecKind::TopK, 3, 1);
    let request = drain(&[0], &[0]);
    world.drain(&request).unwrap();
    world.succeed();
    world.pass(1);
    assert_eq!(world.training.leaving.servers, BTreeSet::from([ServerId(0)]));
    assert!(!world.far(&request).settled);
    world.save(4);
    world.pass(2);
    assert_eq!(world.spans(), [(0, 0), (0, 4)]);
    assert!(world.training.holders.iter().all(|held| held.servers().all(|s| s != ServerId(0))));
    assert!(world.far(&request).settled);
}

#[test]
fn the_log_of_views_has_it_even_where_nothing_else_changes() {
    let mut world = World::new(CodecKind::TopK);
    let (_, raise) = world.training.drain(&drain(&[], &[0]));
    let [Command::RaiseView { state, .. }] = &raise[..] else { panic!("{raise:?}") };
    assert_eq!(state.leaving.workers, BTreeSet::from([WorkerId(0)]));
    // Before the entry is there, nobody may rely on it; what is sent again is the same.
    let later = drain(&[], &[0]);
    assert!(!world.training.drain(&later).0.unwrap().settled);
    let (_, none) = world.training.drain(&drain(&[0], &[]));
    assert_eq!((none, world.training.ask_store_again()), (Vec::new(), raise));
}

#[test]
fn whoever_is_to_leave_while_a_view_is_raised_leaves_in_the_one_after() {
    let mut world = World::with(CodecKind::None, 3, 1);
    world.lives.remove(&WORKERS[0]);
    world.now += Duration::from_secs(2);
    for process in [SERVERS[0], SERVERS[1], THIRD, WORKERS[1]] {
        world.beat(process, 1);
    }
    let raise = world.training.tick(world.now);
    assert!(matches!(raise[..], [Command::RaiseView { .. }]), "{raise:?}");
    let (answer, commands) = world.training.drain(&drain(&[0], &[]));
    assert_eq!((answer.unwrap().settled, commands), (false, Vec::new()));
    world.inbox.extend(raise);
    world.carry_out();
    assert_eq!(world.training.holders[0].primary, ServerId(1));
}

#[test]
fn a_start_from_a_checkpoint_neither_waits_for_those_who_left_nor_uses_them() {
    let mut world = World::with(CodecKind::TopK, 3, 1);
    world.save(4);
    world.drain(&drain(&[0], &[])).unwrap();
    world.lives.remove(&SERVERS[0]);
    world.pass(6);
    world.lives.insert(WORKERS[1], 2);
    world.pass(1);
    // At once: the one that is missing is to be missing.
    assert_eq!(world.training.status().progress, Progress::Running);
    assert_eq!(world.restored[&ShardId(0)], Version(4));
    world.lives.insert(SERVERS[0], 2);
    world.lives.insert(WORKERS[1], 3);
    world.pass(3);
    assert!(world.training.holders.iter().all(|held| held.servers().all(|s| s != ServerId(0))));
}

#[test]
fn those_who_left_go_on_where_nobody_else_is_there_any_more() {
    let mut world = World::with(CodecKind::None, 2, 1);
    world.save(4);
    world.drain(&drain(&[0], &[0])).unwrap();
    world.lives.remove(&SERVERS[1]);
    world.lives.remove(&WORKERS[1]);
    world.pass(16);
    let status = world.training.status();
    assert_eq!((status.progress, status.rollbacks), (Progress::Running, 1));
    assert_eq!(world.spans(), [(0, 4)]);
    world.lives.insert(SERVERS[1], 2);
    world.lives.insert(WORKERS[1], 2);
    world.pass(1);
    assert_eq!(world.spans(), [(0, 0), (0, 4)], "they leave again");
}

#[test]
fn the_last_ones_may_not_leave_and_it_is_said_why() {
    let mut world = World::with(CodecKind::None, 3, 1);
    let none = world.drain(&drain(&[0, 1, 2], &[])).unwrap_err();
    assert_eq!(none, DrainError::NoServerStays { servers: 3, leaving: 3 });
    assert!(none.to_string().contains("--back"), "{none}");
    world.drain(&drain(&[0], &[0])).unwrap();
    let none = world.drain(&drain(&[], &[1])).unwrap_err();
    assert_eq!(none, DrainError::NoWorkerStays { workers: 2, leaving: 2 });
    // Only server 1 lives that is not to leave.
    world.lives.remove(&THIRD);
    world.pass(6);
    assert!(world.drain(&drain(&[1], &[])).is_err());
    let strange = world.drain(&drain(&[3], &[])).unwrap_err();
    assert_eq!(strange, DrainError::NoSuchServer { got: ServerId(3), servers: 3 });
    let strange = world.drain(&drain(&[], &[2])).unwrap_err();
    assert_eq!(strange, DrainError::NoSuchWorker { got: WorkerId(2), workers: 2 });
    assert_eq!(
        world.training.leaving,
        Leaving { servers: BTreeSet::from([ServerId(0)]), workers: BTreeSet::from([WorkerId(0)]) }
    );
    // Who was let go is told how far it is, whoever else has died since.
    world.lives.remove(&WORKERS[1]);
    world.pass(6);
    world.drain(&drain(&[], &[0])).unwrap();
}

#[test]
fn a_run_that_is_over_needs_nobody() {
    let mut world = World::new(CodecKind::None);
    world.save(18);
    assert!(world.far(&drain(&[0], &[0, 1])).settled);
    let mut world = World::new(CodecKind::None);
    world.training.fail("broken".into());
    let failed = DrainError::Failed { cause: "broken".into() };
    assert_eq!(world.drain(&drain(&[0], &[])), Err(failed));
}

#[test]
fn members_that_the_configuration_no_longer_has_are_forgotten() {
    let mut world = World::with(CodecKind::None, 2, 1);
    world.drain(&drain(&[0], &[1])).unwrap();
    let config = TrainingConfig { workers: 1, ..world.training.config.clone() };
    let assignment = Assignment {
        recovery: Recovery::Continue,
        holders: world.training.holders.clone(),
        leases: BTreeMap::new(),
        leaving: world.training.leaving.clone(),
    };
    let state = world.training.state(&assignment);
    let job = &world.training.job;
    let next = Training::succession(Some((View(3), state)), job, &config, "b", "run-2");
    assert_eq!((next.leaving.servers.len(), next.leaving.workers.len()), (1, 0));
}
