//! `registered-models/…`.

use std::hash::{BuildHasher, RandomState};

use actix_web::{HttpRequest, HttpResponse, web};
use gradmesh_actors::catalog::Edit;
use gradmesh_actors::messages::{RecordsOf, RemoveAlias, SetAlias, ask};
use gradmesh_actors::version::VersionRef;
use serde::Deserialize;
use serde_json::Map;
use utoipa::ToSchema;

use super::answers::{
    ModelAnswer, ModelsAnswer, NO_STAGE, STAGES, Tag, VersionAnswer, VersionsAnswer,
};
use super::error::{MlflowError, MlflowRefusals, WriteRefusals};
use super::read::{Parameters, change, edit, model, notes, number, records, registry, version};
use crate::service::{CHANGE_LIMIT, ServiceState};

pub(super) type Answer = Result<HttpResponse, MlflowError>;

/// Models of a page where the client names no number, as MLflow has it.
const MODELS: usize = 100;

#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct CreateModel {
    name: String,
    #[serde(default)]
    tags: Vec<Tag>,
    description: Option<String>,
}

#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct UpdateModel {
    name: String,
    description: Option<String>,
}

#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct ModelName {
    name: String,
}

#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct RenameModel {
    name: String,
    new_name: String,
}

#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct ModelTag {
    name: String,
    key: String,
    #[serde(default)]
    value: String,
}

#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct ModelTagKey {
    name: String,
    key: String,
}

#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct ModelAlias {
    name: String,
    alias: String,
    version: String,
}

#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct AliasName {
    name: String,
    alias: String,
}

#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct LatestOf {
    name: String,
    #[serde(default)]
    stages: Vec<String>,
}

/// What a change that has no answer of its own is answered with.
pub(super) fn done() -> HttpResponse {
    HttpResponse::Ok().json(Map::new())
}

/// Names a request, so that its repetition between nodes is none: 128 random bits.
pub(super) fn request_key() -> String {
    let random = || RandomState::new().hash_one(0);
    format!("request-{:016x}{:016x}", random(), random())
}

pub(super) async fn answer_model(state: &ServiceState, name: &str) -> Answer {
    let registered_model = model(state, name).await?.into();
    Ok(HttpResponse::Ok().json(ModelAnswer { registered_model }))
}

/// A model that has no version yet.
#[utoipa::path(post, path = "/api/2.0/mlflow/registered-models/create", tag = "mlflow",
    request_body = CreateModel,
    responses((status = 200, body = ModelAnswer), MlflowRefusals, WriteRefusals))]
pub(crate) async fn create_model(
    state: web::Data<ServiceState>,
    request: HttpRequest,
    payload: web::Payload,
) -> Answer {
    let CreateModel { name, tags, description } = change(&state, &request, payload).await?;
    let notes = notes(description, tags);
    edit(&state, Edit::RegisterModel { model: name.clone(), key: request_key(), notes }).await?;
    answer_model(&state, &name).await
}

/// One model.
#[utoipa::path(get, path = "/api/2.0/mlflow/registered-models/get", tag = "mlflow",
    params(("name" = String, Query)),
    responses((status = 200, body = ModelAnswer), MlflowRefusals))]
pub(crate) async fn get_model(state: web::Data<ServiceState>, request: HttpRequest) -> Answer {
    let parameters = Parameters::of(&state, &request)?;
    answer_model(&state, parameters.required("name")?).await
}

/// The models that a filter holds of, a page of them.
#[utoipa::path(get, path = "/api/2.0/mlflow/registered-models/search", tag = "mlflow",
    params(("filter" = Option<String>, Query), ("max_results" = Option<u32>, Query),
        ("order_by" = Option<Vec<String>>, Query), ("page_token" = Option<String>, Query)),
    responses((status = 200, body = ModelsAnswer), MlflowRefusals))]
pub(crate) async fn search_models(state: web::Data<ServiceState>, request: HttpRequest) -> Answer {
    let search = Parameters::of(&state, &request)?.search(MODELS)?;
    let found = records(&state, RecordsOf::Models(search)).await?;
    Ok(HttpResponse::Ok().json(ModelsAnswer {
        registered_models: found.models.into_iter().map(Into::into).collect(),
        next_page_token: found.next.map(|next| next.to_string()),
    }))
}

/// Describes a model.
#[utoipa::path(patch, path = "/api/2.0/mlflow/registered-models/update", tag = "mlflow",
    request_body = UpdateModel,
    responses((status = 200, body = ModelAnswer), MlflowRefusals, WriteRefusals))]
pub(crate) async fn update_model(
    state: web::Data<ServiceState>,
    request: HttpRequest,
    payload: web::Payload,
) -> Answer {
    let UpdateModel { name, description } = change(&state, &request, payload).await?;
    if let Some(description) = description {
        edit(&state, Edit::Describe { model: name.clone(), version: None, description }).await?;
    }
    answer_model(&state, &name).await
}

/// Refused: a model keeps its name.
#[utoipa::path(post, path = "/api/2.0/mlflow/registered-models/rename", tag = "mlflow",
    request_body = RenameModel,
    responses((status = 200, body = ModelAnswer), MlflowRefusals, WriteRefusals))]
pub(crate) async fn rename_model(
    state: web::Data<ServiceState>,
    request: HttpRequest,
    payload: web::Payload,
) -> Answer {
    let RenameModel { name, new_name } = change(&state, &request, payload).await?;
    let known = model(&state, &name).await?;
    if name == new_name {
        return Ok(HttpResponse::Ok().json(ModelAnswer { registered_model: known.into() }));
    }
    Err(MlflowError::bad(format!(
        "{name} keeps its name, which replies, routes and digests name it by; set job.model.name = {new_name:?} for the next run"
    )))
}

