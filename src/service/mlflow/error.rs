//! How MLflow's clients are told no.

use std::fmt;

use actix_web::http::{StatusCode, header};
use actix_web::{HttpResponse, ResponseError};
use gradmesh_actors::catalog::CatalogError;
use gradmesh_actors::messages::{ChangeError, FindError};
use gradmesh_actors::version::NameError;
use serde::Serialize;
use utoipa::{IntoResponses, ToSchema};

use crate::service::api_error::{ApiError, ErrorKind};

/// A refusal with a name of MLflow's. Its client repeats 408, 429, 500, 502, 503 and 504.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MlflowError {
    code: &'static str,
    error: ApiError,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct MlflowErrorBody {
    error_code: &'static str,
    message: String,
}

/// What may be said to any question for the registry.
#[derive(Debug, IntoResponses)]
#[expect(dead_code, reason = "for the document")]
pub(crate) enum MlflowRefusals {
    /// The request is wrong, or the registry does not allow it
    #[response(status = 400)]
    Invalid(MlflowErrorBody),
    /// A key is needed: `service.keys` is set
    #[response(status = 401)]
    Unauthenticated(MlflowErrorBody),
    /// There is no such model, version or path
    #[response(status = 404)]
    NotFound(MlflowErrorBody),
    /// Too much is under way; try again
    #[response(status = 429)]
    Busy(MlflowErrorBody),
    /// The registry's files are damaged
    #[response(status = 500)]
    Internal(MlflowErrorBody),
    /// The registry is away, or can't write; try again
    #[response(status = 503)]
    Unavailable(MlflowErrorBody),
    /// No answer within the limit
    #[response(status = 504)]
    Late(MlflowErrorBody),
}

/// What may be said to a change.
#[derive(Debug, IntoResponses)]
#[expect(dead_code, reason = "for the document")]
pub(crate) enum WriteRefusals {
    /// Callers may not: `service.registry_writes` is off, or not in the entry of their key
    #[response(status = 403)]
    Forbidden(MlflowErrorBody),
    /// The body did not arrive in time
    #[response(status = 408)]
    Slow(MlflowErrorBody),
    /// The body is too large
    #[response(status = 413)]
    TooLarge(MlflowErrorBody),
    /// The body's encoding is not known
    #[response(status = 415)]
    Encoding(MlflowErrorBody),
}

impl MlflowError {
    pub(super) fn new(code: &'static str, error: ApiError) -> Self {
        Self { code, error }
    }

    pub(super) fn bad(text: impl Into<String>) -> Self {
        ApiError::bad(text).into()
    }
}

impl From<ApiError> for MlflowError {
    fn from(error: ApiError) -> Self {
        let code = match error.kind {
            ErrorKind::Invalid | ErrorKind::TooLarge | ErrorKind::Encoding | ErrorKind::Slow => {
                "INVALID_PARAMETER_VALUE"
            }
            ErrorKind::NotFound | ErrorKind::Gone => "RESOURCE_DOES_NOT_EXIST",
            ErrorKind::Unauthenticated => "UNAUTHENTICATED",
            ErrorKind::Forbidden => "PERMISSION_DENIED",
            ErrorKind::Method(_) => "ENDPOINT_NOT_FOUND",
            ErrorKind::Unsupported => "NOT_IMPLEMENTED",
            ErrorKind::Busy => "REQUEST_LIMIT_EXCEEDED",
            ErrorKind::Unavailable | ErrorKind::Unloaded | ErrorKind::Late => {
                "TEMPORARILY_UNAVAILABLE"
            }
            ErrorKind::Internal => "INTERNAL_ERROR",
        };
        Self { code, error }
    }
}

impl From<NameError> for MlflowError {
    fn from(error: NameError) -> Self {
        ApiError::from(error).into()
    }
}

impl From<FindError> for MlflowError {
    fn from(error: FindError) -> Self {
        // MLflow's own server answers so to an alias that nothing has.
        match error {
            FindError::Catalog(CatalogError::NoAlias { .. }) => Self::bad(error.to_string()),
            error => ApiError::from(error).into(),
        }
    }
}

impl From<ChangeError> for MlflowError {
    fn from(error: ChangeError) -> Self {
        match error {
            ChangeError::Catalog(CatalogError::ModelExists { .. }) => {
                Self::new("RESOURCE_ALREADY_EXISTS", ApiError::bad(error.to_string()))
            }
            ChangeError::Catalog(error) => FindError::Catalog(error).into(),
            ChangeError::Store(error) => FindError::Store(error).into(),
            ChangeError::Link(error) => FindError::Link(error).into(),
            ChangeError::Values(_) => Self::bad(error.to_string()),
            ChangeError::Contended { .. } => {
                ApiError::new(ErrorKind::Unavailable, error.to_string()).into()
            }
            ChangeError::Busy { .. } => ApiError::new(ErrorKind::Busy, error.to_string()).into(),
        }
    }
}

impl fmt::Display for MlflowError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl ResponseError for MlflowError {
    fn status_code(&self) -> StatusCode {
        self.error.kind.status()
    }

    fn error_response(&self) -> HttpResponse {
        let body = MlflowErrorBody { error_code: self.code, message: self.error.text.clone() };
        let mut response = HttpResponse::build(self.status_code());
        if self.error.kind == ErrorKind::Unauthenticated {
            response.insert_header((header::WWW_AUTHENTICATE, "Basic, Bearer"));
        }
        response.json(body)
    }
}
