//! The coordinator's decisions, told as events and commands; no actor, no network.

mod beliefs;
mod events;
mod finish;
mod heartbeats;
mod leaving;
mod replicas;
mod reports;
mod silence;
mod speeds;
mod takeover;
mod unreadable;

use super::phase::{Assignment, Recovery};
use super::words::OFFERS_MAX;
use super::*;
use crate::checkpoint::{Finished, PartContent};
use crate::ids::{Incarnation, WorkerId};
use crate::job::CodecKind;
use crate::membership::Patience;
use crate::messages::checkpoint_store::Opened;
use crate::messages::{AdoptView, Appointment, Duty, Heartbeat, LeaseSlots, Member, RestoreError};
use crate::plan::tests::{job, offer};
use crate::reduction::Span;

/// Two shards, two workers, on one node each; a checkpoint every 4 of 18 steps.
struct World {
    training: Training,
    now: Duration,
    lives: BTreeMap<Process, u64>,
    /// Commands not carried out yet.
    inbox: Vec<Command>,
    stored: Option<Manifest>,
    finished: Option<Finished>,
    /// Whether the registry has what a finished run published.
    registered: bool,
    stored_view: View,
    leases: BTreeMap<WorkerId, LeaseSlots>,
    restored: BTreeMap<ShardId, Version>,
    adopted: BTreeMap<ShardCopy, AdoptView>,
    /// Copies have no state to keep.
    empty: bool,
    /// What shards answer to restoring this version.
    unreadable: Option<(Version, RestoreError)>,
    /// All that was told of the run.
    told: Vec<Event>,
}

/// What dies and starts as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Process {
    Server(u32),
    Worker(u32),
}

const WORKERS: [Process; 2] = [Process::Worker(0), Process::Worker(1)];
const SERVERS: [Process; 2] = [Process::Server(0), Process::Server(1)];

impl Process {
    fn members(self) -> Vec<Member> {
        match self {
            Self::Server(server) => (0..2).map(|s| Member::Copy(copy(s, server))).collect(),
            Self::Worker(worker) => vec![Member::Worker(WorkerId(worker))],
        }
    }
}

fn copy(shard: u32, server: u32) -> ShardCopy {
    ShardCopy { shard: ShardId(shard), server: ServerId(server) }
}

impl World {
    fn new(codec: CodecKind) -> Self {
        Self::with(codec, 2, 0)
    }

    fn with(codec: CodecKind, servers: u32, replicas: u32) -> Self {
        let mut job = job();
        job.gradient.codec = codec;
        let config = TrainingConfig {
            shards: 2,
            servers,
            replicas,
            workers: 2,
            rebalance: true,
            checkpoint_every: 4,
            patience: Patience {
                dead_after: Duration::from_secs(1),
                refused_after: Duration::from_millis(150),
                gone_after: Duration::from_millis(50),
            },
            gather_for: Duration::from_secs(5),
            gather_again_for: Duration::from_secs(1),
        };
        let mut world = Self {
            training: Training::new(job, config, "run-1".into()),
            now: Duration::ZERO,
            lives: (0..servers).map(Process::Server).chain(WORKERS).map(|p| (p, 1)).collect(),
            inbox: Vec::new(),
            stored: None,
            finished: None,
            registered: true,
            stored_view: View(0),
            leases: BTreeMap::new(),
            restored: BTreeMap::new(),
            adopted: BTreeMap::new(),
            empty: false,
            unreadable: None,
            told: Vec::new(),
        };
        world.pass(1);
        world
    }

    /// Everyone alive sends heartbeats, commands are carried out, for some rounds of 0.3 s.
    fn pass(&mut self, rounds: u32) {
        for _ in 0..rounds {
            self.now += Duration::from_millis(300);
            for (process, life) in self.lives.clone() {
                self.beat(process, life);
            }
            self.inbox.extend(self.training.tick(self.now));
            self.carry_out();
            self.told.extend(self.training.happened(self.now));
        }
    }

