//! `POST /v2/repository/…`: which models this process serves.

use actix_web::{HttpRequest, HttpResponse, web};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::body::{parse_object, read_body};
use super::openapi::{BodyRefusals, ControlRefusals, Refusals};
use super::routes::{Answer, model_of};
use crate::service::ServiceState;
use crate::service::api_error::ApiError;
use crate::service::callers::Caller;
use crate::service::oip;

/// Fields that are not listed are ignored.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub(super) struct IndexRequest {
    /// Only models that are served.
    #[serde(default)]
    ready: bool,
}

#[derive(Debug, Default, Deserialize, ToSchema)]
pub(super) struct LoadRequest {
    #[schema(value_type = Option<Object>)]
    parameters: Option<Map<String, Value>>,
}

/// All versions, and whether they are served.
#[utoipa::path(post, path = "/v2/repository/index", tag = "repository",
    request_body = Option<IndexRequest>,
    responses((status = 200, body = Vec<oip::repository::IndexEntry>), BodyRefusals, Refusals))]
pub(super) async fn index(
    state: web::Data<ServiceState>,
    _: Caller,
    request: HttpRequest,
    payload: web::Payload,
) -> Answer {
    let IndexRequest { ready } = read(&state, &request, payload).await?;
    Ok(HttpResponse::Ok().json(oip::index(&state, ready).await?))
}

/// Serves a model in this process.
///
/// Only with `service.model_control`.
#[utoipa::path(post, path = "/v2/repository/models/{model}/load", tag = "repository",
    params(("model" = String, Path)), request_body = Option<LoadRequest>,
    responses((status = 200, body = Object), ControlRefusals, BodyRefusals, Refusals))]
pub(super) async fn load(
    state: web::Data<ServiceState>,
    caller: Caller,
    request: HttpRequest,
    payload: web::Payload,
) -> Answer {
    let LoadRequest { parameters } = read(&state, &request, payload).await?;
    let parameters = parameters.unwrap_or_default();
    oip::load(&state, &caller, model_of(&request), parameters.keys().map(String::as_str)).await?;
    Ok(HttpResponse::Ok().json(Map::new()))
}

/// Serves a model no longer in this process.
///
/// Only with `service.model_control`.
#[utoipa::path(post, path = "/v2/repository/models/{model}/unload", tag = "repository",
    params(("model" = String, Path)), request_body = Option<LoadRequest>,
    responses((status = 200, body = Object), ControlRefusals, BodyRefusals, Refusals))]
pub(super) async fn unload(
    state: web::Data<ServiceState>,
    caller: Caller,
    request: HttpRequest,
    payload: web::Payload,
) -> Answer {
    let LoadRequest { .. } = read(&state, &request, payload).await?;
    oip::unload(&state, &caller, model_of(&request)).await?;
    Ok(HttpResponse::Ok().json(Map::new()))
}

/// Some clients send no body at all.
async fn read<T: DeserializeOwned + Default>(
    state: &ServiceState,
    request: &HttpRequest,
    payload: web::Payload,
) -> Result<T, ApiError> {
    let body = read_body(state, request, payload).await?;
    if body.bytes.iter().all(u8::is_ascii_whitespace) {
        return Ok(T::default());
    }
    parse_object(&body.bytes)
}
