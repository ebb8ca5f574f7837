//! The paths of the Open Inference Protocol, REST, version 2, and what is read-only among them.

use actix_web::http::header;
use actix_web::{Handler, HttpRequest, HttpResponse, Resource, Responder, Scope, web};
use gradmesh_actors::version::VersionRef;
use serde_json::json;

use super::answers::{Live, ModelReady, Models, Ready, ServerMetadata, StatisticsAnswer};
use super::documents::{DOCUMENT_PATH, PAGE_PATH};
use super::openapi::Refusals;
use super::{infer, repository};
use crate::service::api_error::{ApiError, ErrorKind};
use crate::service::callers::Caller;
use crate::service::events::EVENTS_PATH;
use crate::service::oip::model::{ModelConfig, ModelMetadata};
use crate::service::status::STATUS_PATH;
use crate::service::{ServiceState, oip, triton_metrics};

pub(super) type Answer = Result<HttpResponse, ApiError>;

/// All below `/v2`.
pub(in crate::service) fn scope(state: ServiceState) -> Scope {
    web::scope("/v2")
        .app_data(web::PayloadConfig::new(state.limits.body_bytes_max))
        .app_data(web::Data::new(state))
        // Paths are tried in this order, and one with a name in it takes some microseconds.
        .service(postable("/models/{model}/infer", infer::infer))
        .service(readable("", server))
        .service(readable("/health/live", live))
        .service(readable("/health/ready", ready))
        .service(readable("/models", models))
        // Before the models, none of which can be found under this name alone.
        .service(readable("/models/stats", statistics))
        .service(postable("/models/{model}/versions/{version}/infer", infer::infer))
        .configure(|scope| model_paths(scope, "/models/{model}"))
        .configure(|scope| model_paths(scope, "/models/{model}/versions/{version}"))
        .service(postable("/repository/index", repository::index))
        .service(postable("/repository/models/{model}/load", repository::load))
        .service(postable("/repository/models/{model}/unload", repository::unload))
        .default_service(web::to(no_such_path))
}

/// What there is to read of a model, and of each of its versions.
fn model_paths(scope: &mut web::ServiceConfig, model_path: &str) {
    let path = |below: &str| format!("{model_path}{below}");
    scope
        .service(readable(&path(""), model))
        .service(readable(&path("/ready"), model_ready))
        .service(readable(&path("/stats"), statistics))
        .service(readable(&path("/config"), config));
}

/// What there is, for whoever opens the address in a browser.
pub(in crate::service) fn root() -> Resource {
    readable("/", paths)
}

async fn paths() -> HttpResponse {
    HttpResponse::Ok().json(json!({
        "name": oip::NAME,
        "version": env!("CARGO_PKG_VERSION"),
        "paths": [
            "/v2", "/v2/models", "/v1/models", "/metrics", "/metrics/triton", STATUS_PATH, EVENTS_PATH,
            DOCUMENT_PATH, PAGE_PATH,
        ],
    }))
}

/// The metrics page.
pub(in crate::service) fn metrics_page(state: ServiceState) -> Resource {
    readable("/metrics", metrics).app_data(web::Data::new(state))
}

/// The same under Triton's names.
pub(in crate::service) fn triton_metrics_page(state: ServiceState) -> Resource {
    readable("/metrics/triton", triton_page).app_data(web::Data::new(state))
}

/// The counters of the models under Triton's names.
#[utoipa::path(get, path = "/metrics/triton", tag = "server",
    responses((status = 200, body = String, content_type = "text/plain"), Refusals))]
pub(super) async fn triton_page(state: web::Data<ServiceState>) -> Answer {
    let statistics = oip::statistics(&state, None).await?;
    let text = triton_metrics::text(&statistics);
    Ok(HttpResponse::Ok().content_type(triton_metrics::CONTENT_TYPE).body(text))
}

pub(in crate::service) async fn no_such_path(request: HttpRequest) -> Answer {
    let text = format!("no path {:?} on this server", request.path());
    Err(ApiError::new(ErrorKind::NotFound, text))
}

/// The model that a path names, and the version: the newest where it names none.
fn model_and_version(request: &HttpRequest) -> Result<(String, VersionRef), ApiError> {
    Ok((model_of(request), version_of(request)?.unwrap_or(VersionRef::Latest)))
}

pub(super) fn model_of(request: &HttpRequest) -> String {
    request.match_info().get("model").unwrap_or_default().to_owned()
}

pub(super) fn version_of(request: &HttpRequest) -> Result<Option<VersionRef>, ApiError> {
    Ok(request.match_info().get("version").map(str::parse).transpose()?)
}

pub(in crate::service) fn readable<F, Args>(path: &str, handler: F) -> Resource
where
    F: Handler<Args>,
    Args: actix_web::FromRequest + 'static,
    F::Output: Responder + 'static,
{
    web::resource(path)
        .route(web::get().to(handler.clone()))
        .route(web::head().to(handler))
        .default_service(web::to(|request| no_such_method(request, "GET, HEAD")))
}

