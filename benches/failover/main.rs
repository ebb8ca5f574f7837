//! From `kill -9` of a server under full load to the next committed step.
//!
//! `cargo bench --bench failover` kills a server a hundred times, `-- --quick` five times,
//! `-- --kills N` as often as is said. Needs about two seconds a kill, and as long again for the
//! calm run whose digest must come out.
//!
//! Seven processes with default settings on this machine: a coordinator with the registry, three
//! servers with a shard each and one replica of it, two workers; the job is that of `cluster.toml`.
//! A server that was killed is started again after 200 ms, as `node up` does, and the next one dies
//! when all copies have been in sync for a while.
//!
//! What is measured: each 5 ms every server is asked for the version of the shards whose primary it
//! is, and the coordinator for its status. A step counts that all shards have committed, and that
//! one of them had not when it was asked after the kill. So what is shown is late by up to 5 ms and
//! the answer's way, and never early.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a benchmark: whatever goes wrong ends it"
)]

mod cluster;
mod probe;

use std::time::Duration;

use gradmesh_actors::training::{Progress, TrainingStatus};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use tokio::time::{Instant, sleep, timeout};

use cluster::{Cluster, SERVERS, calm_digest, prepare};
use probe::Probe;

const LOOK_EVERY: Duration = Duration::from_millis(5);
/// Copies were in sync for so long before the next kill, and up to twice as long: kills must not
/// fall on the same moment between two heartbeats.
const QUIET: Duration = Duration::from_millis(300);
/// Far beyond anything that is to be measured.
const RECOVERY_MAX: Duration = Duration::from_secs(60);

/// One kill: since it, until something was first seen.
#[derive(Default)]
struct Recovery {
    /// The coordinator counts the server's actors as lost.
    detected: Duration,
    /// The next view is durable.
    raised: Duration,
    /// Copies have taken their roles, workers are being told.
    assigned: Duration,
    committed: Duration,
}

fn main() {
    // cargo adds `--bench`.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let kills = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => 100,
        ["--quick"] => 5,
        ["--kills", kills] => kills.parse().expect("--kills takes a number"),
        _ => panic!("takes --quick or --kills N, got {arguments:?}"),
    };
    actix_rt::System::new().block_on(run(kills));
}

async fn run(kills: usize) {
    let folder = tempfile::tempdir().unwrap();
    let (config, calm) = prepare(folder.path(), kills);
    let mut cluster = Cluster::start(&config, folder.path());
    let probe = Probe::new(&config);
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut recoveries = Vec::new();
    for kill in 0..kills {
        let quiet = QUIET + Duration::from_millis(u64::from(rng.next_u32()) % 300);
        let before = in_sync(&probe, &mut cluster, quiet).await;
        let server = rng.next_u32() as usize % SERVERS;
        let recovery = one_kill(&probe, &mut cluster, server, &before);
        let recovery = timeout(RECOVERY_MAX, recovery).await.expect("the cluster recovers");
        println!("kill {:>3} of ps-{server}: {}", kill + 1, recovery.text());
        recoveries.push(recovery);
    }
    let status = done(&probe, &mut cluster).await;
    let Progress::Done(published) = &status.progress else { panic!("{:?}", status.progress) };
    println!(
        "{kills} kills, {} promotions, {} rollbacks, {} steps",
        status.promotions, status.rollbacks, status.version.0
    );
    let of = |time: fn(&Recovery) -> Duration| recoveries.iter().map(time).collect::<Vec<_>>();
    show("lost to the coordinator", of(|r| r.detected));
    show("  then view durable", of(|r| r.raised.saturating_sub(r.detected)));
    show("  then copies assigned", of(|r| r.assigned.saturating_sub(r.raised)));
    show("  then a step committed", of(|r| r.committed.saturating_sub(r.assigned)));
    show("kill to committed step", of(|r| r.committed));
    cluster.end().await;
    let calm = calm_digest(&calm).await;
    assert_eq!(published.digest, calm, "the digest of a run without kills");
    println!("digest as in a calm run: {calm}");
}

/// Waits until each shard has its replica and all has been so for `quiet`.
async fn in_sync(probe: &Probe, cluster: &mut Cluster, quiet: Duration) -> TrainingStatus {
    let mut since = Instant::now();
    let mut view = None;
    loop {
        cluster.look();
        let status = probe.status().await;
        if let Some(Progress::Done(_) | Progress::Failed { .. }) =
            status.as_ref().map(|s| &s.progress)
        {
            panic!("the job ended before the last kill: {status:?}");
        }
        let whole = status.filter(|status| {
            status.progress == Progress::Running
                && status.servers == SERVERS
                && status.replicas == SERVERS
                && status.workers == 2
        });
        if whole.as_ref().map(|status| status.view) != view {
            view = whole.as_ref().map(|status| status.view);
            since = Instant::now();
        }
        if let Some(status) = whole
            && since.elapsed() >= quiet
        {
            return status;
        }
        sleep(LOOK_EVERY).await;
    }
}

async fn one_kill(
    probe: &Probe,
    cluster: &mut Cluster,
    server: usize,
    before: &TrainingStatus,
) -> Recovery {
    let earlier = probe.versions(None).await;
    let killed = Instant::now();
    cluster.kill(server);
    let base = probe.versions(Some(server)).await;
    let base = base.into_iter().chain(earlier).flatten().max().unwrap();
    let mut seen = Recovery::default();
    let note = |at: &mut Duration, is: bool| {
        if is && at.is_zero() {
            *at = killed.elapsed();
        }
    };
    loop {
        cluster.look();
        let (status, versions) = tokio::join!(probe.status(), probe.versions(Some(server)));
        let next = versions.iter().all(|version| version.is_some_and(|version| version > base));
        note(&mut seen.committed, next);
        if let Some(status) = status {
            note(&mut seen.detected, status.lost > before.lost);
            note(&mut seen.raised, status.view > before.view);
            let runs = status.view > before.view && status.progress == Progress::Running;
            note(&mut seen.assigned, runs);
        }
        if next {
            // The roles were given between two looks.
            note(&mut seen.assigned, true);
            return seen;
        }
        sleep(LOOK_EVERY).await;
    }
}

async fn done(probe: &Probe, cluster: &mut Cluster) -> TrainingStatus {
    loop {
        cluster.look();
        if let Some(status) = probe.status().await
            && matches!(status.progress, Progress::Done(_) | Progress::Failed { .. })
        {
            return status;
        }
        sleep(LOOK_EVERY * 10).await;
    }
}

impl Recovery {
    fn text(&self) -> String {
        let [lost, view, assigned, committed] =
            [self.detected, self.raised, self.assigned, self.committed].map(|at| at.as_millis());
        format!("lost {lost}, view {view}, assigned {assigned}, committed {committed} ms")
    }
}

fn show(what: &str, mut times: Vec<Duration>) {
    times.sort();
    // The smallest time that so many hundredths of all don't exceed.
    let at = |part: usize| times[(times.len() * part).div_ceil(100).max(1) - 1].as_millis();
    println!("{what:<26} p50 {:>5} ms, p99 {:>5} ms, max {:>5} ms", at(50), at(99), at(100));
}
