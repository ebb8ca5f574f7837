//! `POST /v2/models/{model}[/versions/{version}]/infer`.

use actix_web::{HttpRequest, HttpResponse, ResponseError, web};

use super::body::{Body, read_body};
use super::request::{JSON_LENGTH, read_request};
use super::response::{Written, write_response};
use super::routes::{model_of, version_of};
use crate::service::ServiceState;
use crate::service::api_error::ApiError;
use crate::service::oip::Inference;

pub(super) async fn infer(
    state: web::Data<ServiceState>,
    request: HttpRequest,
    payload: web::Payload,
) -> HttpResponse {
    let mut inference = Inference::begin(&state);
    let answer = answer(&state, &mut inference, &request, payload).await;
    let response = match answer {
        Ok(Written { body, json_length: None }) => {
            HttpResponse::Ok().content_type("application/json").body(body)
        }
        Ok(Written { body, json_length: Some(length) }) => HttpResponse::Ok()
            .content_type("application/octet-stream")
            .insert_header((JSON_LENGTH, length))
            .body(body),
        Err(error) => error.error_response(),
    };
    inference.end(response.status());
    response
}

async fn answer(
    state: &ServiceState,
    inference: &mut Inference<'_>,
    request: &HttpRequest,
    payload: web::Payload,
) -> Result<Written, ApiError> {
    let (model, version) = (model_of(request), version_of(request)?);
    let json_length = json_length(request)?;
    let Body { bytes, places: _places } = read_body(state, request, payload).await?;
    // The body goes as soon as it is read; its place stays, for the numbers that came of it.
    let read = move || read_request(&bytes, json_length);
    inference.answer(model, version, read, |response, form| write_response(&response, &form)).await
}

fn json_length(request: &HttpRequest) -> Result<Option<usize>, ApiError> {
    let Some(value) = request.headers().get(JSON_LENGTH) else { return Ok(None) };
    let length = value.to_str().ok().and_then(|text| text.trim().parse().ok());
    let wrong = || ApiError::bad(format!("{JSON_LENGTH} is {value:?}, not a whole number"));
    length.map(Some).ok_or_else(wrong)
}
