//! The model repository extension: which models this process serves.
//!
//! A gradmesh model comes into being when it is published, so loading can't bring one along.

use std::time::Duration;

use gradmesh_actors::messages::{ListModels, LoadModel, UnloadModel, ask};
use serde::Serialize;
use utoipa::ToSchema;

use super::model::check_name;
use crate::service::api_error::{ApiError, ErrorKind};
use crate::service::callers::Caller;
use crate::service::{FIND_LIMIT, ServiceState};

/// The longest wait for a version to be in memory: a gigabyte over a slow link, as the predictor
/// waits for it, and what lies around.
const LOAD_LIMIT: Duration = Duration::from_secs(130);

/// A version of a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(in crate::service) struct IndexEntry {
    pub(in crate::service) name: String,
    pub(in crate::service) version: String,
    pub(in crate::service) state: &'static str,
    /// Why it is not ready; empty where it is.
    pub(in crate::service) reason: &'static str,
}

/// Every version of the registry, by model and number, and the state of a training that is followed.
///
/// # Errors
/// No registry answers.
pub(in crate::service) async fn index(
    state: &ServiceState,
    ready_only: bool,
) -> Result<Vec<IndexEntry>, ApiError> {
    let list = ask(&state.actors.list, ListModels {}, FIND_LIMIT).await?;
    let offer = state.actors.offer.borrow();
    let mut index = Vec::new();
    for summary in list.models {
        let offered = offer.has(&summary.model);
        if ready_only && !offered {
            continue;
        }
        let (word, reason) = if offered { ("READY", "") } else { ("UNAVAILABLE", "unloaded") };
        index.extend(summary.versions.iter().map(|version| IndexEntry {
            name: summary.model.clone(),
            version: version.to_string(),
            state: word,
            reason,
        }));
    }
    if let Some(followed) = state.followed().filter(|followed| offer.has(&followed.model)) {
        let version = followed.served().to_string();
        let place = index.partition_point(|entry| entry.name <= followed.model);
        let name = followed.model;
        index.insert(place, IndexEntry { name, version, state: "READY", reason: "" });
    }
    Ok(index)
}

/// Serves a model, with its newest version in memory. `parameters`: names of those that the
/// request has.
///
/// # Errors
/// Callers may not, there is no such model, it can't be loaded, or the request brings a model of its
/// own along.
pub(in crate::service) async fn load<'a>(
    state: &ServiceState,
    caller: &Caller,
    model: String,
    parameters: impl IntoIterator<Item = &'a str>,
) -> Result<(), ApiError> {
    check_control(state, caller, &model)?;
    let brings = |name: &&str| *name == "config" || name.starts_with("file:");
    if let Some(name) = parameters.into_iter().find(brings) {
        let text = format!("a model is changed by publishing a version, not by parameter {name:?}");
        return Err(ApiError::new(ErrorKind::Unsupported, text));
    }
    check_name(&model)?;
    ask(&state.actors.load, LoadModel { model }, LOAD_LIMIT).await?;
    Ok(())
}

/// Serves a model no longer, and frees its memory.
///
/// # Errors
/// Callers may not, there is no such model, or nobody can say so.
pub(in crate::service) async fn unload(
    state: &ServiceState,
    caller: &Caller,
    model: String,
) -> Result<(), ApiError> {
    check_control(state, caller, &model)?;
    check_name(&model)?;
    ask(&state.actors.unload, UnloadModel { model }, FIND_LIMIT).await?;
    Ok(())
}

/// Else whoever may predict could take a model from all others: a page in a browser of this machine
/// is enough.
fn check_control(state: &ServiceState, caller: &Caller, model: &str) -> Result<(), ApiError> {
    caller.may_control(model)?;
    if state.model_control {
        return Ok(());
    }
    let text =
        "models are not loaded or unloaded by callers here; set service.model_control = true";
    Err(ApiError::new(ErrorKind::Forbidden, text))
}
