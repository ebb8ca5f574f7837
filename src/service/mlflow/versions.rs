//! `model-versions/…`.

use actix_web::{HttpRequest, HttpResponse, web};
use gradmesh_actors::catalog::{Edit, Origin};
use gradmesh_actors::messages::{DeleteVersion, RecordsOf, RemoveAlias, SetAlias, ask};
use gradmesh_actors::version::VersionRef;
use serde::Deserialize;
use utoipa::ToSchema;

use super::answers::{DownloadAnswer, NO_STAGE, STAGES, Tag, VersionAnswer, VersionsAnswer};
use super::error::{MlflowError, MlflowRefusals, WriteRefusals};
use super::models::{Answer, done, request_key};
use super::read::{Parameters, change, edit, notes, number, records, registry, version};
use crate::service::{CHANGE_LIMIT, ServiceState};

/// Versions of a page where the client names no number.
const VERSIONS: usize = 1000;

#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct CreateVersion {
    name: String,
    source: String,
    run_id: Option<String>,
    #[serde(default)]
    tags: Vec<Tag>,
    description: Option<String>,
}

#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct UpdateVersion {
    name: String,
    version: String,
    description: Option<String>,
}

#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct VersionName {
    name: String,
    version: String,
}

#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct VersionTag {
    name: String,
    version: String,
    key: String,
    #[serde(default)]
    value: String,
}

#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct VersionTagKey {
    name: String,
    version: String,
    key: String,
}

#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct TransitionStage {
    name: String,
    version: String,
    stage: String,
}

async fn answer_version(state: &ServiceState, name: &str, number: u64) -> Answer {
    let model_version = version(state, name, VersionRef::Number(number)).await?.into();
    Ok(HttpResponse::Ok().json(VersionAnswer { model_version }))
}

/// The next version of a model, which lies at `source` and is not served.
#[utoipa::path(post, path = "/api/2.0/mlflow/model-versions/create", tag = "mlflow",
    request_body = CreateVersion,
    responses((status = 200, body = VersionAnswer), MlflowRefusals, WriteRefusals))]
pub(crate) async fn create_version(
    state: web::Data<ServiceState>,
    request: HttpRequest,
    payload: web::Payload,
) -> Answer {
    let CreateVersion { name, source, run_id, tags, description } =
        change(&state, &request, payload).await?;
    let link = Edit::LinkVersion {
        model: name.clone(),
        key: request_key(),
        place: source,
        run: run_id.filter(|run| !run.is_empty()),
        notes: notes(description, tags),
    };
    let number = edit(&state, link).await?.version.unwrap_or_default();
    answer_version(&state, &name, number).await
}

/// One version.
#[utoipa::path(get, path = "/api/2.0/mlflow/model-versions/get", tag = "mlflow",
    params(("name" = String, Query), ("version" = String, Query)),
    responses((status = 200, body = VersionAnswer), MlflowRefusals))]
pub(crate) async fn get_version(state: web::Data<ServiceState>, request: HttpRequest) -> Answer {
    let parameters = Parameters::of(&state, &request)?;
    let name = parameters.required("name")?;
    answer_version(&state, name, number(parameters.required("version")?)?).await
}

/// The versions that a filter holds of, a page of them, the one that was changed last first.
#[utoipa::path(get, path = "/api/2.0/mlflow/model-versions/search", tag = "mlflow",
    params(("filter" = Option<String>, Query), ("max_results" = Option<u32>, Query),
        ("order_by" = Option<Vec<String>>, Query), ("page_token" = Option<String>, Query)),
    responses((status = 200, body = VersionsAnswer), MlflowRefusals))]
pub(crate) async fn search_versions(
    state: web::Data<ServiceState>,
    request: HttpRequest,
) -> Answer {
    let search = Parameters::of(&state, &request)?.search(VERSIONS)?;
    let found = records(&state, RecordsOf::Versions(search)).await?;
    Ok(HttpResponse::Ok().json(VersionsAnswer {
        model_versions: found.versions.into_iter().map(Into::into).collect(),
        next_page_token: found.next.map(|next| next.to_string()),
    }))
}

/// Describes a version.
#[utoipa::path(patch, path = "/api/2.0/mlflow/model-versions/update", tag = "mlflow",
    request_body = UpdateVersion,
    responses((status = 200, body = VersionAnswer), MlflowRefusals, WriteRefusals))]
pub(crate) async fn update_version(
    state: web::Data<ServiceState>,
    request: HttpRequest,
    payload: web::Payload,
) -> Answer {
    let UpdateVersion { name, version, description } = change(&state, &request, payload).await?;
    let number = number(&version)?;
    if let Some(description) = description {
        let (model, version) = (name.clone(), Some(number));
        edit(&state, Edit::Describe { model, version, description }).await?;
    }
    answer_version(&state, &name, number).await
}

