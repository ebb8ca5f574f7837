//! Where a copy's state comes from: its seed, a published version, or a checkpoint.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use actix::Recipient;

use crate::allocation::{NoMemory, with_room};
use crate::ids::Version;
use crate::ledger::Ledger;
use crate::messages::checkpoint_store::LoadRange;
use crate::messages::{
    Appointment, FetchModel, FindError, FindModel, LinkError, RestoreError, RestoreShard, ask,
};
use crate::model::initialise;
use crate::optimizer::Optimizer;
use crate::plan::JobPlan;
use crate::planted::{self, Bug};
use crate::shard::{Shard, ShardState};
use crate::version::{Start, VersionRef};

/// Vectors of the shard's length that a step holds beside the optimizer's state: a sum, the mean
/// gradient, the one before for a copy that lacks it, and the parameters of four versions.
const STEP_VECTORS: usize = 7;

/// The longest wait for a registry, which answers from memory.
const FIND_LIMIT: Duration = Duration::from_secs(1);

/// The longest wait for a version that a job begins with: a gigabyte over a slow link.
const FETCH_LIMIT: Duration = Duration::from_secs(120);

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

/// Whom a copy asks for its state.
pub(super) struct Sources {
    pub(super) checkpoint: Recipient<LoadRange>,
    pub(super) find: Recipient<FindModel>,
    pub(super) fetch: Recipient<FetchModel>,
}

pub(super) async fn load_shard(
    plan: JobPlan,
    sources: Sources,
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
            parameters: match &job.model.from {
                None => initialise(&plan.layout, job.seed, range.clone()).map_err(no_memory)?,
                Some(start) => inherited(&plan, &sources, start, range.clone()).await?,
            },
            optimizer: optimizer.new_state(range.len()).map_err(no_memory)?,
            ledger: Ledger::default(),
        }
    } else {
        let state: Vec<String> =
            optimizer.state_names().iter().map(|name| (*name).to_owned()).collect();
        let (vectors, expected) = (state.len(), range.len());
        let loaded = sources
            .checkpoint
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

/// A range of the parameters of a published version. Each copy reads the whole of it, once a run.
async fn inherited(
    plan: &JobPlan,
    sources: &Sources,
    start: &Start,
    range: Range<usize>,
) -> Result<Vec<f32>, RestoreError> {
    let refused = |cause: String| RestoreError::Plan { cause };
    let unread = |error: FindError| match error.may_pass() {
        true => RestoreError::Store { cause: error.to_string() },
        false => refused(format!("{error}; change job.model.from")),
    };
    let (model, version) = (start.model.clone(), VersionRef::Number(start.version));
    // Whoever asked hears that it does not fit before it gives up waiting.
    let find = FindModel { model: model.clone(), version: version.clone() };
    let found = ask(&sources.find, find, FIND_LIMIT).await.map_err(unread)?;
    let described = found.tensors.iter().map(|tensor| (&tensor.name, &tensor.shape));
    let own = plan.layout.tensors().iter().map(|spec| (&spec.name, &spec.shape));
    if found.signature.is_some() || !described.eq(own) {
        return Err(refused(format!(
            "{start} has other tensors than the model of this job; change job.model.from, or job.model to what that one is"
        )));
    }
    let fetched = ask(&sources.fetch, FetchModel { model, version }, FETCH_LIMIT).await;
    let fetched = fetched.map_err(unread)?;
    if fetched.description.tensors != found.tensors {
        return Err(refused(format!(
            "{start} is another version than it was; change job.model.from"
        )));
    }
    let no_memory = |error: NoMemory| refused(error.to_string());
    let mut parameters = with_room(range.len()).map_err(no_memory)?;
    for (at, values) in fetched.tensors.iter().enumerate() {
        let tensor = plan.layout.range(at);
        let (from, to) = (range.start.max(tensor.start), range.end.min(tensor.end));
        if from < to {
            parameters.extend_from_slice(&values[from - tensor.start..to - tensor.start]);
        }
    }
    Ok(parameters)
}
