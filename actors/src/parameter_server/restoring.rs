//! Where a copy's state comes from: its seed, or a checkpoint.

use std::sync::Arc;

use actix::Recipient;

use crate::allocation::{NoMemory, with_room};
use crate::ids::Version;
use crate::ledger::Ledger;
use crate::messages::checkpoint_store::LoadRange;
use crate::messages::{Appointment, LinkError, RestoreError, RestoreShard};
use crate::model::initialise;
use crate::optimizer::Optimizer;
use crate::plan::JobPlan;
use crate::planted::{self, Bug};
use crate::shard::{Shard, ShardState};

/// Vectors of the shard's length that a step holds beside the optimizer's state: a sum, the mean
/// gradient, the one before for a copy that lacks it, and the parameters of four versions.
const STEP_VECTORS: usize = 7;

/// The plan of a restoration that can be done.
pub(super) fn planned(restore: &RestoreShard) -> Result<JobPlan, RestoreError> {
    let refused = |cause: String| RestoreError::Plan { cause };
    let RestoreShard { shards, version, .. } = *restore;
    let shard = restore.appointment.copy.shard;
    let plan =
        JobPlan::new(restore.offer.clone(), shards).map_err(|error| refused(error.to_string()))?;
    if shard.0 >= shards {
        return Err(refused(format!("{shard} is not one of {shards} shards")));
    }
    if restore.checkpoint_every == 0 {
        return Err(refused("checkpoint.every_steps is 0; set it to 1 or more".to_owned()));
    }
    let last = plan.last_version();
    if version > last {
        return Err(refused(format!("{version} is beyond the last one, {last}")));
    }
    Ok(plan)
}

pub(super) async fn load_shard(
    plan: JobPlan,
    load: Recipient<LoadRange>,
    restore: RestoreShard,
) -> Result<Shard, RestoreError> {
    let Appointment { copy, view, .. } = restore.appointment;
    let id = copy.shard;
    let range = plan.shards.range(id);
    let job = &plan.offer.job;
    let optimizer = Optimizer::new(&job.optimizer, plan.last_version().0);
    let no_memory = |error: NoMemory| RestoreError::Plan { cause: error.to_string() };
    // Asked for at once and given back untouched: a system that grants each piece and can't keep
    // its word would end the process later.
    let vectors = STEP_VECTORS + optimizer.state_names().len();
    drop(with_room(range.len().saturating_mul(vectors)).map_err(no_memory)?);
    let state = if restore.version == Version(0) {
        ShardState {
            version: restore.version,
            parameters: initialise(&plan.layout, job.seed, range.clone()).map_err(no_memory)?,
            optimizer: optimizer.new_state(range.len()).map_err(no_memory)?,
            ledger: Ledger::default(),
        }
    } else {
        let state: Vec<String> =
            optimizer.state_names().iter().map(|name| (*name).to_owned()).collect();
        let (vectors, expected) = (state.len(), range.len());
        let loaded = load
            .send(LoadRange { version: restore.version, range, state })
            .await
            .map_err(|_| RestoreError::Link(LinkError::Closed))?
            .map_err(|error| match error.may_pass() {
                true => RestoreError::Store { cause: error.to_string() },
                false => RestoreError::Checkpoint { cause: error.to_string() },
            })?;
        let mut lens = std::iter::once(&loaded.parameters).chain(&loaded.state).map(Vec::len);
        if loaded.state.len() != vectors || lens.any(|len| len != expected) {
            let cause = format!("it doesn't hold {} vectors of {expected} values", vectors + 1);
            return Err(RestoreError::Checkpoint { cause });
        }
        let mut state = ShardState {
            version: restore.version,
            parameters: loaded.parameters,
            optimizer: loaded.state,
            ledger: loaded.manifest.ledger,
        };
        if planted::is(Bug::OptimizerLost) {
            state.optimizer = optimizer.new_state(state.parameters.len()).map_err(no_memory)?;
        }
        if planted::is(Bug::LedgerLost) {
            state.ledger = Ledger::default();
        }
        state
    };
    Ok(Shard::new(id, Arc::new(plan), restore.checkpoint_every, view, state))
}
