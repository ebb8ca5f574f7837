//! How the service says no: a kind, which each protocol has a code for, and a sentence.

use std::fmt;

use actix_web::http::{StatusCode, header};
use actix_web::{HttpResponse, ResponseError};
use gradmesh_actors::messages::{FindError, LinkError, PredictError, RegistryStoreError};
use gradmesh_actors::version::NameError;
use serde_json::json;

use gradmesh_actors::tensor::TensorError;

/// Bytes of a refusal: it names what the request has said, which may be megabytes.
const TEXT_MAX: usize = 2000;

/// A request that is not answered with what it asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ApiError {
    pub(super) kind: ErrorKind,
    pub(super) text: String,
}

/// Whose fault it is, and whether waiting helps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ErrorKind {
    /// The request itself is wrong; sending it again won't help.
    Invalid,
    NotFound,
    /// It was there, and is not kept any more.
    Gone,
    /// Nobody knows who asks.
    Unauthenticated,
    /// This server has it and gives it to nobody, as it is configured.
    Forbidden,
    /// The path has these methods, and the request's is none of them.
    Method(&'static str),
    /// The body took too long.
    Slow,
    TooLarge,
    /// An encoding that this server doesn't know.
    Encoding,
    /// It was asked for something that the protocol has and this server doesn't.
    Unsupported,
    /// Whoever answers is away, or will be back.
    Unavailable,
    /// The model is not served until somebody loads it.
    Unloaded,
    /// Too much is under way already.
    Busy,
    /// No answer within the limit.
    Late,
    Internal,
}

impl ErrorKind {
    pub(super) fn status(self) -> StatusCode {
        match self {
            Self::Invalid => StatusCode::BAD_REQUEST,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::Gone => StatusCode::GONE,
            Self::Unauthenticated => StatusCode::UNAUTHORIZED,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::Method(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::Slow => StatusCode::REQUEST_TIMEOUT,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Encoding => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Unsupported => StatusCode::NOT_IMPLEMENTED,
            Self::Unavailable | Self::Unloaded => StatusCode::SERVICE_UNAVAILABLE,
            Self::Busy => StatusCode::TOO_MANY_REQUESTS,
            Self::Late => StatusCode::GATEWAY_TIMEOUT,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl ApiError {
    pub(super) fn new(kind: ErrorKind, text: impl Into<String>) -> Self {
        let mut text = text.into();
        if text.len() > TEXT_MAX {
            text.truncate(text.floor_char_boundary(TEXT_MAX));
            text.push('…');
        }
        Self { kind, text }
    }

    /// The request itself is wrong; sending it again won't help.
    pub(super) fn bad(text: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, text)
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// As HTTP says it, with `{"error": "…"}`.
impl ResponseError for ApiError {
    fn status_code(&self) -> StatusCode {
        self.kind.status()
    }

    fn error_response(&self) -> HttpResponse {
        let mut response = HttpResponse::build(self.status_code());
        match self.kind {
            ErrorKind::Method(allowed) => {
                response.insert_header((header::ALLOW, allowed));
            }
            ErrorKind::Unauthenticated => {
                response.insert_header((header::WWW_AUTHENTICATE, "Bearer"));
            }
            // One second: the time in which a lost registry or predictor is back.
            ErrorKind::Unavailable | ErrorKind::Busy => {
                response.insert_header((header::RETRY_AFTER, "1"));
            }
            _ => {}
        }
        response.json(json!({ "error": self.text }))
    }
}

impl From<TensorError> for ApiError {
    fn from(error: TensorError) -> Self {
        Self::bad(error.to_string())
    }
}

impl From<NameError> for ApiError {
    fn from(error: NameError) -> Self {
        Self::bad(error.to_string())
    }
}

impl From<FindError> for ApiError {
    fn from(error: FindError) -> Self {
        let kind = match &error {
            FindError::Catalog(cause) if cause.is_not_found() => ErrorKind::NotFound,
            FindError::Catalog(_) => ErrorKind::Invalid,
            FindError::Link(link) => link_kind(link),
            FindError::Busy { .. } => ErrorKind::Busy,
            FindError::Store(store) => match store {
                RegistryStoreError::Unavailable { .. }
                | RegistryStoreError::Gone
                | RegistryStoreError::Timeout { .. } => ErrorKind::Unavailable,
                // Files that are damaged: waiting won't help.
                _ => ErrorKind::Internal,
            },
        };
        Self::new(kind, error.to_string())
    }
}

impl From<PredictError> for ApiError {
    fn from(error: PredictError) -> Self {
        let kind = match error {
            PredictError::Registry(error) => return error.into(),
            PredictError::NoRows
            | PredictError::Features { .. }
            | PredictError::Input { .. }
            | PredictError::NotFinite { .. } => ErrorKind::Invalid,
            PredictError::Load { .. }
            | PredictError::Model { .. }
            | PredictError::TooLarge { .. } => ErrorKind::Internal,
            PredictError::Unloaded { .. } => ErrorKind::Unloaded,
            PredictError::Busy { .. } | PredictError::Bytes { .. } | PredictError::Full { .. } => {
                ErrorKind::Busy
            }
            PredictError::Late { .. } => ErrorKind::Late,
            PredictError::Link(ref link) => link_kind(link),
        };
        Self::new(kind, error.to_string())
    }
}

pub(super) fn link_kind(link: &LinkError) -> ErrorKind {
    match link {
        LinkError::Timeout { .. } => ErrorKind::Late,
        LinkError::Busy { .. } => ErrorKind::Busy,
        _ => ErrorKind::Unavailable,
    }
}