/// Deletes a model with its versions.
#[utoipa::path(delete, path = "/api/2.0/mlflow/registered-models/delete", tag = "mlflow",
    request_body = ModelName,
    responses((status = 200, body = Object), MlflowRefusals, WriteRefusals))]
pub(crate) async fn delete_model(
    state: web::Data<ServiceState>,
    request: HttpRequest,
    payload: web::Payload,
) -> Answer {
    let ModelName { name } = change(&state, &request, payload).await?;
    edit(&state, Edit::DeleteModel { model: name }).await?;
    Ok(done())
}

/// Tags a model.
#[utoipa::path(post, path = "/api/2.0/mlflow/registered-models/set-tag", tag = "mlflow",
    request_body = ModelTag,
    responses((status = 200, body = Object), MlflowRefusals, WriteRefusals))]
pub(crate) async fn set_model_tag(
    state: web::Data<ServiceState>,
    request: HttpRequest,
    payload: web::Payload,
) -> Answer {
    let ModelTag { name, key, value } = change(&state, &request, payload).await?;
    edit(&state, Edit::Tag { model: name, version: None, key, value: Some(value) }).await?;
    Ok(done())
}

/// Removes a tag of a model.
#[utoipa::path(delete, path = "/api/2.0/mlflow/registered-models/delete-tag", tag = "mlflow",
    request_body = ModelTagKey,
    responses((status = 200, body = Object), MlflowRefusals, WriteRefusals))]
pub(crate) async fn delete_model_tag(
    state: web::Data<ServiceState>,
    request: HttpRequest,
    payload: web::Payload,
) -> Answer {
    let ModelTagKey { name, key } = change(&state, &request, payload).await?;
    edit(&state, Edit::Tag { model: name, version: None, key, value: None }).await?;
    Ok(done())
}

/// The newest version, and those with the aliases `production` and `staging`.
#[utoipa::path(post, path = "/api/2.0/mlflow/registered-models/get-latest-versions",
    tag = "mlflow", request_body = LatestOf,
    responses((status = 200, body = VersionsAnswer), MlflowRefusals, WriteRefusals))]
pub(crate) async fn latest_versions(
    state: web::Data<ServiceState>,
    request: HttpRequest,
    payload: web::Payload,
) -> Answer {
    state.caller_of(&request)?;
    // It only reads, though it comes with a body.
    let LatestOf { name, stages } =
        crate::service::rest::read_json(&state, &request, payload).await?;
    let known = model(&state, &name).await?;
    let asked = |stage: &str| {
        stages.is_empty() || stages.iter().any(|asked| asked.eq_ignore_ascii_case(stage))
    };
    let mut found = Vec::new();
    for (stage, alias) in STAGES {
        if let (true, Some(number)) = (asked(stage), known.aliases.get(alias)) {
            found.push(version(&state, &name, VersionRef::Number(*number)).await?);
        }
    }
    if asked(NO_STAGE) {
        let new = |latest: &_| !found.contains(latest);
        found.extend(known.latest.filter(new));
    }
    let model_versions = found.into_iter().map(Into::into).collect();
    Ok(HttpResponse::Ok().json(VersionsAnswer { model_versions, next_page_token: None }))
}

/// The version that an alias names.
#[utoipa::path(get, path = "/api/2.0/mlflow/registered-models/alias", tag = "mlflow",
    params(("name" = String, Query), ("alias" = String, Query)),
    responses((status = 200, body = VersionAnswer), MlflowRefusals))]
pub(crate) async fn get_by_alias(state: web::Data<ServiceState>, request: HttpRequest) -> Answer {
    let parameters = Parameters::of(&state, &request)?;
    let (name, alias) = (parameters.required("name")?, parameters.required("alias")?);
    let alias = alias.parse()?;
    let model_version = version(&state, name, alias).await?.into();
    Ok(HttpResponse::Ok().json(VersionAnswer { model_version }))
}

/// Lets an alias name a version, whatever it named before.
#[utoipa::path(post, path = "/api/2.0/mlflow/registered-models/alias", tag = "mlflow",
    request_body = ModelAlias,
    responses((status = 200, body = Object), MlflowRefusals, WriteRefusals))]
pub(crate) async fn set_alias(
    state: web::Data<ServiceState>,
    request: HttpRequest,
    payload: web::Payload,
) -> Answer {
    let ModelAlias { name, alias, version } = change(&state, &request, payload).await?;
    let version = VersionRef::Number(number(&version)?);
    let set = SetAlias { model: name, alias, version };
    ask(&registry(&state)?.set_alias, set, CHANGE_LIMIT).await?;
    Ok(done())
}

/// Removes an alias.
#[utoipa::path(delete, path = "/api/2.0/mlflow/registered-models/alias", tag = "mlflow",
    request_body = AliasName,
    responses((status = 200, body = Object), MlflowRefusals, WriteRefusals))]
pub(crate) async fn delete_alias(
    state: web::Data<ServiceState>,
    request: HttpRequest,
    payload: web::Payload,
) -> Answer {
    let AliasName { name, alias } = change(&state, &request, payload).await?;
    let remove = RemoveAlias { model: name, alias };
    ask(&registry(&state)?.remove_alias, remove, CHANGE_LIMIT).await?;
    Ok(done())
}
