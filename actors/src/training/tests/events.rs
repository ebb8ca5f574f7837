//! What is told of a run.

use super::*;
use crate::messages::ReportFenced;

impl World {
    /// What has been told since the last call, without those who came.
    fn told(&mut self) -> Vec<String> {
        let joined = |event: &Event| matches!(event.kind, EventKind::Joined { .. });
        let told = std::mem::take(&mut self.told);
        told.iter().filter(|event| !joined(event)).map(Event::to_string).collect()
    }
}

fn progress(world: &World, shard: u32, version: u64) -> ReportShard {
    ReportShard {
        view: world.training.view,
        copy: world.primary(shard),
        version: Version(version),
        synced: Vec::new(),
        ledger: None,
        bytes: BytesMoved::default(),
    }
}

#[test]
fn a_promotion_is_told_with_the_loss_that_caused_it_and_the_time_from_the_last_word() {
    let mut world = World::with(CodecKind::None, 2, 1);
    assert_eq!(
        world.told(),
        ["the run began at version 0 with 2 workers: somebody has joined; took 0 ms"]
    );
    world.lives.remove(&SERVERS[0]);
    world.pass(5);
    // Its last heartbeat came at 0.3 s; it was missed at 1.5 s.
    assert_eq!(
        world.told(),
        [
            "server-0 is lost: nothing was heard of it for 1.2 s",
            "server-1 took the place of server-0 as primary of shard-0: 1 lost; took 1.2 s",
        ]
    );
    world.lives.insert(SERVERS[0], 2);
    world.pass(1);
    assert_eq!(world.told(), ["the run went on with 2 workers: somebody has joined; took 0 ms"]);
    let report = ReportShard { synced: vec![ServerId(0)], ..progress(&world, 0, 1) };
    let (_, commands) = world.training.report_shard(report);
    world.inbox.extend(commands);
    world.pass(1);
    assert_eq!(
        world.told(),
        [
            "shard-0 on server-0 is in sync",
            "server-1 handed shard-0 over to server-0: a copy has caught up; took 0 ms",
        ]
    );
}

#[test]
fn a_rollback_is_told_with_where_it_went() {
    let mut world = World::new(CodecKind::None);
    world.save(4);
    for shard in 0..2 {
        world.training.report_shard(progress(&world, shard, 7)).0.unwrap();
    }
    world.told();
    world.lives.insert(SERVERS[1], 2);
    world.pass(2);
    let told = world.told();
    assert_eq!(told[0], "server-1 is lost: it was started again");
    assert_eq!(told[1], "everyone went back from version 7 to version 4: 1 lost; took 300 ms");
}

#[test]
fn a_cluster_that_was_started_again_as_a_whole_begins_and_goes_back_from_nothing() {
    let mut world = World::new(CodecKind::None);
    world.save(4);
    world.lives.values_mut().for_each(|life| *life = 2);
    world.empty = true;
    world.succeed();
    world.empty = false;
    world.told();
    world.pass(8);
    let told = world.told();
    assert!(
        told.iter().any(|told| told.starts_with("the run began at version 4 with 2 workers")),
        "{told:?}"
    );
    // Again, before anybody has made a step.
    world.lives.insert(SERVERS[1], 3);
    world.pass(2);
    let told = world.told().join("\n");
    assert!(told.contains("the run began at version 4 with 2 workers"), "{told}");
    assert_eq!(world.training.status().rollbacks, 0);
}

#[test]
fn a_view_that_is_not_done_is_not_told() {
    let mut world = World::new(CodecKind::None);
    world.told();
    world.lives.remove(&WORKERS[0]);
    world.now += Duration::from_secs(2);
    for member in [SERVERS[0], SERVERS[1], WORKERS[1]] {
        world.beat(member, 1);
    }
    world.inbox = world.training.tick(world.now);
    let told = world.training.happened(world.now);
    assert!(matches!(told[..], [Event { kind: EventKind::Lost { .. }, .. }]), "{told:?}");
    world.carry_out();
    world.now += Duration::from_millis(250);
    let told = world.training.happened(world.now);
    let continued = EventKind::Continued { workers: 1 };
    assert_eq!((&told[0].kind, told[0].took_ms, told[0].view), (&continued, Some(2250), View(2)));
}

#[test]
fn a_fenced_primary_is_told_once_however_often_it_says_so() {
    let mut world = World::with(CodecKind::None, 2, 1);
    world.lives.remove(&SERVERS[0]);
    world.pass(5);
    world.told();
    let report = ReportFenced { copy: copy(0, 0), view: View(1), by: View(2) };
    world.training.report_fenced(report).unwrap();
    world.training.report_fenced(report).unwrap();
    world.told.extend(world.training.happened(world.now));
    assert_eq!(
        world.told(),
        ["shard-0 on server-0 was refused as primary, view 2 has another one"]
    );
    for wrong in [
        ReportFenced { copy: copy(9, 0), ..report },
        ReportFenced { copy: copy(0, 9), ..report },
        ReportFenced { by: View(9), ..report },
        ReportFenced { view: View(2), ..report },
    ] {
        assert!(world.training.report_fenced(wrong).is_err(), "{wrong:?}");
    }
}

#[test]
fn a_run_that_stands_still_is_told_with_the_shard_that_has_come_least_far() {
    let mut world = World::new(CodecKind::None);
    let mut stands_at = |versions: [u64; 2]| {
        for (shard, version) in (0u32..).zip(versions) {
            world.training.report_shard(progress(&world, shard, version)).0.unwrap();
        }
        world.told();
        world.pass(101);
        world.told()
    };
    assert_eq!(
        stands_at([7, 5]),
        [
            "no step for 30.0 s: shard-1 is at version 5, another shard 2 ahead; see what its server and the workers log"
        ]
    );
    assert_eq!(
        stands_at([7, 7]),
        ["no step for 30.0 s, all shards are at version 7; see what the workers log"]
    );
    assert_eq!(
        stands_at([18, 18]),
        [
            "version 18 is the last, and for 30.0 s its checkpoint has not been whole; see that checkpoint.store takes what is written"
        ]
    );
    world.lives.remove(&WORKERS[0]);
    world.lives.remove(&WORKERS[1]);
    world.pass(10);
    world.told();
    world.pass(1000);
    assert_eq!(world.told(), [""; 0], "without workers no step is expected");
}

#[test]
fn a_reader_of_the_feed_sees_each_event_once_and_what_it_missed() {
    let mut world = World::new(CodecKind::None);
    let mut seen = 0;
    let mut status = world.training.status();
    for round in 0..100 {
        let (new, missed) = status.events.after(seen);
        assert!(!missed && new.iter().all(|event| event.number > seen));
        seen = new.last().map_or(seen, |event| event.number);
        world.lives.insert(WORKERS[0], round + 2);
        world.pass(1);
        assert!(world.training.update(&mut status));
    }
    assert!(seen > 256, "{seen}");
    assert!(status.events.newest.len() <= 32);
    assert_eq!(status.events.after(1).0.len(), status.events.newest.len());
    assert!(status.events.after(1).1, "events 2 and on are not there any more");
    let tally = status.events.tallies["continued"];
    assert_eq!((tally.events, tally.timed), (100, 100));
}
