//! How the service says no: a status, and `{"error": "…"}`.

use std::fmt;

use actix_web::http::{StatusCode, header};
use actix_web::{HttpResponse, ResponseError};
use gradmesh_actors::messages::{FindError, LinkError, PredictError, RegistryStoreError};
use gradmesh_actors::version::NameError;
use serde_json::json;

/// A request that is not answered with what it asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ApiError {
    pub(super) status: StatusCode,
    pub(super) text: String,
    /// Methods that the path has, where the request's is none of them.
    pub(super) allow: Option<&'static str>,
}

impl ApiError {
    pub(super) fn new(status: StatusCode, text: impl Into<String>) -> Self {
        Self { status, text: text.into(), allow: None }
    }

    /// The request itself is wrong; sending it again won't help.
    pub(super) fn bad(text: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, text)
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl ResponseError for ApiError {
    fn status_code(&self) -> StatusCode {
        self.status
    }

    fn error_response(&self) -> HttpResponse {
        let mut response = HttpResponse::build(self.status);
        if let Some(methods) = self.allow {
            response.insert_header((header::ALLOW, methods));
        }
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            // One second: the time in which a lost registry or predictor is back.
            response.insert_header((header::RETRY_AFTER, "1"));
        }
        response.json(json!({ "error": self.text }))
    }
}

impl From<NameError> for ApiError {
    fn from(error: NameError) -> Self {
        Self::bad(error.to_string())
    }
}

impl From<FindError> for ApiError {
    fn from(error: FindError) -> Self {
        let status = match &error {
            FindError::Catalog(cause) if cause.is_not_found() => StatusCode::NOT_FOUND,
            FindError::Catalog(_) => StatusCode::BAD_REQUEST,
            FindError::Link(link) => link_status(link),
            FindError::Busy { .. } => StatusCode::SERVICE_UNAVAILABLE,
            FindError::Store(store) => match store {
                RegistryStoreError::Unavailable { .. }
                | RegistryStoreError::Gone
                | RegistryStoreError::Timeout { .. } => StatusCode::SERVICE_UNAVAILABLE,
                // Files that are damaged: waiting won't help.
                _ => StatusCode::INTERNAL_SERVER_ERROR,
            },
        };
        Self::new(status, error.to_string())
    }
}

impl From<PredictError> for ApiError {
    fn from(error: PredictError) -> Self {
        let status = match error {
            PredictError::Registry(error) => return error.into(),
            PredictError::NoRows
            | PredictError::Features { .. }
            | PredictError::Length { .. }
            | PredictError::NotFinite { .. } => StatusCode::BAD_REQUEST,
            PredictError::Load { .. } | PredictError::Model { .. } => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
            PredictError::Busy { .. } => StatusCode::SERVICE_UNAVAILABLE,
            PredictError::Link(ref link) => link_status(link),
        };
        Self::new(status, error.to_string())
    }
}

pub(super) fn link_status(link: &LinkError) -> StatusCode {
    match link {
        LinkError::Timeout { .. } => StatusCode::GATEWAY_TIMEOUT,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    }
}
