//! The body of a request, within the limits of the service.

use actix_web::error::PayloadError;
use actix_web::http::header;
use actix_web::{FromRequest, HttpRequest, web};
use serde::de::DeserializeOwned;
use tokio::sync::SemaphorePermit;

use crate::service::api_error::{ApiError, ErrorKind};
use crate::service::{BODY_LIMIT, PLACE, ServiceState};

/// A body, and its place among those of all requests.
#[derive(Debug)]
pub(in crate::service) struct Body<'a> {
    pub(in crate::service) bytes: web::Bytes,
    pub(in crate::service) places: SemaphorePermit<'a>,
}

/// The body, unpacked where it is compressed. Its content type is not looked at: some clients send
/// none.
pub(in crate::service) async fn read_body<'a>(
    state: &'a ServiceState,
    request: &HttpRequest,
    payload: web::Payload,
) -> Result<Body<'a>, ApiError> {
    let Ok(places) = state.places.try_acquire_many(places(state, request)) else {
        return Err(state.bodies_full());
    };
    if let Some(encoding) = request.headers().get(header::CONTENT_ENCODING) {
        let known = ["gzip", "deflate", "identity"];
        if !known.iter().any(|name| encoding.as_bytes().eq_ignore_ascii_case(name.as_bytes())) {
            let text = format!("content encoding {encoding:?} is not one of {}", known.join(", "));
            return Err(ApiError::new(ErrorKind::Encoding, text));
        }
    }
    let mut payload = payload.into_inner();
    let read = web::Bytes::from_request(request, &mut payload);
    let Ok(read) = tokio::time::timeout(BODY_LIMIT, read).await else {
        let text = format!("the body did not arrive within {} s", BODY_LIMIT.as_secs());
        return Err(ApiError::new(ErrorKind::Slow, text));
    };
    let bytes = read.map_err(|error| match error.as_error() {
        Some(PayloadError::Overflow) => {
            let limit = state.limits.body_bytes_max;
            let text = format!("the body is larger than {limit} bytes; send fewer rows a request");
            ApiError::new(ErrorKind::TooLarge, text)
        }
        _ => ApiError::bad(format!("the body can't be read: {error}")),
    })?;
    Ok(Body { bytes, places })
}

/// A body that is one JSON object.
pub(in crate::service) async fn read_json<T: DeserializeOwned>(
    state: &ServiceState,
    request: &HttpRequest,
    payload: web::Payload,
) -> Result<T, ApiError> {
    parse_object(&read_body(state, request, payload).await?.bytes)
}

pub(in crate::service) fn parse_object<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    match body.iter().find(|byte| !byte.is_ascii_whitespace()) {
        None => Err(ApiError::bad("the body is empty")),
        Some(b'{') => serde_json::from_slice(body)
            .map_err(|cause| ApiError::bad(format!("the body can't be read: {cause}"))),
        // serde also reads structs from arrays, which no client means.
        Some(_) => Err(ApiError::bad("the body is not a JSON object")),
    }
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
