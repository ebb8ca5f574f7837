//! `POST /v2/models/{model}[/versions/{version}]/infer`.

use std::sync::atomic::Ordering;
use std::time::Duration;

use actix_web::error::PayloadError;
use actix_web::http::{StatusCode, header};
use actix_web::{FromRequest, HttpRequest, HttpResponse, ResponseError, web};
use gradmesh_actors::catalog::CatalogError;
use gradmesh_actors::messages::{FindError, Predict, PredictError, Values, ask};
use tokio::time::Instant;

use super::api_error::ApiError;
use super::infer_request::read_request;
use super::infer_response::respond;
use super::routes::model_and_version;
use super::{PLACE, ServiceState};

/// The header of the protocol's binary tensor extension, which this server doesn't speak yet.
const BINARY: &str = "inference-header-content-length";

/// The longest wait for the body of a request: 16 MiB at 4 Mbit/s. It counts against all others.
const BODY_LIMIT: Duration = Duration::from_secs(32);

pub(super) async fn infer(
    state: web::Data<ServiceState>,
    request: HttpRequest,
    payload: web::Payload,
) -> HttpResponse {
    let start = Instant::now();
    let mut known = None;
    let answer = answer(&state, &request, payload, &mut known).await;
    let response = answer.unwrap_or_else(|error| error.error_response());
    state.requests.count(known.as_deref(), response.status(), start.elapsed());
    response
}

/// Answers; `known` becomes the model if it exists.
async fn answer(
    state: &ServiceState,
    request: &HttpRequest,
    payload: web::Payload,
    known: &mut Option<String>,
) -> Result<HttpResponse, ApiError> {
    let (model, version) = model_and_version(request)?;
    if request.headers().contains_key(BINARY) {
        let text = "binary tensors are not supported; send the data of tensors as JSON";
        return Err(ApiError::new(StatusCode::NOT_IMPLEMENTED, text));
    }
    let Ok(_places) = state.places.try_acquire_many(places(state, request)) else {
        let limit = state.limits.bodies_bytes_max;
        let text =
            format!("requests of {limit} bytes are under way already; try again in a second");
        return Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, text));
    };
    let body = read_body(state, request, payload).await?;
    let mut question = read_request(&body)?;
    drop(body);
    let predict = Predict {
        model: model.clone(),
        version,
        rows: question.rows,
        features: question.features,
        inputs: Values::new(std::mem::take(&mut question.inputs)),
    };
    let prediction = ask(&state.predict, predict, state.limits.infer).await;
    if proves_model(&prediction) {
        *known = Some(model);
    }
    let prediction = prediction?;
    let response = respond(&question, &prediction)?;
    let json = serde_json::to_vec(&response)
        .map_err(|e| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, e.to_string()))?;
    state.requests.count_rows(&prediction.model, prediction.rows);
    state.requests.count_resolved(prediction.resolved);
    // What answers is ready, whoever has asked first.
    state.ready.store(true, Ordering::Relaxed);
    Ok(HttpResponse::Ok().content_type("application/json").body(json))
}

/// Permits for the body: by its length, and as for the largest body where that is not known.
fn places(state: &ServiceState, request: &HttpRequest) -> u32 {
    let headers = request.headers();
    let length = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok());
    let known = if headers.contains_key(header::CONTENT_ENCODING) { None } else { length };
    let largest = state.limits.body_bytes_max;
    let bytes =
        known.and_then(|length| length.parse().ok()).map_or(largest, |n: usize| n.min(largest));
    u32::try_from(bytes.div_ceil(PLACE).max(1)).unwrap_or(u32::MAX)
}

/// Whether this answer is given only for a model that exists.
fn proves_model<T>(answer: &Result<T, PredictError>) -> bool {
    match answer {
        Ok(_) => true,
        Err(PredictError::Registry(FindError::Catalog(cause))) => matches!(
            cause,
            CatalogError::NoVersion { .. }
                | CatalogError::NoVersions { .. }
                | CatalogError::NoAlias { .. }
        ),
        Err(
            PredictError::Registry(_)
            | PredictError::NoRows
            | PredictError::Busy { .. }
            | PredictError::Link(_),
        ) => false,
        Err(_) => true,
    }
}

/// The body, unpacked where it is compressed. Its content type is not looked at: some clients send
/// none.
async fn read_body(
    state: &ServiceState,
    request: &HttpRequest,
    payload: web::Payload,
) -> Result<web::Bytes, ApiError> {
    if let Some(encoding) = request.headers().get(header::CONTENT_ENCODING) {
        let known = ["gzip", "deflate", "identity"];
        if !known.iter().any(|name| encoding.as_bytes().eq_ignore_ascii_case(name.as_bytes())) {
            let text = format!("content encoding {encoding:?} is not one of {}", known.join(", "));
            return Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, text));
        }
    }
    let mut payload = payload.into_inner();
    let read = web::Bytes::from_request(request, &mut payload);
    let Ok(read) = tokio::time::timeout(BODY_LIMIT, read).await else {
        let text = format!("the body did not arrive within {} s", BODY_LIMIT.as_secs());
        return Err(ApiError::new(StatusCode::REQUEST_TIMEOUT, text));
    };
    read.map_err(|error| match error.as_error() {
        Some(PayloadError::Overflow) => {
            let limit = state.limits.body_bytes_max;
            let text = format!("the body is larger than {limit} bytes; send fewer rows a request");
            ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, text)
        }
        _ => ApiError::bad(format!("the body can't be read: {error}")),
    })
}
