//! `POST /v2/models/{model}[/versions/{version}]/infer`.

use actix_web::http::header::HeaderName;
use actix_web::{HttpRequest, HttpResponse, ResponseError, web};

use super::body::{Body, read_body};
use super::openapi::{BodyRefusals, ModelRefusals, Refusals};
use super::request::{JSON_LENGTH, JsonRequest, read_request};
use super::response::{JsonResponse, Written, write_response};
use super::routes::{model_of, version_of};
use crate::service::ServiceState;
use crate::service::api_error::ApiError;
use crate::service::oip::Inference;
use crate::service::request_id::request_id;

// Looked up by a text, a header's name is checked and hashed as one that a stranger has sent.
static JSON_LENGTH_HEADER: HeaderName = HeaderName::from_static(JSON_LENGTH);
static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// A prediction.
///
/// Tensors are JSON, or raw bytes behind it (the binary tensor extension).
#[utoipa::path(post, path = "/v2/models/{model}/infer", tag = "inference",
    params(
        ("model" = String, Path),
        ("inference-header-content-length" = Option<u64>, Header,
            description = "How many bytes of the body are JSON, where raw tensors follow"),
    ),
    request_body(content((JsonRequest = "application/json"), ("application/octet-stream"))),
    responses(
        (status = 200, content((JsonResponse = "application/json"), ("application/octet-stream"))),
        BodyRefusals, ModelRefusals, Refusals,
    ))]
pub(super) async fn infer(
    state: web::Data<ServiceState>,
    request: HttpRequest,
    payload: web::Payload,
) -> HttpResponse {
    let mut inference = Inference::begin(&state, named(&request));
    let answer = answer(&state, &mut inference, &request, payload).await;
    let response = match answer {
        Ok(Written { body, json_length: None }) => {
            HttpResponse::Ok().content_type("application/json").body(body)
        }
        Ok(Written { body, json_length: Some(length) }) => HttpResponse::Ok()
            .content_type("application/octet-stream")
            .insert_header((JSON_LENGTH_HEADER.clone(), length))
            .body(body),
        Err(error) => error.error_response(),
    };
    inference.end(response.status());
    response
}

/// What its sender calls it.
pub(in crate::service) fn named(request: &HttpRequest) -> String {
    let header = |name: &HeaderName| request.headers().get(name)?.to_str().ok();
    request_id(header(&TRACEPARENT), header(&REQUEST_ID))
}

async fn answer(
    state: &ServiceState,
    inference: &mut Inference<'_>,
    request: &HttpRequest,
    payload: web::Payload,
) -> Result<Written, ApiError> {
    let caller = state.caller_of(request)?;
    let (model, version) = (model_of(request), version_of(request)?);
    let json_length = json_length(request)?;
    // Before its body takes the room of others.
    let admitted = state.admit(&caller, &model)?;
    let Body { bytes, places: _places } = read_body(state, request, payload).await?;
    // Its place stays as long as its tensors, raw or read, wait for the model.
    let read = move || read_request(&bytes, json_length);
    inference
        .answer(admitted, model, version, read, |response, form| write_response(&response, &form))
        .await
}

fn json_length(request: &HttpRequest) -> Result<Option<usize>, ApiError> {
    let Some(value) = request.headers().get(&JSON_LENGTH_HEADER) else { return Ok(None) };
    let length = value.to_str().ok().and_then(|text| text.trim().parse().ok());
    let wrong = || ApiError::bad(format!("{JSON_LENGTH} is {value:?}, not a whole number"));
    length.map(Some).ok_or_else(wrong)
}
