//! How gRPC says no.

use tonic::{Code, Status};

use crate::service::api_error::{ApiError, ErrorKind};

impl From<ApiError> for Status {
    fn from(error: ApiError) -> Self {
        let code = match error.kind {
            ErrorKind::Invalid => Code::InvalidArgument,
            ErrorKind::NotFound => Code::NotFound,
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