    fn beat(&mut self, process: Process, life: u64) {
        let offer = Some(Box::new(offer(self.training.job.clone())));
        let heartbeat = Heartbeat {
            node: format!("{process:?}"),
            life: Incarnation(life),
            members: process.members().into_iter().map(|m| (m, Incarnation(life))).collect(),
            number: 1,
            offer: offer.filter(|_| matches!(process, Process::Worker(_))),
        };
        let mut status = self.training.status();
        self.training.update(&mut status);
        let Heard { commands, is_news, .. } = self.training.heartbeat(&heartbeat, self.now);
        assert!(is_news || !self.training.update(&mut status), "{heartbeat:?}: {status:?}");
        self.inbox.extend(commands);
    }

    fn carry_out(&mut self) {
        while !self.inbox.is_empty() {
            self.carry_out_one();
        }
    }

    fn carry_out_one(&mut self) {
        let next = match self.inbox.remove(0) {
            Command::Open(open) => {
                let (manifest, finished) = (self.stored.clone(), self.finished.clone());
                let manifest = manifest.filter(|manifest| !open.not.contains(&manifest.version));
                self.training.opened(Opened { manifest, finished })
            }
            Command::Confirm(_) => self.training.confirmed(self.registered),
            Command::RaiseView { above, .. } => {
                self.stored_view = self.stored_view.max(above).next().unwrap();
                self.training.view_raised(self.stored_view)
            }
            Command::Restore(restore) => {
                let Appointment { copy, view, .. } = restore.appointment;
                self.restored.insert(copy.shard, restore.version);
                let bad =
                    self.unreadable.as_ref().filter(|(version, _)| *version == restore.version);
                let answer = bad.map_or(Ok(()), |(_, error)| Err(error.clone()));
                self.training.copy_answered(copy, view, &answer)
            }
            Command::Adopt(adopt) => {
                let Appointment { copy, view, .. } = adopt.appointment.clone();
                let keeps = !matches!(adopt.appointment.duty, Duty::Learner | Duty::Released);
                self.adopted.insert(copy, adopt);
                let empty = Err(RestoreError::NotReady(copy));
                let answer = if self.empty && keeps { empty } else { Ok(()) };
                self.training.copy_answered(copy, view, &answer)
            }
            Command::Lease(lease) => {
                let (worker, view) = (lease.worker, lease.view);
                self.leases.insert(worker, lease);
                self.training.worker_answered(worker, view, &Ok(()));
                Vec::new()
            }
            Command::Commit(manifest) => {
                self.stored = Some((*manifest).clone());
                self.training.committed(*manifest)
            }
            Command::Publish(manifest) => {
                let digest = format!("state of {}", manifest.version);
                let model = "toy".to_owned();
                let published = Published { model, version: 1, digest };
                self.finished = Some(Finished {
                    run: manifest.run.clone(),
                    job_digest: manifest.job_digest.clone(),
                    data_digest: manifest.offer.data.digest.clone(),
                    last_version: manifest.version,
                    ledger: manifest.ledger.clone(),
                    published: published.clone(),
                });
                self.training.published(published);
                Vec::new()
            }
        };
        self.inbox.extend(next);
    }

    fn primary(&self, shard: u32) -> ShardCopy {
        let server = self.training.holders[shard as usize].primary;
        ShardCopy { shard: ShardId(shard), server }
    }

    fn spans(&self) -> Vec<(u32, u32)> {
        let live = |lease: &&LeaseSlots| lease.view == self.training.view;
        let span = |lease: &LeaseSlots| (lease.slots.first, lease.slots.end);
        self.leases.values().filter(live).map(span).collect()
    }

    /// Everyone reports the parts of a checkpoint.
    fn save(&mut self, version: u64) {
        let mut contents = vec![
            PartContent::Parameters { start: 0, end: 256 },
            PartContent::Parameters { start: 256, end: 600 },
        ];
        if self.training.keeps_residuals() {
            for span in self.spans() {
                let slots = Span { first: span.0, end: span.1 }.slots().collect();
                contents.push(PartContent::Residuals { slots });
            }
        }
        for content in contents {
            self.report(version, content, self.training.view).unwrap();
        }
        self.carry_out();
    }

