//! What one replica of each shard costs: bytes and time of a step, with four workers.
//!
//! Clusters of seven processes (a coordinator, two servers with a shard each, four workers) train
//! the job of `cluster.toml`, 64 rows a worker and step as the peers do, without a replica and with
//! one, in turns, each pair one after the other. The rate is that of the steps after a second of warming up; the bytes are those of the
//! whole run. On a machine with fewer processors than processes the replica's own work takes time
//! from everybody: there the cost is that of its computation, not of its latency.

use std::time::Duration;

use gradmesh_actors::training::Progress;
use tokio::time::{Instant, sleep};

use crate::LOOK_EVERY;
use crate::cluster::{Cluster, Shape, prepare};
use crate::failover::done;
use crate::probe::Probe;

const WORKERS: usize = 4;
/// Of 46 steps each: several seconds.
const EPOCHS: usize = 80;
const BATCH: usize = 64 * WORKERS;
const WARM_UP: Duration = Duration::from_secs(1);

struct Cost {
    /// Time of a step.
    step: Duration,
    /// Of a step: gradients to servers, parameters to workers, updates to replicas.
    pushed: u64,
    pulled: u64,
    replicated: u64,
    digest: String,
}

pub(crate) async fn run(pairs: usize) {
    let mut ratios = Vec::new();
    let mut last = None;
    for pair in 1..=pairs {
        let (without, with) = (one(0).await, one(1).await);
        assert_eq!(without.digest, with.digest);
        let ratio = with.step.as_secs_f64() / without.step.as_secs_f64();
        println!(
            "pair {pair:>2}: a step takes {} µs without a replica, {} µs with one: {ratio:.3}",
            without.step.as_micros(),
            with.step.as_micros()
        );
        ratios.push(ratio);
        last = Some((without, with));
    }
    ratios.sort_by(f64::total_cmp);
    let Some((without, with)) = last else { return };
    let moved = |cost: &Cost| cost.pushed + cost.pulled + cost.replicated;
    let percent = |part: u64, of: u64| part as f64 / of as f64 * 100.0;
    println!("with {WORKERS} workers, median of {pairs} pairs (smallest, largest)");
    println!(
        "time of a step               x {:.3} ({:.3}, {:.3})",
        ratios[ratios.len() / 2],
        ratios[0],
        ratios[ratios.len() - 1]
    );
    println!(
        "bytes of a step              {} pushed, {} pulled, {} replicated",
        with.pushed, with.pulled, with.replicated
    );
    println!(
        "more bytes than without      {:.1} % ({:.1} % of what is pushed)",
        percent(moved(&with).saturating_sub(moved(&without)), moved(&without)),
        percent(with.replicated, without.pushed)
    );
}

async fn one(replicas: usize) -> Cost {
    let shape = Shape { coordinators: 1, servers: 2, replicas, workers: WORKERS, batch: BATCH };
    let folder = tempfile::tempdir().unwrap();
    let (config, _) = prepare(folder.path(), EPOCHS, shape);
    let mut cluster = Cluster::start(&config, folder.path());
    let probe = Probe::new(&config);
    loop {
        cluster.look();
        if let Some((_, status)) = probe.leader().await
            && status.progress == Progress::Running
            && status.workers == WORKERS
        {
            break;
        }
        sleep(LOOK_EVERY).await;
    }
    sleep(WARM_UP).await;
    let (began, from) = (Instant::now(), reached(&probe).await);
    let mut to = (began, from);
    loop {
        let version = reached(&probe).await;
        if version > to.1 {
            to = (Instant::now(), version);
        }
        if let Some((_, status)) = probe.leader().await
            && !matches!(status.progress, Progress::Running)
        {
            break;
        }
        // Whoever asks often takes time from those that are asked.
        sleep(LOOK_EVERY * 20).await;
    }
    let status = done(&probe, &mut cluster).await;
    let Progress::Done(published) = &status.progress else { panic!("{:?}", status.progress) };
    cluster.end().await;
    let steps = status.version.0;
    Cost {
        step: (to.0 - began) / u32::try_from(to.1 - from).unwrap(),
        pushed: status.bytes.pushed / steps,
        pulled: status.bytes.pulled / steps,
        replicated: status.bytes.replicated / steps,
        digest: published.digest.clone(),
    }
}

/// The version that all shards have committed.
async fn reached(probe: &Probe) -> u64 {
    probe.versions(None).await.into_iter().flatten().min().map_or(0, |version| version.0)
}