fn postable<F, Args>(path: &str, handler: F) -> Resource
where
    F: Handler<Args>,
    Args: actix_web::FromRequest + 'static,
    F::Output: Responder + 'static,
{
    web::resource(path)
        .route(web::post().to(handler))
        .default_service(web::to(|request| no_such_method(request, "POST")))
}

async fn no_such_method(request: HttpRequest, allow: &'static str) -> Answer {
    let text = format!("{} is not allowed here; use {allow}", request.method());
    Err(ApiError::new(ErrorKind::Method(allow), text))
}

/// Counters and the run's state, for Prometheus.
#[utoipa::path(get, path = "/metrics", tag = "server",
    responses((status = 200, description = "OpenMetrics for whoever accepts it",
        content((String = "text/plain"), (String = "application/openmetrics-text")))))]
pub(super) async fn metrics(state: web::Data<ServiceState>, request: HttpRequest) -> HttpResponse {
    let accepts = request.headers().get_all(header::ACCEPT);
    let open = accepts.filter_map(|value| value.to_str().ok()).any(|value| {
        value.split(',').any(|one| one.trim_start().starts_with("application/openmetrics-text"))
    });
    let (content_type, text) = if open {
        let open_metrics = "application/openmetrics-text; version=1.0.0; charset=utf-8";
        (open_metrics, state.metrics.text())
    } else {
        (triton_metrics::CONTENT_TYPE, state.metrics.plain_text())
    };
    HttpResponse::Ok().content_type(content_type).insert_header((header::VARY, "accept")).body(text)
}

/// Name and version of the server, and the protocol's extensions that it speaks.
#[utoipa::path(get, path = "/v2", tag = "server", responses((status = 200, body = ServerMetadata)))]
pub(super) async fn server() -> HttpResponse {
    let (name, version) = (oip::NAME, env!("CARGO_PKG_VERSION"));
    HttpResponse::Ok().json(ServerMetadata { name, version, extensions: oip::EXTENSIONS.to_vec() })
}

/// Whether it runs.
#[utoipa::path(get, path = "/v2/health/live", tag = "server",
    responses((status = 200, body = Live)))]
pub(super) async fn live() -> HttpResponse {
    HttpResponse::Ok().json(Live { live: true })
}

/// Whether it can answer.
#[utoipa::path(get, path = "/v2/health/ready", tag = "server",
    responses((status = 200, body = Ready), Refusals))]
pub(super) async fn ready(state: web::Data<ServiceState>) -> Answer {
    oip::server_ready(&state).await?;
    Ok(HttpResponse::Ok().json(Ready { live: true, ready: true }))
}

/// Names of the models.
#[utoipa::path(get, path = "/v2/models", tag = "models",
    responses((status = 200, body = Models), Refusals))]
pub(super) async fn models(state: web::Data<ServiceState>, _: Caller) -> Answer {
    Ok(HttpResponse::Ok().json(Models { models: oip::names(&state).await? }))
}

/// Inputs, outputs and lineage of a version.
#[utoipa::path(get, path = "/v2/models/{model}", tag = "models", params(("model" = String, Path)), 
    responses((status = 200, body = ModelMetadata), Refusals))]
pub(super) async fn model(
    state: web::Data<ServiceState>,
    _: Caller,
    request: HttpRequest,
) -> Answer {
    let (model, version) = model_and_version(&request)?;
    Ok(HttpResponse::Ok().json(oip::metadata(&state, model, version).await?))
}

/// Whether a version is served.
#[utoipa::path(get, path = "/v2/models/{model}/ready", tag = "models",
    params(("model" = String, Path)), responses((status = 200, body = ModelReady), Refusals))]
pub(super) async fn model_ready(
    state: web::Data<ServiceState>,
    _: Caller,
    request: HttpRequest,
) -> Answer {
    let (model, version) = model_and_version(&request)?;
    let name = oip::model_ready(&state, model, version).await?;
    Ok(HttpResponse::Ok().json(ModelReady { name, ready: true }))
}

/// A version in the form of a Triton configuration.
#[utoipa::path(get, path = "/v2/models/{model}/config", tag = "models",
    params(("model" = String, Path)), responses((status = 200, body = ModelConfig), Refusals))]
pub(super) async fn config(
    state: web::Data<ServiceState>,
    _: Caller,
    request: HttpRequest,
) -> Answer {
    let (model, version) = model_and_version(&request)?;
    Ok(HttpResponse::Ok().json(oip::config(&state, model, version).await?))
}

/// What was answered, and what that took.
#[utoipa::path(get, path = "/v2/models/{model}/stats", tag = "models",
    params(("model" = String, Path)), responses((status = 200, body = StatisticsAnswer), Refusals))]
pub(super) async fn statistics(
    state: web::Data<ServiceState>,
    _: Caller,
    request: HttpRequest,
) -> Answer {
    let version = version_of(&request)?;
    let asked = request.match_info().get("model").map(|model| (model.to_owned(), version));
    let statistics = oip::statistics(&state, asked).await?;
    Ok(HttpResponse::Ok().json(StatisticsAnswer { model_stats: statistics }))
}