    fn report(
        &mut self,
        version: u64,
        content: PartContent,
        view: View,
    ) -> Result<(), ReportError> {
        let shard = match content {
            PartContent::Parameters { start, .. } => Some(ReportShard {
                view,
                copy: self.primary(u32::from(start > 0)),
                synced: Vec::new(),
                version: Version(version),
                ledger: (start == 0).then(Ledger::default),
                bytes: BytesMoved::default(),
            }),
            PartContent::Residuals { .. } => None,
        };
        let part = SavedPart { content, path: String::new(), bytes: 1, digest: String::new() };
        let report = ReportPart { view, version: Version(version), part, shard };
        let (answer, commands) = self.training.report_part(report);
        self.inbox.extend(commands);
        answer
    }
}

#[test]
fn a_run_starts_when_all_are_there_and_leases_every_slot() {
    let world = World::new(CodecKind::None);
    assert_eq!(world.training.status().progress, Progress::Running);
    assert_eq!(world.spans(), [(0, 2), (2, 4)]);
    assert_eq!(world.training.view, View(1));
}

#[test]
fn a_run_starts_without_a_missing_worker_after_a_while() {
    let mut world = World::new(CodecKind::None);
    world.training =
        Training::new(world.training.job.clone(), world.training.config.clone(), "run-2".into());
    world.lives.remove(&WORKERS[1]);
    world.pass(10);
    assert_eq!(world.training.status().progress, Progress::Gathering);
    world.pass(10);
    assert_eq!(world.training.status().progress, Progress::Running);
    assert_eq!(world.leases[&WorkerId(0)].slots, Span { first: 0, end: 4 });
}

#[test]
fn slots_of_a_lost_worker_go_to_the_others_without_a_rollback() {
    let mut world = World::new(CodecKind::None);
    world.lives.remove(&WORKERS[0]);
    world.pass(5);
    assert_eq!(world.spans(), [(0, 4)]);
    assert_eq!(world.leases[&WorkerId(1)].lineage, View(1));
    assert_eq!(world.training.status().rollbacks, 0);
}

#[test]
fn a_lost_residual_rolls_everyone_back_to_the_last_checkpoint() {
    let mut world = World::new(CodecKind::TopK);
    world.save(4);
    world.save(8);
    world.lives.remove(&WORKERS[0]);
    world.pass(30);
    assert_eq!(world.spans(), [(0, 4)]);
    assert_eq!(world.leases[&WorkerId(1)].rolled_back_to, Version(8));
    assert_eq!(world.restored.values().collect::<Vec<_>>(), [&Version(8); 2]);
}

#[test]
fn with_residuals_a_new_worker_gets_slots_at_the_next_checkpoint() {
    let mut world = World::new(CodecKind::TopK);
    world.save(4);
    world.lives.remove(&WORKERS[0]);
    world.pass(30);
    world.lives.insert(WORKERS[0], 2);
    world.pass(2);
    assert_eq!(world.spans(), [(0, 4)]);
    world.save(8);
    world.pass(2);
    assert_eq!(world.spans(), [(0, 2), (2, 4)]);
    assert_eq!(world.leases[&WorkerId(0)].rolled_back_to, Version(8));
}

#[test]
fn a_restarted_server_rolls_everyone_back_even_if_nobody_saw_it_die() {
    let mut world = World::new(CodecKind::None);
    world.save(4);
    world.lives.insert(SERVERS[1], 2);
    world.pass(2);
    assert_eq!(world.training.status().progress, Progress::Running);
    assert_eq!(world.restored[&ShardId(0)], Version(4));
    assert_eq!(world.leases[&WorkerId(0)].rolled_back_to, Version(4));
}

#[test]
fn a_checkpoint_with_a_missing_part_does_not_count() {
    let mut world = World::new(CodecKind::None);
    world.save(4);
    world.report(8, PartContent::Parameters { start: 0, end: 256 }, View(1)).unwrap();
    world.carry_out();
    assert_eq!(world.training.status().checkpoint, Some(Version(4)));
}

