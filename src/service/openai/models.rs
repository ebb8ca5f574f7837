//! `GET /v1/models`, `GET /v1/models/{id}`.

use actix_web::{HttpRequest, HttpResponse, web};
use gradmesh_actors::version::VersionRef;
use serde::Serialize;
use utoipa::ToSchema;

use super::error::{OpenAiError, OpenAiRefusals};
use crate::service::{ServiceState, oip};

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OpenAiModel {
    id: String,
    object: &'static str,
    /// Of its newest version, in seconds since 1970.
    created: u64,
    owned_by: &'static str,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OpenAiModels {
    object: &'static str,
    data: Vec<OpenAiModel>,
}

async fn about(state: &ServiceState, id: String) -> Result<OpenAiModel, OpenAiError> {
    let version = oip::describe(state, id, VersionRef::Latest).await?;
    let created = version.created_unix_ms / 1000;
    Ok(OpenAiModel { id: version.model, object: "model", created, owned_by: oip::NAME })
}

/// All models, those that embed no text among them.
#[utoipa::path(get, path = "/v1/models", tag = "openai",
    responses((status = 200, body = OpenAiModels), OpenAiRefusals))]
pub(crate) async fn list(
    state: web::Data<ServiceState>,
    request: HttpRequest,
) -> Result<HttpResponse, OpenAiError> {
    state.caller_of(&request)?;
    let mut data = Vec::new();
    for id in oip::names(&state).await? {
        // One that was deleted meanwhile is none.
        data.extend(about(&state, id).await);
    }
    Ok(HttpResponse::Ok().json(OpenAiModels { object: "list", data }))
}

/// One model.
#[utoipa::path(get, path = "/v1/models/{model}", tag = "openai",
    params(("model" = String, Path)),
    responses((status = 200, body = OpenAiModel), OpenAiRefusals))]
pub(crate) async fn retrieve(
    state: web::Data<ServiceState>,
    request: HttpRequest,
) -> Result<HttpResponse, OpenAiError> {
    state.caller_of(&request)?;
    let id = request.match_info().get("model").unwrap_or_default().to_owned();
    Ok(HttpResponse::Ok().json(about(&state, id).await?))
}
