//! What a model takes and answers, as the protocol describes it, and whether it is served.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use gradmesh_actors::messages::{FindModel, ListModels, ask};
use gradmesh_actors::serving::signature_of;
use gradmesh_actors::tensor_model::{Port, Signature};
use gradmesh_actors::version::{Parent, VersionDescription, VersionRef, check_model_name};
use serde::Serialize;
use utoipa::ToSchema;

use super::{CLASS, Datatype, NAME};
use crate::service::api_error::{ApiError, ErrorKind};
use crate::service::{FIND_LIMIT, ServiceState};

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
    pub(in crate::service) name: String,
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
    pub(in crate::service) name: String,
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
    if version == VersionRef::Latest
        && let Some(followed) = state.followed().filter(|followed| followed.model == model)
    {
        return Ok(followed);
    }
    Ok(ask(&state.actors.find, FindModel { model, version }, FIND_LIMIT).await?)
}

/// Names of all models of the registry.
///
/// # Errors
/// No registry answers.
pub(in crate::service) async fn names(state: &ServiceState) -> Result<Vec<String>, ApiError> {
    let list = ask(&state.actors.list, ListModels {}, FIND_LIMIT).await?;
    let mut names: Vec<String> = list.models.into_iter().map(|summary| summary.model).collect();
    // The first run of a model is in no registry.
    if let Some(followed) = state.followed()
        && let Err(at) = names.binary_search(&followed.model)
    {
        names.insert(at, followed.model);
    }
    Ok(names)
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
    let (inputs, outputs) = ports(&description);
    Ok(ModelMetadata {
        versions: versions.iter().map(u64::to_string).collect(),
        platform: NAME,
        inputs: inputs.into_iter().map(TensorMetadata::from).collect(),
        outputs: outputs.into_iter().map(TensorMetadata::from).collect(),
        properties: properties(&description),
        name: description.model,
    })
}

/// Inputs and outputs of a version; of a classifier that was trained here the class too, which the service
/// finds in the probabilities.
fn ports(description: &VersionDescription) -> (Vec<Port>, Vec<Port>) {
    let Signature { inputs, mut outputs } = signature_of(description);
    if description.signature.is_none() && description.classes.is_some() {
        let (name, datatype) = (CLASS.to_owned(), Datatype::Int64);
        outputs.push(Port { name, datatype, shape: vec![None] });
    }
    (inputs, outputs)
}

/// Lengths as the protocol writes them.
fn dims(shape: &[Option<usize>]) -> Vec<i64> {
    let dim = |dim: &Option<usize>| dim.map_or(-1, |dim| i64::try_from(dim).unwrap_or(i64::MAX));
    shape.iter().map(dim).collect()
}

impl From<Port> for TensorMetadata {
    fn from(port: Port) -> Self {
        Self { name: port.name, datatype: port.datatype, shape: dims(&port.shape) }
    }
}

fn properties(description: &VersionDescription) -> BTreeMap<String, String> {
    let mut properties: BTreeMap<String, String> = [
        ("version", description.served().to_string()),
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
    if let Some(Parent { model, version, digest }) = &description.parent {
        properties.insert("parent".to_owned(), format!("{model}/{version}"));
        if let Some(digest) = digest {
            properties.insert("parent_digest".to_owned(), digest.clone());
        }
    }
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
    let (inputs, outputs) = ports(&description);
    // Only then the first dimension is that of rows.
    let rows = inputs.iter().chain(&outputs).all(|port| port.shape.first() == Some(&None));
    let row: usize = inputs.iter().map(row_bytes).sum();
    let max = i32::try_from(state.limits.body_bytes_max / row.max(1)).unwrap_or(i32::MAX);
    let tensor = |port| TensorConfig::new(port, rows);
    Ok(ModelConfig {
        platform: NAME,
        backend: NAME,
        version_policy: VersionPolicy { all: NoFields {} },
        max_batch_size: if rows { max } else { 0 },
        input: inputs.into_iter().map(tensor).collect(),
        output: outputs.into_iter().map(tensor).collect(),
        name: description.model,
    })
}

/// The least that a row of it takes.
fn row_bytes(port: &Port) -> usize {
    let row = port.shape.iter().skip(1).map(|dim| dim.unwrap_or(1));
    row.fold(port.datatype.size().unwrap_or(1), usize::saturating_mul)
}

impl TensorConfig {
    /// `rows`: the shape is that of a row.
    fn new(port: Port, rows: bool) -> Self {
        let shape = if rows { port.shape.get(1..).unwrap_or_default() } else { &port.shape[..] };
        let (dims, reshape) = match dims(shape) {
            none if none.is_empty() => (vec![1], Some(Reshape { shape: Vec::new() })),
            dims => (dims, None),
        };
        Self { name: port.name, data_type: port.datatype, dims, reshape }
    }
}
