//! The server's own work: a step from its only push to the next version, beside an update in place.

use std::sync::Arc;

use anyhow::bail;
use gradmesh::config::Config;
use gradmesh_actors::ids::{ShardId, Version, View};
use gradmesh_actors::job::OptimizerKind;
use gradmesh_actors::ledger::Ledger;
use gradmesh_actors::optimizer::Optimizer;
use gradmesh_actors::plan::JobPlan;
use gradmesh_actors::shard::{Accepted, Shard, ShardState};
use tokio::time::Instant;

use super::Effort;
use super::exchange::{STEPS, offer, one};
use super::limits::update_rate;
use super::row::{Goal, Row, Unit, median};

const BYTES: usize = 16 << 20;
/// The first ones make the memory that is used again.
const REPEATS_MIN: usize = 9;

pub(super) fn rows(config: &Config, effort: Effort) -> anyhow::Result<Vec<Row>> {
    let kinds = [
        (OptimizerKind::Sgd, "SGD", Goal::AtLeast(0.8)),
        // 3.7 of about 10 GB/s.
        (OptimizerKind::Adam, "Adam", Goal::AtLeast(0.37)),
    ];
    let mut rows = Vec::new();
    for (kind, name, goal) in kinds {
        let limit = update_rate(BYTES / size_of::<f32>(), effort.repeats / 2);
        let ours = applied(config, kind, effort)?;
        let what = format!("server's step of {} MiB, {name}", BYTES >> 20);
        let row = Row::new(what, "w -= lr g", Unit::GigabytesPerSecond, goal);
        rows.push(row.with(ours, limit));
    }
    Ok(rows)
}

/// Gigabytes of gradient a second.
fn applied(config: &Config, kind: OptimizerKind, effort: Effort) -> anyhow::Result<f64> {
    let mut config = config.clone();
    config.job.optimizer.kind = kind;
    let plan = JobPlan::new(offer(&config, BYTES)?, 1)?;
    let len = plan.layout.len();
    let optimizer = Optimizer::new(&plan.offer.job.optimizer, plan.last_version().0);
    let state = ShardState {
        version: Version(0),
        parameters: vec![1.0; len],
        optimizer: optimizer.new_state(len)?,
        ledger: Ledger::default(),
    };
    let mut shard = Shard::new(ShardId(0), Arc::new(plan), STEPS as u64, View(1), state);
    // As what was read from a connection: the connection has it too.
    let gradient = Arc::new(vec![1e-6; len]);
    let (started, mut times) = (Instant::now(), Vec::new());
    while started.elapsed() < effort.repeats / 2 || times.len() < REPEATS_MIN {
        let push = one(shard.version(), &gradient);
        let began = Instant::now();
        if shard.accept(&push)? != Accepted::Complete {
            bail!("one push does not complete a step of one slot");
        }
        drop(push);
        shard.aggregate()?;
        shard.apply(None, false)?;
        shard.commit();
        times.push(began.elapsed().as_secs_f64());
    }
    Ok(BYTES as f64 / median(times.into_iter()) / 1e9)
}
