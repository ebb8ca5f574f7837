//! How clients of OpenAI are told no.

use std::fmt;

use actix_web::http::{StatusCode, header};
use actix_web::{HttpResponse, ResponseError};
use serde::Serialize;
use utoipa::{IntoResponses, ToSchema};

use crate::service::api_error::{ApiError, ErrorKind};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OpenAiError {
    error: ApiError,
    code: Option<&'static str>,
}

impl OpenAiError {
    /// There is no such path.
    pub(super) fn nowhere(text: String) -> Self {
        Self { error: ApiError::new(ErrorKind::NotFound, text), code: None }
    }
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OpenAiErrorBody {
    error: OpenAiErrorDetail,
}

#[derive(Debug, Serialize, ToSchema)]
struct OpenAiErrorDetail {
    message: String,
    r#type: &'static str,
    param: Option<String>,
    code: Option<&'static str>,
}

/// What may be said to any of these questions.
#[derive(Debug, IntoResponses)]
#[expect(dead_code, reason = "for the document")]
pub(crate) enum OpenAiRefusals {
    /// The request is wrong, or the model is no embedding model
    #[response(status = 400)]
    Invalid(OpenAiErrorBody),
    /// A key is needed: `service.keys` is set
    #[response(status = 401)]
    Unauthenticated(OpenAiErrorBody),
    /// The entry of the key does not name the model
    #[response(status = 403)]
    Forbidden(OpenAiErrorBody),
    /// There is no such model or path
    #[response(status = 404)]
    NotFound(OpenAiErrorBody),
    /// The body did not arrive in time
    #[response(status = 408)]
    Slow(OpenAiErrorBody),
    /// The body is too large
    #[response(status = 413)]
    TooLarge(OpenAiErrorBody),
    /// The body's encoding is not known
    #[response(status = 415)]
    Encoding(OpenAiErrorBody),
    /// Too much is under way; try again
    #[response(status = 429)]
    Busy(OpenAiErrorBody),
    /// A version is damaged, or its model fails
    #[response(status = 500)]
    Internal(OpenAiErrorBody),
    /// The model was unloaded, or the registry is away; try again
    #[response(status = 503)]
    Unavailable(OpenAiErrorBody),
    /// No answer within the limit
    #[response(status = 504)]
    Late(OpenAiErrorBody),
}

impl From<ApiError> for OpenAiError {
    fn from(error: ApiError) -> Self {
        let code = match error.kind {
            ErrorKind::Unauthenticated => Some("invalid_api_key"),
            ErrorKind::NotFound => Some("model_not_found"),
            ErrorKind::Busy => Some("rate_limit_exceeded"),
            _ => None,
        };
        Self { error, code }
    }
}

impl fmt::Display for OpenAiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl ResponseError for OpenAiError {
    fn status_code(&self) -> StatusCode {
        self.error.kind.status()
    }

    fn error_response(&self) -> HttpResponse {
        let kind = self.error.kind;
        let status = kind.status();
        let r#type = match kind {
            ErrorKind::Busy => "rate_limit_error",
            ErrorKind::Unauthenticated => "authentication_error",
            ErrorKind::Forbidden => "permission_error",
            _ if status.is_server_error() => "server_error",
            _ => "invalid_request_error",
        };
        let mut response = HttpResponse::build(status);
        if matches!(kind, ErrorKind::Busy | ErrorKind::Unavailable) {
            response.insert_header((header::RETRY_AFTER, "1"));
        }
        if kind == ErrorKind::Unauthenticated {
            response.insert_header((header::WWW_AUTHENTICATE, "Bearer"));
        }
        let message = self.error.text.clone();
        let error = OpenAiErrorDetail { message, r#type, param: None, code: self.code };
        response.json(OpenAiErrorBody { error })
    }
}
