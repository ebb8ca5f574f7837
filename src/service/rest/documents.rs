//! What the service says of itself: its OpenAPI document, and a page to try it.

use actix_web::{HttpResponse, web};

use super::openapi;
use super::routes::readable;

pub(super) const DOCUMENT_PATH: &str = "/gradmesh/openapi.json";
pub(super) const PAGE_PATH: &str = "/gradmesh/try";

/// Below `/gradmesh`.
pub(in crate::service) fn documents(scope: &mut web::ServiceConfig) {
    scope.service(readable("/openapi.json", document)).service(readable("/try", page));
}

async fn document() -> HttpResponse {
    HttpResponse::Ok().json(openapi::document())
}

async fn page() -> HttpResponse {
    HttpResponse::Ok()
        .content_type("text/html; charset=utf-8")
        // Nothing of it comes from elsewhere, and nobody else shows it in a frame of theirs.
        .insert_header(("content-security-policy", PAGE_MAY))
        .body(include_str!("try.html"))
}

const PAGE_MAY: &str = "default-src 'self'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; \
                        frame-ancestors 'none'";
