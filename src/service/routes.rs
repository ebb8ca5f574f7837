//! The paths of the Open Inference Protocol, REST, version 2, and what is read-only among them.

use std::sync::atomic::Ordering;
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::{Handler, HttpRequest, HttpResponse, Resource, Responder, Scope, web};
use gradmesh_actors::messages::{FindModel, ListModels, ask};
use gradmesh_actors::version::{VersionDescription, VersionRef};
use serde_json::{Value, json};

use super::ServiceState;
use super::api_error::ApiError;
use super::infer::infer;
use super::infer_request::INPUT;
use super::infer_response::{CLASS, OUTPUT};
use super::status::STATUS_PATH;

/// The longest wait for the registry, which answers from memory. Load balancers ask for readiness
/// every few seconds and take a slow answer for none.
pub(super) const FIND_LIMIT: Duration = Duration::from_secs(2);

type Answer = Result<HttpResponse, ApiError>;

/// All below `/v2`.
pub(super) fn scope(state: ServiceState) -> Scope {
    web::scope("/v2")
        .app_data(web::PayloadConfig::new(state.limits.body_bytes_max))
        .app_data(web::Data::new(state))
        .service(readable("", server))
        .service(readable("/health/live", live))
        .service(readable("/health/ready", ready))
        .service(readable("/models", models))
        .service(readable("/models/{model}", model))
        .service(readable("/models/{model}/ready", model_ready))
        .service(inferable("/models/{model}/infer"))
        .service(readable("/models/{model}/versions/{version}", model))
        .service(readable("/models/{model}/versions/{version}/ready", model_ready))
        .service(inferable("/models/{model}/versions/{version}/infer"))
        .default_service(web::to(no_such_path))
}

/// What there is, for whoever opens the address in a browser.
pub(super) fn root() -> Resource {
    readable("/", paths)
}

async fn paths() -> HttpResponse {
    HttpResponse::Ok().json(json!({
        "name": "gradmesh",
        "version": env!("CARGO_PKG_VERSION"),
        "paths": ["/v2", "/v2/models", "/metrics", STATUS_PATH],
    }))
}

/// The metrics page.
pub(super) fn metrics_page(state: ServiceState) -> Resource {
    readable("/metrics", metrics).app_data(web::Data::new(state))
}

pub(super) async fn no_such_path(request: HttpRequest) -> Answer {
    let text = format!("no path {:?} on this server", request.path());
    Err(ApiError::new(StatusCode::NOT_FOUND, text))
}

/// The model that a path names, and the version: the newest where it names none.
pub(super) fn model_and_version(request: &HttpRequest) -> Result<(String, VersionRef), ApiError> {
    let part = |name: &str| request.match_info().get(name);
    let version = part("version").map_or(Ok(VersionRef::Latest), str::parse)?;
    Ok((part("model").unwrap_or_default().to_owned(), version))
}

pub(super) fn readable<F, Args>(path: &str, handler: F) -> Resource
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

fn inferable(path: &str) -> Resource {
    web::resource(path)
        .route(web::post().to(infer))
        .default_service(web::to(|request| no_such_method(request, "POST")))
}

async fn no_such_method(request: HttpRequest, allow: &'static str) -> Answer {
    let text = format!("{} is not allowed here; use {allow}", request.method());
    let error = ApiError::new(StatusCode::METHOD_NOT_ALLOWED, text);
    Err(ApiError { allow: Some(allow), ..error })
}

async fn metrics(state: web::Data<ServiceState>) -> HttpResponse {
    HttpResponse::Ok()
        .content_type("application/openmetrics-text; version=1.0.0; charset=utf-8")
        .body(state.metrics.text())
}

async fn server() -> HttpResponse {
    HttpResponse::Ok().json(json!({
        "name": "gradmesh",
        "version": env!("CARGO_PKG_VERSION"),
        "extensions": [],
    }))
}

async fn live() -> HttpResponse {
    HttpResponse::Ok().json(json!({ "live": true }))
}

/// Ready once the registry has answered, and then for as long as there is a predictor: it serves
/// what it knows while the registry is away, so a lost registry must not take the service out of
/// its load balancer.
async fn ready(state: web::Data<ServiceState>) -> Answer {
    if !state.predict.connected() {
        let text = "the predictor is gone";
        return Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, text));
    }
    if !state.ready.load(Ordering::Relaxed) {
        ask(&state.list, ListModels {}, FIND_LIMIT).await.map_err(|error| {
            let text = format!("the registry is not ready: {error}");
            ApiError::new(StatusCode::SERVICE_UNAVAILABLE, text)
        })?;
        state.ready.store(true, Ordering::Relaxed);
    }
    Ok(HttpResponse::Ok().json(json!({ "live": true, "ready": true })))
}

async fn models(state: web::Data<ServiceState>) -> Answer {
    let list = ask(&state.list, ListModels {}, FIND_LIMIT).await?;
    let names: Vec<String> = list.models.into_iter().map(|summary| summary.model).collect();
    Ok(HttpResponse::Ok().json(json!({ "models": names })))
}

async fn model(state: web::Data<ServiceState>, request: HttpRequest) -> Answer {
    let description = find(&state, &request).await?;
    let list = ask(&state.list, ListModels {}, FIND_LIMIT).await?;
    let summary = list.models.into_iter().find(|summary| summary.model == description.model);
    let versions = summary.map(|summary| summary.versions).unwrap_or_default();
    Ok(HttpResponse::Ok().json(metadata(&description, &versions)))
}

async fn model_ready(state: web::Data<ServiceState>, request: HttpRequest) -> Answer {
    let description = find(&state, &request).await?;
    Ok(HttpResponse::Ok().json(json!({ "name": description.model, "ready": true })))
}

async fn find(state: &ServiceState, request: &HttpRequest) -> Result<VersionDescription, ApiError> {
    let (model, version) = model_and_version(request)?;
    Ok(ask(&state.find, FindModel { model, version }, FIND_LIMIT).await?)
}

fn metadata(description: &VersionDescription, versions: &[u64]) -> Value {
    let tensor = |name: &str, datatype: &str, shape: Value| json!({ "name": name, "datatype": datatype, "shape": shape });
    let mut outputs = vec![tensor(OUTPUT, "FP32", json!([-1, description.outputs]))];
    let mut properties = json!({
        "version": description.version.to_string(),
        "kind": description.architecture.kind,
        "digest": description.digest,
        "run": description.run,
        "job_digest": description.job_digest,
        "data_digest": description.data_digest,
        "steps": description.steps.to_string(),
        "epochs": description.epochs.to_string(),
        "created_unix_ms": description.created_unix_ms.to_string(),
    });
    for (name, value) in &description.metrics {
        properties[format!("metric.{name}")] = value.to_string().into();
    }
    if let Some(classes) = description.classes {
        outputs.push(tensor(CLASS, "INT64", json!([-1])));
        properties["classes"] = classes.to_string().into();
    }
    json!({
        "name": description.model,
        "versions": versions.iter().map(u64::to_string).collect::<Vec<_>>(),
        "platform": "gradmesh",
        "inputs": [tensor(INPUT, "FP32", json!([-1, description.features]))],
        "outputs": outputs,
        "properties": properties,
    })
}
