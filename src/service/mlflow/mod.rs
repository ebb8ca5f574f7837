//! The registry as MLflow's clients speak to one: `/api/2.0/mlflow/…`, the part of MLflow's REST API
//! that is about registered models and their versions.
//!
//! What training published is there, with its lineage as tags that begin with `gradmesh.`, and so
//! are models and versions that a client registers. Those lie where their `source` says; they can be found,
//! tagged and aliased, and are not served. Stages, which MLflow has given up, are the aliases
//! `production` and `staging`. A model keeps its name.
//!
//! | below `/api/2.0/mlflow` | |
//! |---|---|
//! | `GET registered-models/{get,search,alias}` | |
//! | `POST registered-models/{create,set-tag,alias,get-latest-versions,rename}` | |
//! | `PATCH registered-models/update` | |
//! | `DELETE registered-models/{delete,delete-tag,alias}` | |
//! | `GET model-versions/{get,search,get-download-uri}` | |
//! | `POST model-versions/{create,set-tag,transition-stage}` | |
//! | `PATCH model-versions/update` | |
//! | `DELETE model-versions/{delete,delete-tag}` | |
//!
//! The files of what is published are below `/api/2.0/mlflow-artifacts/artifacts`.
//!
//! Whatever goes wrong is answered with `{"error_code": "…", "message": "…"}`. Whoever reaches the
//! service, and has a key where it needs one, may read; it changes the registry only with `service.registry_writes`.

mod answers;
mod artifacts;
mod error;
mod models;
mod read;
mod versions;

use actix_web::{HttpRequest, Resource, Route, Scope, web};

use super::ServiceState;
use super::api_error::{ApiError, ErrorKind};
use error::MlflowError;

pub(super) use artifacts::*;
pub(super) use models::*;
pub(super) use versions::*;

/// All below `/api/2.0/mlflow`.
pub(super) fn scope(state: ServiceState) -> Scope {
    web::scope("/api/2.0/mlflow")
        .app_data(web::PayloadConfig::new(state.limits.body_bytes_max))
        .app_data(web::Data::new(state))
        .configure(registered_models)
        .configure(model_versions)
        .default_service(web::to(no_such_path))
}

fn registered_models(scope: &mut web::ServiceConfig) {
    let path =
        |below: &str, routes: Vec<Route>| resource(&format!("/registered-models/{below}"), routes);
    scope
        .service(path("create", vec![web::post().to(create_model)]))
        .service(path("get", vec![web::get().to(get_model)]))
        .service(path("search", vec![web::get().to(search_models)]))
        .service(path("update", vec![web::patch().to(update_model)]))
        .service(path("rename", vec![web::post().to(rename_model)]))
        .service(path("delete", vec![web::delete().to(delete_model)]))
        .service(path("set-tag", vec![web::post().to(set_model_tag)]))
        .service(path("delete-tag", vec![web::delete().to(delete_model_tag)]))
        .service(path("get-latest-versions", vec![web::post().to(latest_versions)]))
        .service(path(
            "alias",
            vec![
                web::get().to(get_by_alias),
                web::post().to(set_alias),
                web::delete().to(delete_alias),
            ],
        ));
}

fn model_versions(scope: &mut web::ServiceConfig) {
    let path =
        |below: &str, routes: Vec<Route>| resource(&format!("/model-versions/{below}"), routes);
    scope
        .service(path("create", vec![web::post().to(create_version)]))
        .service(path("get", vec![web::get().to(get_version)]))
        .service(path("search", vec![web::get().to(search_versions)]))
        .service(path("update", vec![web::patch().to(update_version)]))
        .service(path("delete", vec![web::delete().to(delete_version)]))
        .service(path("set-tag", vec![web::post().to(set_version_tag)]))
        .service(path("delete-tag", vec![web::delete().to(delete_version_tag)]))
        .service(path("transition-stage", vec![web::post().to(transition_stage)]))
        .service(path("get-download-uri", vec![web::get().to(download_uri)]));
}

fn resource(path: &str, routes: Vec<Route>) -> Resource {
    let resource = routes.into_iter().fold(web::resource(path), Resource::route);
    resource.default_service(web::to(no_such_path))
}

async fn no_such_path(request: HttpRequest) -> Result<String, MlflowError> {
    let text = format!("{} {:?} is not here", request.method(), request.path());
    Err(MlflowError::new("ENDPOINT_NOT_FOUND", ApiError::new(ErrorKind::NotFound, text)))
}
