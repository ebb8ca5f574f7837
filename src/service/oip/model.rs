//! What a model takes and answers, as the protocol describes it, and whether it is served.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use gradmesh_actors::messages::{FindModel, ListModels, ask};
use gradmesh_actors::version::{VersionDescription, VersionRef, check_model_name};
use serde::Serialize;
use utoipa::ToSchema;

use super::{CLASS, Datatype, INPUT, NAME, OUTPUT};
use crate::service::api_error::{ApiError, ErrorKind};
use crate::service::{FIND_LIMIT, ServiceState};

/// Bytes of a value that a model takes.
const VALUE: usize = size_of::<f32>();

#[derive(Clone, Debug, Serialize, ToSchema)]
pub(in crate::service) struct ModelMetadata {
    pub(in crate::service) name: String,
    /// Rising.
    pub(in crate::service) versions: Vec<String>,
    pub(in crate::service) platform: &'static str,
    pub(in crate::service) inputs: Vec<TensorMetadata>,
    pub(in crate::service) outputs: Vec<TensorMetadata>,
    /// Where the version comes from.
    pub(in crate::service) properties: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Serialize, ToSchema)]
pub(in crate::service) struct TensorMetadata {
    pub(in crate::service) name: &'static str,
    #[schema(value_type = String, example = "FP32")]
    pub(in crate::service) datatype: Datatype,
    /// -1 for any length.
    pub(in crate::service) shape: Vec<i64>,
}

/// A model's configuration, as Triton writes it: shapes are those of a row.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(in crate::service) struct ModelConfig {
    pub(in crate::service) name: String,
    pub(in crate::service) platform: &'static str,
    pub(in crate::service) backend: &'static str,
    pub(in crate::service) version_policy: VersionPolicy,
    /// Rows whose binary form is the largest body that the service takes.
    pub(in crate::service) max_batch_size: i32,
    pub(in crate::service) input: Vec<TensorConfig>,
    pub(in crate::service) output: Vec<TensorConfig>,
}

/// All versions are served.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub(in crate::service) struct VersionPolicy {
    all: NoFields,
}

#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
struct NoFields {}

#[derive(Clone, Debug, Serialize, ToSchema)]
pub(in crate::service) struct TensorConfig {
    pub(in crate::service) name: &'static str,
    #[serde(serialize_with = "config_name")]
    #[schema(value_type = String, example = "TYPE_FP32")]
    pub(in crate::service) data_type: Datatype,
    pub(in crate::service) dims: Vec<i64>,
    /// What `dims` stand for where a row has no dimension, which they can't say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::service) reshape: Option<Reshape>,
}

#[derive(Clone, Debug, Serialize, ToSchema)]
pub(in crate::service) struct Reshape {
    pub(in crate::service) shape: Vec<i64>,
}

fn config_name<S: serde::Serializer>(datatype: &Datatype, to: S) -> Result<S::Ok, S::Error> {
    match datatype {
        Datatype::Bytes => to.serialize_str("TYPE_STRING"),
        other => to.collect_str(&format_args!("TYPE_{other}")),
    }
}

/// A name that no model can have is that of none. Nobody else is asked for it.
///
/// # Errors
/// It is one.
pub(super) fn check_name(model: &str) -> Result<(), ApiError> {
    check_model_name(model)
        .map_err(|_| ApiError::new(ErrorKind::NotFound, format!("no model {model:?}")))
}

/// The version that a name means.
///
/// # Errors
/// There is none, or no registry answers.
pub(in crate::service) async fn describe(
    state: &ServiceState,
    model: String,
    version: VersionRef,
) -> Result<VersionDescription, ApiError> {
    check_name(&model)?;
    Ok(ask(&state.actors.find, FindModel { model, version }, FIND_LIMIT).await?)
}

/// Names of all models of the registry.
///
/// # Errors
/// No registry answers.
pub(in crate::service) async fn names(state: &ServiceState) -> Result<Vec<String>, ApiError> {
    let list = ask(&state.actors.list, ListModels {}, FIND_LIMIT).await?;
    Ok(list.models.into_iter().map(|summary| summary.model).collect())
}

