//! How gRPC says no.

use http::HeaderMap;
use tonic::body::Body;
use tonic::{Code, Status};

use crate::service::api_error::{ApiError, ErrorKind};

impl From<ApiError> for Status {
    fn from(error: ApiError) -> Self {
        let code = match error.kind {
            ErrorKind::Invalid => Code::InvalidArgument,
            ErrorKind::NotFound | ErrorKind::Gone => Code::NotFound,
            ErrorKind::Unauthenticated => Code::Unauthenticated,
            ErrorKind::Forbidden => Code::PermissionDenied,
            ErrorKind::Method(_) | ErrorKind::Encoding | ErrorKind::Unsupported => {
                Code::Unimplemented
            }
            ErrorKind::Slow | ErrorKind::Late => Code::DeadlineExceeded,
            ErrorKind::TooLarge | ErrorKind::Busy => Code::ResourceExhausted,
            ErrorKind::Unavailable | ErrorKind::Unloaded => Code::Unavailable,
            ErrorKind::Internal => Code::Internal,
        };
        Self::new(code, error.text)
    }
}

/// What tonic says of a message that it could not read, and whose fault that is.
const UNREADABLE: [&str; 2] = ["Unexpected EOF", "Error decompressing"];

/// The codes that the protocol has for messages that are too large, or that are cut or broken, where
/// tonic has others.
pub(super) fn as_protocol(mut response: http::Response<Body>) -> http::Response<Body> {
    let Some(status) = Status::from_header_map(response.headers()) else { return response };
    let code = match status.code() {
        Code::OutOfRange => Code::ResourceExhausted,
        Code::Internal if UNREADABLE.iter().any(|text| status.message().starts_with(text)) => {
            Code::InvalidArgument
        }
        _ => return response,
    };
    let mut headers = HeaderMap::new();
    if Status::new(code, status.message()).add_header(&mut headers).is_ok() {
        response.headers_mut().extend(headers);
    }
    response
}
