//! Another coordinator goes on where one was killed.

use super::*;
use crate::ids::CoordinatorId;

impl World {
    /// A coordinator dies, and another one reads the newest entry of the log of views.
    pub(super) fn succeed(&mut self) {
        let assignment = Assignment {
            recovery: Recovery::Continue,
            holders: self.training.holders.clone(),
            leases: self.training.leases.clone(),
            leaving: self.training.raised.clone(),
        };
        let state = self.training.state(&assignment);
        let newest = Some((self.training.view, state));
        let (job, config) = (self.training.job.clone(), self.training.config.clone());
        let state = Training::succession(newest, &job, &config, "second", "run-2");
        self.stored_view = self.stored_view.next().unwrap();
        let own = (CoordinatorId(1), "second".to_owned());
        let (training, commands) = Training::take_over(
            job,
            config,
            own,
            "run-2".into(),
            (self.stored_view, state),
            self.now,
        );
        self.training = training;
        self.inbox = commands;
        self.carry_out();
    }
}

#[test]
fn a_successor_goes_on_with_shards_and_leases_as_they_are() {
    let mut world = World::with(CodecKind::None, 2, 1);
    world.save(4);
    let before = (world.training.holders.clone(), world.spans());
    world.succeed();
    world.pass(1);
    let status = world.training.status();
    assert_eq!((status.progress, status.rollbacks, status.lost), (Progress::Running, 0, 0));
    assert_eq!((world.training.holders.clone(), world.spans()), before);
    assert_eq!(world.leases[&WorkerId(0)].leader, CoordinatorId(1));
    assert_eq!(world.leases[&WorkerId(0)].lineage, View(1));
    // The store was read meanwhile.
    assert_eq!(status.checkpoint, Some(Version(4)));
    assert_eq!(world.training.run, "run-1");
}

#[test]
fn a_server_that_died_while_nobody_led_is_missed_and_its_replica_takes_over() {
    let mut world = World::with(CodecKind::None, 2, 1);
    world.lives.remove(&SERVERS[0]);
    world.succeed();
    world.pass(6);
    let status = world.training.status();
    assert_eq!((status.progress, status.rollbacks, status.promotions), (Progress::Running, 0, 1));
}

#[test]
fn a_successor_that_finds_everything_gone_goes_back_to_the_checkpoint() {
    let mut world = World::with(CodecKind::None, 2, 1);
    world.save(8);
    world.lives.values_mut().for_each(|life| *life = 2);
    world.empty = true;
    world.succeed();
    world.empty = false;
    world.pass(8);
    assert_eq!(world.training.status().progress, Progress::Running);
    assert_eq!(world.restored[&ShardId(0)], Version(8));
    assert_eq!(world.training.run, "run-1");
}

#[test]
fn a_last_checkpoint_that_nobody_lived_to_publish_is_published_by_the_successor() {
    let mut world = World::with(CodecKind::None, 2, 1);
    for (start, end) in [(0, 256), (256, 600)] {
        world.report(18, PartContent::Parameters { start, end }, View(1)).unwrap();
    }
    let Some(Command::Commit(manifest)) = world.inbox.pop() else { panic!("{:?}", world.inbox) };
    world.stored = Some(*manifest);
    world.succeed();
    world.pass(1);
    let progress = world.training.status().progress;
    assert!(matches!(progress, Progress::Done(_)), "{progress:?}");
}

#[test]
fn parts_that_were_reported_to_the_dead_leader_count_when_they_are_reported_again() {
    let mut world = World::with(CodecKind::None, 2, 1);
    world.report(8, PartContent::Parameters { start: 0, end: 256 }, View(1)).unwrap();
    world.succeed();
    let early = world.report(8, PartContent::Parameters { start: 0, end: 256 }, View(2));
    assert_eq!(early, Err(ReportError::NotLeading), "nobody has said yet what is trained");
    world.pass(1);
    world.save(8);
    assert_eq!(world.training.status().checkpoint, Some(Version(8)));
}

#[test]
fn parts_of_a_checkpoint_that_was_removed_are_not_committed_by_a_successor() {
    let mut world = World::with(CodecKind::None, 2, 1);
    world.save(8);
    world.save(12);
    world.succeed();
    for (process, life) in world.lives.clone() {
        world.beat(process, life);
    }
    // The store is being searched.
    world.inbox.retain(|command| !matches!(command, Command::Open(_)));
    world.carry_out();
    for version in [8, 12, 16] {
        for (start, end) in [(0, 256), (256, 600)] {
            world.report(version, PartContent::Parameters { start, end }, View(2)).unwrap();
        }
    }
    let commits = |world: &World| {
        let of = |command: &Command| match command {
            Command::Commit(manifest) => Some(manifest.version.0),
            _ => None,
        };
        world.inbox.iter().filter_map(of).collect::<Vec<_>>()
    };
    assert_eq!(commits(&world), [0; 0]);
    let manifest = world.stored.clone();
    world.inbox = world.training.opened(Opened { manifest, finished: None });
    assert_eq!(commits(&world), [16]);
}