#[test]
fn a_part_from_before_a_rollback_is_refused() {
    let mut world = World::new(CodecKind::None);
    world.lives.insert(SERVERS[1], 2);
    world.pass(2);
    let late = world.report(4, PartContent::Parameters { start: 0, end: 600 }, View(1));
    assert_eq!(late, Err(ReportError::StaleView { got: View(1), current: View(2) }));
}

#[test]
fn a_checkpoint_committed_during_a_rollback_does_not_split_the_cluster() {
    let mut world = World::new(CodecKind::None);
    world.save(4);
    for (start, end) in [(0, 256), (256, 600)] {
        world.report(8, PartContent::Parameters { start, end }, View(1)).unwrap();
    }
    let late = std::mem::take(&mut world.inbox);
    world.lives.insert(SERVERS[1], 2);
    world.beat(SERVERS[1], 2);
    // Open and RaiseView are carried out, the first shard is restored; then the commit ends.
    while !matches!(world.inbox.first(), Some(Command::Restore(_))) {
        let rest = world.inbox.split_off(1);
        let next = match world.inbox.remove(0) {
            Command::Open(_) => {
                let manifest = world.stored.clone();
                world.training.opened(Opened { manifest, finished: None })
            }
            Command::RaiseView { above, .. } => world.training.view_raised(above.next().unwrap()),
            other => panic!("unexpected {other:?}"),
        };
        world.inbox = [next, rest].concat();
    }
    world.inbox.splice(1..1, late);
    world.carry_out();
    assert_eq!(world.restored.values().collect::<Vec<_>>(), [&Version(4); 2]);
}

#[test]
fn a_shard_that_lost_its_state_while_leases_changed_is_restored() {
    let mut world = World::new(CodecKind::None);
    world.save(4);
    world.lives.remove(&WORKERS[0]);
    world.now += Duration::from_secs(2);
    for member in [SERVERS[0], SERVERS[1], WORKERS[1]] {
        world.beat(member, 1);
    }
    let raise = world.training.tick(world.now);
    assert!(matches!(raise[..], [Command::RaiseView { .. }]), "{raise:?}");
    let view = View(2);
    world.training.view_raised(view);
    let lost = Err(RestoreError::NotReady(copy(0, 0)));
    world.training.copy_answered(copy(0, 0), view, &lost);
    world.stored_view = view;
    world.pass(30);
    assert_eq!(world.training.status().progress, Progress::Running);
    assert_eq!(world.leases[&WorkerId(1)].rolled_back_to, Version(4));
}

#[test]
fn the_last_checkpoint_is_published() {
    let mut world = World::new(CodecKind::None);
    world.save(18);
    let Progress::Done(published) = world.training.status().progress else {
        panic!("{:?}", world.training.status())
    };
    assert_eq!(published.digest, "state of version 18");
}

#[test]
fn a_restarted_coordinator_goes_on_from_the_store_in_a_higher_view() {
    let mut world = World::new(CodecKind::None);
    world.save(8);
    let config = world.training.config.clone();
    world.training = Training::new(world.training.job.clone(), config, "run-2".into());
    world.pass(2);
    assert_eq!(world.training.view, View(2));
    assert_eq!(world.training.run, "run-1");
    assert_eq!(world.restored[&ShardId(1)], Version(8));
}

#[test]
fn a_last_checkpoint_that_is_committed_while_leases_change_is_published() {
    let mut world = World::new(CodecKind::None);
    for (start, end) in [(0, 256), (256, 600)] {
        world.report(18, PartContent::Parameters { start, end }, View(1)).unwrap();
    }
    let commit = std::mem::take(&mut world.inbox);
    world.lives.insert(WORKERS[1], 2);
    world.beat(WORKERS[1], 2);
    assert!(matches!(world.inbox[..], [Command::RaiseView { .. }]), "{:?}", world.inbox);
    world.inbox.splice(0..0, commit);
    world.carry_out();
    world.pass(2);
    let progress = world.training.status().progress;
    assert!(matches!(progress, Progress::Done(_)), "{progress:?}");
}
