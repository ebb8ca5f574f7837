//! The protocol over HTTP: paths, JSON, and raw tensors behind JSON.

mod answers;
mod body;
mod documents;
mod infer;
mod json_data;
mod json_input;
mod openapi;
mod repository;
mod request;
mod response;
mod routes;

pub(super) use body::{Body, parse_object, read_body, read_json};
pub(super) use documents::documents;
pub(super) use infer::named;
pub(super) use openapi::Refusals;
pub(super) use routes::{metrics_page, no_such_path, readable, root, scope, triton_metrics_page};
