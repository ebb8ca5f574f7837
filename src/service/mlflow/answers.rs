//! Models and versions in MLflow's form.

use std::collections::BTreeMap;

use gradmesh_actors::catalog::{ModelRecord, Origin, VersionRecord};
use gradmesh_actors::notes::RESERVED;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The aliases that stand for MLflow's stages, the one that counts first.
pub(super) const STAGES: [(&str, &str); 2] = [("Production", "production"), ("Staging", "staging")];
/// The stage of a version that has none of them.
pub(super) const NO_STAGE: &str = "None";

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct Tag {
    pub(super) key: String,
    #[serde(default)]
    pub(super) value: String,
}

#[derive(Debug, Serialize, ToSchema)]
struct AliasOf {
    alias: String,
    version: String,
}

/// Times in milliseconds since 1970.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RegisteredModel {
    name: String,
    creation_timestamp: u64,
    last_updated_timestamp: u64,
    user_id: &'static str,
    description: String,
    latest_versions: Vec<ModelVersion>,
    tags: Vec<Tag>,
    aliases: Vec<AliasOf>,
}

/// Times in milliseconds since 1970.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ModelVersion {
    name: String,
    version: String,
    creation_timestamp: u64,
    last_updated_timestamp: u64,
    user_id: &'static str,
    current_stage: &'static str,
    description: String,
    pub(super) source: String,
    run_id: String,
    status: &'static str,
    status_message: &'static str,
    run_link: &'static str,
    /// With what the registry knows of a version that it has: keys that begin with `gradmesh.`
    tags: Vec<Tag>,
    aliases: Vec<String>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ModelAnswer {
    pub(super) registered_model: RegisteredModel,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct VersionAnswer {
    pub(super) model_version: ModelVersion,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ModelsAnswer {
    pub(super) registered_models: Vec<RegisteredModel>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) next_page_token: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct VersionsAnswer {
    pub(super) model_versions: Vec<ModelVersion>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) next_page_token: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DownloadAnswer {
    pub(super) artifact_uri: String,
}

impl From<ModelRecord> for RegisteredModel {
    fn from(record: ModelRecord) -> Self {
        let aliases = record.aliases.into_iter();
        Self {
            name: record.model,
            creation_timestamp: record.created_unix_ms,
            last_updated_timestamp: record.updated_unix_ms,
            user_id: "",
            description: record.description,
            latest_versions: record.latest.into_iter().map(ModelVersion::from).collect(),
            tags: tags(record.tags),
            aliases: aliases
                .map(|(alias, version)| AliasOf { alias, version: version.to_string() })
                .collect(),
        }
    }
}

impl From<VersionRecord> for ModelVersion {
    fn from(record: VersionRecord) -> Self {
        let stage = STAGES.iter().find(|(_, alias)| record.aliases.iter().any(|one| one == alias));
        let mut tags = tags(record.tags);
        let (source, run_id) = match record.origin {
            Origin::Linked { place, run } => (place, run.unwrap_or_default()),
            Origin::Published {
                run,
                digest,
                job_digest,
                parent,
                data_digest,
                artifact_blake3,
                metrics,
            } => {
                let known = [
                    ("digest", digest),
                    ("job_digest", job_digest),
                    ("data_digest", data_digest),
                    ("artifact_blake3", artifact_blake3),
                ];
                let parent = parent.map(|parent| ("parent", parent));
                let known = known.into_iter().chain(parent);
                let known = known.map(|(key, value)| (key.to_owned(), value));
                let metrics = metrics.into_iter();
                let metrics =
                    metrics.map(|(key, value)| (format!("metrics.{key}"), value.to_string()));
                tags.extend(
                    known
                        .chain(metrics)
                        .map(|(key, value)| Tag { key: format!("{RESERVED}{key}"), value }),
                );
                (format!("gradmesh:/{}/{}", record.model, record.version), run)
            }
        };
        Self {
            name: record.model,
            version: record.version.to_string(),
            creation_timestamp: record.created_unix_ms,
            last_updated_timestamp: record.updated_unix_ms,
            user_id: "",
            current_stage: stage.map_or(NO_STAGE, |(stage, _)| stage),
            description: record.description,
            source,
            run_id,
            status: "READY",
            status_message: "",
            run_link: "",
            tags,
            aliases: record.aliases,
        }
    }
}

fn tags(tags: BTreeMap<String, String>) -> Vec<Tag> {
    tags.into_iter().map(|(key, value)| Tag { key, value }).collect()
}
