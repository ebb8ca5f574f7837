//! Text embeddings as clients of OpenAI ask for them: `POST /v1/embeddings`, `GET /v1/models` and
//! `GET /v1/models/{id}`.
//!
//! A model that takes one list of texts and answers a vector for each is an embedding model, of whichever
//! kind. Where it also answers how many tokens each text has, `usage` says so. Whatever goes wrong is
//! answered with `{"error": {"message": …, "type": …, "param": …, "code": …}}`.

mod embeddings;
mod error;
mod models;

use actix_web::{HttpRequest, Scope, web};

use super::ServiceState;
use error::OpenAiError;

pub(super) use embeddings::*;
pub(super) use models::*;

/// All below `/v1`.
pub(super) fn scope(state: ServiceState) -> Scope {
    let other = || web::to(no_such_path);
    web::scope("/v1")
        .app_data(web::PayloadConfig::new(state.limits.body_bytes_max))
        .app_data(web::Data::new(state))
        .service(web::resource("/embeddings").route(web::post().to(embed)).default_service(other()))
        .service(web::resource("/models").route(web::get().to(list)).default_service(other()))
        .service(
            web::resource("/models/{model}")
                .route(web::get().to(retrieve))
                .default_service(other()),
        )
        .default_service(other())
}

async fn no_such_path(request: HttpRequest) -> Result<String, OpenAiError> {
    Err(OpenAiError::nowhere(format!("{} {:?} is not here", request.method(), request.path())))
}