/// A successor that went on with a finished run would commit checkpoints whose parts are gone.
#[test]
fn a_finished_run_is_found_finished_though_a_view_is_raised_while_the_store_is_read() {
    let mut world = World::with(CodecKind::None, 2, 1);
    world.save(18);
    world.pass(2);
    assert!(world.finished.is_some());
    world.succeed();
    for (process, life) in world.lives.clone() {
        world.beat(process, life);
    }
    world.inbox.retain(|command| !matches!(command, Command::Open(_)));
    world.carry_out();
    // Somebody comes or goes.
    let raise = world.training.raise(Assignment {
        recovery: Recovery::Continue,
        holders: world.training.holders.clone(),
        leases: world.training.leases.clone(),
        leaving: world.training.raised.clone(),
    });
    let finished = world.finished.clone();
    let nothing = world.training.opened(Opened { manifest: None, finished });
    assert!(nothing.is_empty(), "{nothing:?}");
    for (start, end) in [(0, 256), (256, 600)] {
        let part = PartContent::Parameters { start, end };
        world.report(16, part, world.training.view).unwrap();
    }
    assert!(world.inbox.is_empty(), "{:?}", world.inbox);
    world.inbox = raise;
    world.carry_out();
    let status = world.training.status();
    assert!(matches!(status.progress, Progress::Done(_)), "{status:?}");
    assert_eq!(status.checkpoint, None);
}

#[test]
fn a_run_of_another_job_or_another_cut_leaves_nothing_to_take_over() {
    let world = World::with(CodecKind::None, 2, 1);
    let (job, config) = (world.training.job.clone(), world.training.config.clone());
    let state = Training::succession(None, &job, &config, "a", "run-1");
    let assigned = ClusterState { holders: world.training.holders.clone(), ..state };
    let next = |state: ClusterState, config: &TrainingConfig| {
        Training::succession(Some((View(3), state)), &job, config, "b", "run-2")
    };
    let same = next(assigned.clone(), &config);
    assert_eq!((same.holders.len(), same.lineage), (2, Some(View(3))));
    assert_eq!((same.life.as_str(), same.run.as_str()), ("b", "run-1"));
    let other = ClusterState { job_digest: "other".into(), ..assigned.clone() };
    assert_eq!(next(other, &config).run, "run-2");
    let fewer = TrainingConfig { servers: 1, ..config };
    assert!(next(assigned, &fewer).holders.is_empty());
}

#[test]
fn data_that_changed_while_nobody_led_is_trained_from_the_start() {
    let mut world = World::with(CodecKind::None, 2, 1);
    world.succeed();
    world.training.expected_data = Some("other".into());
    world.pass(4);
    assert_eq!(world.training.status().progress, Progress::Running);
    assert_eq!(world.training.run, "run-2");
    assert_eq!(world.restored[&ShardId(0)], Version(0));
}

#[test]
fn a_view_of_a_successor_that_has_heard_of_no_worker_keeps_what_data_is_trained_on() {
    let mut world = World::with(CodecKind::None, 2, 1);
    let trained = world.training.plan.as_ref().unwrap().offer.data.digest.clone();
    world.succeed();
    assert!(world.training.plan.is_none(), "nobody has said so yet");
    let assignment = Assignment {
        recovery: Recovery::Continue,
        holders: world.training.holders.clone(),
        leases: world.training.leases.clone(),
        leaving: world.training.raised.clone(),
    };
    assert_eq!(world.training.state(&assignment).data_digest, Some(trained));
}

/// Nobody has said yet that it still has its state: no copy is given up and no primary moved.
#[test]
fn a_copy_that_lost_its_state_before_a_takeover_costs_no_other_copy() {
    let world = World::with(CodecKind::None, 2, 1);
    let (job, config) = (world.training.job.clone(), world.training.config.clone());
    let state = Training::succession(None, &job, &config, "a", "run-1");
    let held =
        || Holders { primary: ServerId(1), replicas: vec![ServerId(0)], learners: Vec::new() };
    let (lineage, holders) = (Some(View(1)), vec![held(), held()]);
    let state = ClusterState { lineage, holders, ..state };
    let own = (CoordinatorId(1), "b".to_owned());
    let (mut training, _) =
        Training::take_over(job, config, own, "run-2".into(), (View(4), state), world.now);
    let empty = Err(RestoreError::NotReady(copy(1, 0)));
    let raise = training.copy_answered(copy(1, 0), View(4), &empty);
    let [Command::RaiseView { state, .. }] = &raise[..] else { panic!("{raise:?}") };
    assert_eq!(state.holders[0], held());
    assert_eq!(
        (state.holders[1].primary, &state.holders[1].learners[..]),
        (ServerId(1), &[ServerId(0)][..])
    );
}

/// Everyone alive says so until the next view is to be appended; it is not.
fn next_view(world: &mut World) -> (View, ClusterState) {
    for _ in 0..20 {
        world.now += Duration::from_millis(300);
        for (process, life) in world.lives.clone() {
            world.beat(process, life);
        }
        let commands = world.training.tick(world.now);
        world.inbox.extend(commands);
        while let Some(command) = (!world.inbox.is_empty()).then(|| world.inbox.remove(0)) {
            match command {
                Command::RaiseView { above, state } => return (above, *state),
                other => {
                    world.inbox.insert(0, other);
                    world.carry_out_one();
                }
            }
        }
    }
    panic!("no view is raised");
}

/// The log says what a successor goes on with: members must not have been told another story.
#[test]
fn a_view_that_was_appended_before_the_run_went_back_is_not_acted_on() {
    let mut world = World::new(CodecKind::TopK);
    world.save(4);
    world.lives.remove(&WORKERS[0]);
    let (above, first) = next_view(&mut world);
    // While it is on its way, the other worker is restarted with its residuals lost.
    world.lives.extend([(WORKERS[0], 2), (WORKERS[1], 2)]);
    let (again, second) = next_view(&mut world);
    assert_eq!((above, again), (View(1), View(1)));
    assert_ne!(first, second);
    let next = world.training.view_appended(View(2), &first);
    let [Command::RaiseView { above, state }] = &next[..] else { panic!("{next:?}") };
    assert_eq!((*above, &**state), (View(2), &second));
    let acts = world.training.view_appended(View(3), &second);
    assert!(matches!(acts[..], [Command::Restore(_), Command::Restore(_)]), "{acts:?}");
}