/// Ready once the registry has answered, and then for as long as there is a predictor: it serves
/// what it knows while the registry is away, so a lost registry must not take the service out of
/// its load balancer.
///
/// # Errors
/// Why not.
pub(in crate::service) async fn server_ready(state: &ServiceState) -> Result<(), ApiError> {
    if !state.predictor().connected() {
        return Err(ApiError::new(ErrorKind::Unavailable, "the predictor is gone"));
    }
    if !state.ready.load(Ordering::Relaxed) {
        ask(&state.actors.list, ListModels {}, FIND_LIMIT).await.map_err(|error| {
            let text = format!("the registry is not ready: {error}");
            ApiError::new(ErrorKind::Unavailable, text)
        })?;
        state.ready.store(true, Ordering::Relaxed);
    }
    Ok(())
}

/// The model's name, if there is such a version and the model is served.
///
/// # Errors
/// There is none, no registry answers, or the model was unloaded.
pub(in crate::service) async fn model_ready(
    state: &ServiceState,
    model: String,
    version: VersionRef,
) -> Result<String, ApiError> {
    let model = describe(state, model, version).await?.model;
    if state.actors.offer.borrow().has(&model) {
        return Ok(model);
    }
    let text = format!("{model} was unloaded and is not served until it is loaded again");
    Err(ApiError::new(ErrorKind::Unloaded, text))
}

/// # Errors
/// There is no such version, or no registry answers.
pub(in crate::service) async fn metadata(
    state: &ServiceState,
    model: String,
    version: VersionRef,
) -> Result<ModelMetadata, ApiError> {
    let description = describe(state, model, version).await?;
    let list = ask(&state.actors.list, ListModels {}, FIND_LIMIT).await?;
    let summary = list.models.into_iter().find(|summary| summary.model == description.model);
    let versions = summary.map(|summary| summary.versions).unwrap_or_default();
    let tensor = |name, datatype, shape| TensorMetadata { name, datatype, shape };
    let width = |values| i64::try_from(values).unwrap_or(i64::MAX);
    let mut outputs = vec![tensor(OUTPUT, Datatype::Fp32, vec![-1, width(description.outputs)])];
    if description.classes.is_some() {
        outputs.push(tensor(CLASS, Datatype::Int64, vec![-1]));
    }
    Ok(ModelMetadata {
        versions: versions.iter().map(u64::to_string).collect(),
        platform: NAME,
        inputs: vec![tensor(INPUT, Datatype::Fp32, vec![-1, width(description.features)])],
        outputs,
        properties: properties(&description),
        name: description.model,
    })
}

fn properties(description: &VersionDescription) -> BTreeMap<String, String> {
    let mut properties: BTreeMap<String, String> = [
        ("version", description.version.to_string()),
        ("kind", description.architecture.kind.clone()),
        ("digest", description.digest.clone()),
        ("run", description.run.clone()),
        ("job_digest", description.job_digest.clone()),
        ("data_digest", description.data_digest.clone()),
        ("steps", description.steps.to_string()),
        ("epochs", description.epochs.to_string()),
        ("created_unix_ms", description.created_unix_ms.to_string()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    for (name, value) in &description.metrics {
        properties.insert(format!("metric.{name}"), value.to_string());
    }
    if let Some(classes) = description.classes {
        properties.insert("classes".to_owned(), classes.to_string());
    }
    properties
}

/// # Errors
/// There is no such version, or no registry answers.
pub(in crate::service) async fn config(
    state: &ServiceState,
    model: String,
    version: VersionRef,
) -> Result<ModelConfig, ApiError> {
    let description = describe(state, model, version).await?;
    let width = |values| vec![i64::try_from(values).unwrap_or(i64::MAX)];
    let tensor = |name, data_type, dims| TensorConfig { name, data_type, dims, reshape: None };
    let mut output = vec![tensor(OUTPUT, Datatype::Fp32, width(description.outputs))];
    if description.classes.is_some() {
        let reshape = Some(Reshape { shape: Vec::new() });
        output.push(TensorConfig { reshape, ..tensor(CLASS, Datatype::Int64, vec![1]) });
    }
    let row = description.features.saturating_mul(VALUE).max(1);
    Ok(ModelConfig {
        platform: NAME,
        backend: NAME,
        version_policy: VersionPolicy { all: NoFields {} },
        max_batch_size: i32::try_from(state.limits.body_bytes_max / row).unwrap_or(i32::MAX),
        input: vec![tensor(INPUT, Datatype::Fp32, width(description.features))],
        output,
        name: description.model,
    })
}
