//! From `kill -9` to the next committed step, and from one leader to the next.
//!
//! Seven processes with default settings on this machine: two coordinators with a registry each,
//! three servers with a shard each and one replica of it, two workers; the job is that of
//! `cluster.toml`. What was killed is started again after 200 ms, as `node up` does, and the next
//! one dies when all copies have been in sync for a while.
//!
//! What is measured: each 5 ms every server is asked for the version of the shards whose primary it
//! is, and each coordinator for its status. A step counts that all shards have committed, and that
//! one of them had not when it was asked after the kill. So what is shown is late by up to 5 ms and
//! the answer's way, and never early.

use std::time::Duration;

use gradmesh_actors::training::{Progress, TrainingStatus};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use tokio::time::{Instant, sleep, timeout};

use crate::LOOK_EVERY;
use crate::cluster::{Cluster, Shape, calm_digest, prepare};
use crate::kills::{self, LeaderKill, ServerKill};
use crate::probe::Probe;

/// Copies were in sync for so long before the next kill, and up to twice as long: kills must not
/// fall on the same moment between two heartbeats.
const QUIET: Duration = Duration::from_millis(300);
/// Far beyond anything that is to be measured.
const RECOVERY_MAX: Duration = Duration::from_secs(60);
/// Of `cluster.toml`'s job, 187 steps each: more than a kill and its recovery take, also where a step takes 300 µs.
const EPOCHS_A_KILL: usize = 20;
const SHAPE: Shape = Shape { coordinators: 2, servers: 3, replicas: 1, workers: 2, batch: 64 };

pub(crate) async fn run(kills: usize) {
    let folder = tempfile::tempdir().unwrap();
    let epochs = EPOCHS_A_KILL * (2 * kills + 2);
    let (config, calm) = prepare(folder.path(), epochs, SHAPE);
    let mut cluster = Cluster::start(&config, folder.path());
    let probe = Probe::new(&config);
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let (mut servers, mut leaders) = (Vec::new(), Vec::new());
    let (mut promotions, mut rollbacks) = (0, 0);
    for kill in 1..=kills {
        let (_, before) = in_sync(&probe, &mut cluster, &mut rng).await;
        let server = rng.next_u32() as usize % SHAPE.servers;
        let seen = timeout(RECOVERY_MAX, kills::server(&probe, &mut cluster, server, &before));
        let seen = seen.await.expect("the cluster recovers");
        println!("kill {kill:>3} of ps-{server}: {seen}");
        servers.push(seen);
    }
    for kill in 1..=kills {
        let (leader, before) = in_sync(&probe, &mut cluster, &mut rng).await;
        // A new leader counts from nothing.
        promotions += before.promotions;
        rollbacks += before.rollbacks;
        let seen = timeout(RECOVERY_MAX, kills::leader(&probe, &mut cluster, leader, &before));
        let seen = seen.await.expect("somebody leads");
        println!("kill {kill:>3} of main-{leader}: {seen}");
        leaders.push(seen);
    }
    let status = done(&probe, &mut cluster).await;
    let Progress::Done(published) = &status.progress else { panic!("{:?}", status.progress) };
    println!(
        "{kills} servers and {kills} leaders killed, {} promotions, {} rollbacks, {} steps",
        promotions + status.promotions,
        rollbacks + status.rollbacks,
        status.version.0
    );
    show_servers(&servers);
    show_leaders(&leaders);
    cluster.end().await;
    let calm = calm_digest(&calm).await;
    assert_eq!(published.digest, calm, "the digest of a run without kills");
    println!("digest as in a calm run: {calm}");
}

/// Waits until each shard has its replica, a second coordinator stands by, and all has been so for
/// a while; gives who leads.
async fn in_sync(
    probe: &Probe,
    cluster: &mut Cluster,
    rng: &mut ChaCha8Rng,
) -> (usize, TrainingStatus) {
    let quiet = QUIET + Duration::from_millis(u64::from(rng.next_u32()) % 300);
    let mut since = Instant::now();
    let mut view = None;
    loop {
        cluster.look();
        let leader = probe.leader().await;
        if let Some(Progress::Done(_) | Progress::Failed { .. }) =
            leader.as_ref().map(|(_, status)| &status.progress)
        {
            panic!("the job ended before the last kill: {leader:?}");
        }
        let answers = probe.statuses().await.iter().flatten().count();
        let whole = leader.filter(|(_, status)| {
            status.progress == Progress::Running
                && status.servers == SHAPE.servers
                && status.replicas == SHAPE.servers
                && status.workers == SHAPE.workers
                && answers == SHAPE.coordinators
        });
        let now = whole.as_ref().map(|(_, status)| status.view);
        if now != view {
            view = now;
            since = Instant::now();
        }
        if let Some(whole) = whole
            && since.elapsed() >= quiet
        {
            return whole;
        }
        sleep(LOOK_EVERY).await;
    }
}

pub(crate) async fn done(probe: &Probe, cluster: &mut Cluster) -> TrainingStatus {
    loop {
        cluster.look();
        if let Some((_, status)) = probe.leader().await
            && matches!(status.progress, Progress::Done(_) | Progress::Failed { .. })
        {
            return status;
        }
        sleep(LOOK_EVERY * 10).await;
    }
}

fn show_servers(kills: &[ServerKill]) {
    let of = |time: fn(&ServerKill) -> Duration| kills.iter().map(time).collect::<Vec<_>>();
    println!("a server is killed, until");
    show("  its loss is noticed", of(|kill| kill.detected));
    show("  the next view is durable", of(|kill| kill.raised));
    show("  copies have their roles", of(|kill| kill.assigned));
    show("  a step is committed", of(|kill| kill.committed));
}

fn show_leaders(kills: &[LeaderKill]) {
    let of = |time: fn(&LeaderKill) -> Duration| kills.iter().map(time).collect::<Vec<_>>();
    println!("the leader is killed, until");
    show("  another one leads", of(|kill| kill.led));
    show("  all have heard of it", of(|kill| kill.running));
    show("  (longest pause of steps)", of(|kill| kill.pause));
}

fn show(what: &str, mut times: Vec<Duration>) {
    times.sort();
    // The smallest time that so many hundredths of all don't exceed.
    let at = |part: usize| times[(times.len() * part).div_ceil(100).max(1) - 1].as_millis();
    println!("{what:<28} p50 {:>5} ms, p99 {:>5} ms, max {:>5} ms", at(50), at(99), at(100));
}