/// Deletes a version that no alias names.
#[utoipa::path(delete, path = "/api/2.0/mlflow/model-versions/delete", tag = "mlflow",
    request_body = VersionName,
    responses((status = 200, body = Object), MlflowRefusals, WriteRefusals))]
pub(crate) async fn delete_version(
    state: web::Data<ServiceState>,
    request: HttpRequest,
    payload: web::Payload,
) -> Answer {
    let VersionName { name, version: text } = change(&state, &request, payload).await?;
    let number = number(&text)?;
    // The registry takes a repeated deletion for done; this client wants to hear of it.
    version(&state, &name, VersionRef::Number(number)).await?;
    let delete = DeleteVersion { model: name, version: number };
    ask(&registry(&state)?.delete, delete, CHANGE_LIMIT).await?;
    Ok(done())
}

/// Tags a version.
#[utoipa::path(post, path = "/api/2.0/mlflow/model-versions/set-tag", tag = "mlflow",
    request_body = VersionTag,
    responses((status = 200, body = Object), MlflowRefusals, WriteRefusals))]
pub(crate) async fn set_version_tag(
    state: web::Data<ServiceState>,
    request: HttpRequest,
    payload: web::Payload,
) -> Answer {
    let VersionTag { name, version, key, value } = change(&state, &request, payload).await?;
    let version = Some(number(&version)?);
    edit(&state, Edit::Tag { model: name, version, key, value: Some(value) }).await?;
    Ok(done())
}

/// Removes a tag of a version.
#[utoipa::path(delete, path = "/api/2.0/mlflow/model-versions/delete-tag", tag = "mlflow",
    request_body = VersionTagKey,
    responses((status = 200, body = Object), MlflowRefusals, WriteRefusals))]
pub(crate) async fn delete_version_tag(
    state: web::Data<ServiceState>,
    request: HttpRequest,
    payload: web::Payload,
) -> Answer {
    let VersionTagKey { name, version, key } = change(&state, &request, payload).await?;
    let version = Some(number(&version)?);
    edit(&state, Edit::Tag { model: name, version, key, value: None }).await?;
    Ok(done())
}

/// Moves the alias of a stage to a version, or takes it away from it.
#[utoipa::path(post, path = "/api/2.0/mlflow/model-versions/transition-stage", tag = "mlflow",
    request_body = TransitionStage,
    responses((status = 200, body = VersionAnswer), MlflowRefusals, WriteRefusals))]
pub(crate) async fn transition_stage(
    state: web::Data<ServiceState>,
    request: HttpRequest,
    payload: web::Payload,
) -> Answer {
    let TransitionStage { name, version: text, stage } = change(&state, &request, payload).await?;
    let number = number(&text)?;
    let known = version(&state, &name, VersionRef::Number(number)).await?;
    let wanted = STAGES.iter().find(|(known, _)| known.eq_ignore_ascii_case(&stage));
    let none = [NO_STAGE, "Archived"].iter().any(|known| known.eq_ignore_ascii_case(&stage));
    if wanted.is_none() && !none {
        let text = format!("stage {stage:?} is none of None, Staging, Production, Archived");
        return Err(MlflowError::bad(text));
    }
    // First where it goes to: between the two steps it has both rather than none.
    if let Some((_, alias)) = wanted {
        let (model, version) = (name.clone(), VersionRef::Number(number));
        let set = SetAlias { model, alias: (*alias).to_owned(), version };
        ask(&registry(&state)?.set_alias, set, CHANGE_LIMIT).await?;
    }
    for (_, alias) in STAGES.iter().filter(|stage| Some(*stage) != wanted) {
        if known.aliases.iter().any(|named| named == alias) {
            let remove = RemoveAlias { model: name.clone(), alias: (*alias).to_owned() };
            ask(&registry(&state)?.remove_alias, remove, CHANGE_LIMIT).await?;
        }
    }
    answer_version(&state, &name, number).await
}

/// Where the files of a version are.
#[utoipa::path(get, path = "/api/2.0/mlflow/model-versions/get-download-uri", tag = "mlflow",
    params(("name" = String, Query), ("version" = String, Query)),
    responses((status = 200, body = DownloadAnswer), MlflowRefusals))]
pub(crate) async fn download_uri(state: web::Data<ServiceState>, request: HttpRequest) -> Answer {
    let parameters = Parameters::of(&state, &request)?;
    let number = number(parameters.required("version")?)?;
    let found = version(&state, parameters.required("name")?, VersionRef::Number(number)).await?;
    // Its client asks this server for them then.
    let artifact_uri = match &found.origin {
        Origin::Published { .. } => format!("mlflow-artifacts:/{}/{number}", found.model),
        Origin::Linked { place, .. } => place.clone(),
    };
    Ok(HttpResponse::Ok().json(DownloadAnswer { artifact_uri }))
}
