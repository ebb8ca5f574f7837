//! The small answers of the protocol.

use serde::Serialize;
use utoipa::ToSchema;

use crate::service::oip::statistics::ModelStatistics;

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ServerMetadata {
    pub(super) name: &'static str,
    pub(super) version: &'static str,
    pub(super) extensions: Vec<&'static str>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Live {
    pub(super) live: bool,
}

/// With `live`, which the specification's page writes here.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Ready {
    pub(super) live: bool,
    pub(super) ready: bool,
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Models {
    pub(super) models: Vec<String>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ModelReady {
    pub(super) name: String,
    pub(super) ready: bool,
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct StatisticsAnswer {
    pub(super) model_stats: Vec<ModelStatistics>,
}
