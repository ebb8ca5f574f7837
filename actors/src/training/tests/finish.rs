//! The end of a run, and stores that fail for a while.

use super::*;

impl World {
    /// The coordinator starts again; everyone else is still there.
    fn restart_coordinator(&mut self) {
        let config = self.training.config.clone();
        self.training = Training::new(self.training.job.clone(), config, "run-2".into());
        self.pass(2);
    }

    /// A coordinator that has just asked for this, and nothing has been carried out.
    fn asks(&mut self, wanted: impl Fn(&Command) -> bool) -> Command {
        self.lives.insert(SERVERS[1], 2);
        self.beat(SERVERS[1], 2);
        loop {
            let next = self.inbox.remove(0);
            if wanted(&next) {
                self.inbox.clear();
                return next;
            }
            self.inbox.insert(0, next);
            let rest = self.inbox.split_off(1);
            self.carry_out_one();
            self.inbox.extend(rest);
        }
    }
}

fn done(world: &World) -> Option<Published> {
    match world.training.status().progress {
        Progress::Done(published) => Some(published),
        _ => None,
    }
}

#[test]
fn a_coordinator_that_died_before_it_published_publishes_when_it_is_back() {
    let mut world = World::new(CodecKind::None);
    world.save(18);
    world.finished = None;
    world.restart_coordinator();
    assert!(done(&world).is_some());
    assert_eq!(world.training.run, "run-1");
}

#[test]
fn a_coordinator_that_died_after_it_published_trains_nothing_again() {
    let mut world = World::new(CodecKind::None);
    world.save(18);
    world.stored = None;
    world.restored.clear();
    world.restart_coordinator();
    let status = world.training.status();
    assert_eq!(done(&world).unwrap().digest, "state of version 18");
    assert_eq!((status.version, status.resumed_from), (Version(18), Some(Version(18))));
    assert!(world.restored.is_empty());
}

#[test]
fn a_finished_job_whose_version_was_deleted_is_trained_again() {
    let mut world = World::new(CodecKind::None);
    world.save(18);
    world.stored = None;
    world.registered = false;
    world.restart_coordinator();
    assert_eq!(world.training.status().progress, Progress::Running);
    assert_eq!(world.training.run, "run-2");
    assert_eq!(world.restored[&ShardId(0)], Version(0));
}

#[test]
fn a_run_that_began_after_the_finished_one_goes_on() {
    let mut world = World::new(CodecKind::None);
    world.save(8);
    let checkpoint = world.stored.clone();
    world.save(18);
    world.stored = checkpoint.map(|manifest| Manifest { run: "run-0".into(), ..manifest });
    world.restart_coordinator();
    assert_eq!(world.training.status().progress, Progress::Running);
    assert_eq!(world.training.run, "run-0");
}

#[test]
fn a_store_that_fails_for_a_while_is_asked_the_same_again() {
    let mut world = World::new(CodecKind::None);
    world.save(4);
    let open = world.asks(|command| matches!(command, Command::Open(_)));
    assert!(world.training.held_up("no space left".into()));
    assert!(!world.training.held_up("no space left".into()), "it is no news any more");
    assert_eq!(world.training.status().held_up.as_deref(), Some("no space left"));
    assert_eq!(world.training.ask_store_again(), [open]);

    let manifest = world.stored.clone();
    let raise = world.training.opened(Opened { manifest, finished: None });
    assert_eq!(world.training.status().held_up, None);
    assert!(matches!(raise[..], [Command::RaiseView { .. }]), "{raise:?}");
    assert_eq!(world.training.ask_store_again(), raise);
    world.training.view_raised(View(2));
    assert_eq!(world.training.ask_store_again(), []);
}

#[test]
fn a_manifest_that_could_not_be_written_is_written_again_unless_it_is_useless_by_now() {
    let mut world = World::new(CodecKind::None);
    for (start, end) in [(0, 256), (256, 600)] {
        world.report(4, PartContent::Parameters { start, end }, View(1)).unwrap();
    }
    let commit = std::mem::take(&mut world.inbox);
    let [Command::Commit(manifest)] = &commit[..] else { panic!("{commit:?}") };
    assert_eq!(world.training.commit_again((**manifest).clone()), commit);
    world.save(8);
    assert_eq!(world.training.commit_again((**manifest).clone()), []);
}

#[test]
fn a_last_checkpoint_that_got_lost_is_trained_again_from_the_one_before() {
    let mut world = World::new(CodecKind::None);
    world.save(16);
    let before = world.stored.clone();
    for (start, end) in [(0, 256), (256, 600)] {
        world.report(18, PartContent::Parameters { start, end }, View(1)).unwrap();
    }
    world.carry_out_one();
    assert!(matches!(world.inbox[..], [Command::Publish(_)]), "{:?}", world.inbox);
    world.inbox.clear();
    world.stored = before;
    world.inbox = world.training.last_checkpoint_lost();
    world.pass(2);
    assert_eq!(world.training.status().progress, Progress::Running);
    assert_eq!(world.restored[&ShardId(1)], Version(16));
}

#[test]
fn a_last_checkpoint_that_looks_whole_but_can_not_be_read_is_not_published_for_ever() {
    let mut world = World::new(CodecKind::None);
    for (start, end) in [(0, 256), (256, 600)] {
        world.report(18, PartContent::Parameters { start, end }, View(1)).unwrap();
    }
    world.carry_out_one();
    world.inbox = world.training.last_checkpoint_lost();
    world.pass(2);
    assert_eq!(world.training.status().progress, Progress::Running);
    assert_eq!(world.restored[&ShardId(1)], Version(0));
}

#[test]
fn a_shard_that_went_back_before_the_end_was_known_does_not_change_what_was_published() {
    let mut world = World::new(CodecKind::None);
    world.save(8);
    // All go back to version 8; the last checkpoint is committed while they do.
    world.asks(|command| matches!(command, Command::RaiseView { .. }));
    let ledger = Ledger { closed: true, rows: 7, ..Ledger::default() };
    let manifest = world.stored.clone().unwrap();
    let last = Manifest { version: Version(18), ledger: ledger.clone(), ..manifest };
    world.training.committed(last);
    let commands = world.training.view_raised(View(2));
    world.inbox.extend(commands);
    world.carry_out();
    world.report(8, PartContent::Parameters { start: 0, end: 256 }, View(2)).unwrap();
    assert!(done(&world).is_some());
    let status = world.training.status();
    assert_eq!((status.version, status.ledger), (Version(18), ledger));
}
