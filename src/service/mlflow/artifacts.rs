//! `mlflow-artifacts/artifacts`: the files of published versions, as MLflow's clients load them.
//!
//! A version is the folder `<model>/<version>` with its description and its artifact, as it lies in the
//! registry; `node models import` reads a copy of it.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use actix_web::body::SizedStream;
use actix_web::{HttpRequest, HttpResponse, Scope, web};
use bytes::Bytes;
use futures_util::stream::{self, Stream};
use gradmesh_actors::messages::{FetchModel, FetchedModel, FindModel, ask};
use gradmesh_actors::version::{VersionDescription, VersionRef, check_model_name};
use serde::Serialize;
use tokio::sync::OwnedSemaphorePermit;
use utoipa::ToSchema;

use super::error::{MlflowError, MlflowRefusals};
use super::models::Answer;
use super::no_such_path;
use super::read::{Parameters, number, registry};
use crate::service::api_error::{ApiError, ErrorKind};
use crate::service::{FETCH_LIMIT, FIND_LIMIT, ServiceState};
use crate::store::artifact_bytes;

/// The description of a version in its folder.
const DESCRIPTION: &str = "description.json";

/// How long a download may take, beside a second for each megabyte.
const DOWNLOAD_LIMIT: Duration = Duration::from_secs(60);
const RATE_MIN: u64 = 1 << 20;

/// Bytes that are handed to a connection at once.
const CHUNK: usize = 64 << 10;

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ArtifactsAnswer {
    files: Vec<ArtifactFile>,
}

/// A file of a folder.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ArtifactFile {
    path: String,
    is_dir: bool,
    file_size: u64,
}

/// All below `/api/2.0/mlflow-artifacts`.
pub(in crate::service) fn artifacts_scope(state: ServiceState) -> Scope {
    let only =
        |route| web::resource("/artifacts").route(route).default_service(web::to(no_such_path));
    web::scope("/api/2.0/mlflow-artifacts")
        .app_data(web::Data::new(state))
        .service(only(web::get().to(list_artifacts)))
        .service(
            web::resource("/artifacts/{path:.+}")
                .route(web::get().to(artifact))
                .default_service(web::to(no_such_path)),
        )
        .default_service(web::to(no_such_path))
}

/// The files of a version.
#[utoipa::path(get, path = "/api/2.0/mlflow-artifacts/artifacts", tag = "mlflow",
    params(("path" = String, Query, description = "`<model>/<version>`")),
    responses((status = 200, body = ArtifactsAnswer), MlflowRefusals))]
pub(crate) async fn list_artifacts(state: web::Data<ServiceState>, request: HttpRequest) -> Answer {
    let parameters = Parameters::of(&state, &request)?;
    let Place { model, version, file } = Place::of(parameters.required("path")?)?;
    state.caller_of(&request)?.may_ask(&model)?;
    let description = describe(&state, model, version).await?;
    let json = json(&description)?.len() as u64;
    let artifact = &description.artifact;
    let all = [(DESCRIPTION, json), (artifact.file.as_str(), artifact.bytes)];
    let files = match file {
        // A file has none below it.
        Some(file) if all.iter().any(|(name, _)| *name == file) => Vec::new(),
        Some(file) => return Err(no_file(&file)),
        None => all
            .map(|(path, file_size)| ArtifactFile {
                path: path.to_owned(),
                is_dir: false,
                file_size,
            })
            .into(),
    };
    Ok(HttpResponse::Ok().json(ArtifactsAnswer { files }))
}

/// One of them.
#[utoipa::path(get, path = "/api/2.0/mlflow-artifacts/artifacts/{path}", tag = "mlflow",
    params(("path" = String, Path, description = "`<model>/<version>/<file>`")),
    responses(
        (status = 200, body = Vec<u8>, content_type = "application/octet-stream"),
        MlflowRefusals,
    ))]
pub(crate) async fn artifact(state: web::Data<ServiceState>, request: HttpRequest) -> Answer {
    let caller = state.caller_of(&request)?;
    let path = request.match_info().get("path").unwrap_or_default();
    let Place { model, version, file } = Place::of(path)?;
    caller.may_ask(&model)?;
    let Some(file) = file else { return Err(no_file(path)) };
    if file == DESCRIPTION {
        let description = json(&describe(&state, model, version).await?)?;
        return Ok(HttpResponse::Ok().content_type("application/octet-stream").body(description));
    }
    let description = describe(&state, model.clone(), version).await?;
    if file != description.artifact.file {
        return Err(no_file(path));
    }
    // Held until its last byte is with the connection: each is a whole model in memory.
    let place = state.downloads.clone().try_acquire_owned().map_err(|_| {
        let text = "models are downloaded by others already; try again in a second";
        ApiError::new(ErrorKind::Busy, text)
    })?;
    let fetch = FetchModel { model, version: VersionRef::Number(version) };
    let FetchedModel { description, tensors, file } =
        ask(&registry(&state)?.fetch, fetch, FETCH_LIMIT).await?;
    let bytes = match file {
        Some(file) => file,
        None => web::block(move || artifact_bytes(&description, tensors))
            .await
            .map_err(|error| internal(&error))?
            .map_err(|error| internal(&error))?,
    };
    let length = bytes.len() as u64;
    let body = SizedStream::new(length, Box::pin(chunks(bytes, place)));
    Ok(HttpResponse::Ok().content_type("application/octet-stream").body(body))
}

/// The file in pieces. A caller who does not read in time gets no more of it: the model and its place are
/// given up then, whether or not the connection still looks for the next piece.
fn chunks(
    bytes: Bytes,
    place: OwnedSemaphorePermit,
) -> impl Stream<Item = Result<Bytes, std::io::Error>> {
    let limit = DOWNLOAD_LIMIT + Duration::from_secs(bytes.len() as u64 / RATE_MIN);
    let held = Rc::new(RefCell::new(Some((bytes, place))));
    let late = Rc::downgrade(&held);
    actix_rt::spawn(async move {
        tokio::time::sleep(limit).await;
        if let Some(held) = late.upgrade() {
            held.replace(None);
        }
    });
    stream::unfold(held, |held| async move {
        let chunk = match &mut *held.borrow_mut() {
            None => Err(std::io::ErrorKind::TimedOut.into()),
            Some((rest, _)) => Ok(rest.split_to(CHUNK.min(rest.len()))),
        };
        let over = chunk.as_ref().is_ok_and(Bytes::is_empty);
        (!over).then_some((chunk, held))
    })
}

/// A folder or a file of it.
struct Place {
    model: String,
    version: u64,
    file: Option<String>,
}

impl Place {
    fn of(path: &str) -> Result<Self, MlflowError> {
        let mut parts = path.trim_matches('/').splitn(3, '/');
        let (Some(model), Some(version)) = (parts.next(), parts.next()) else {
            return Err(no_file(path));
        };
        check_model_name(model).map_err(|_| no_file(path))?;
        let version = number(version).map_err(|_| no_file(path))?;
        Ok(Self { model: model.to_owned(), version, file: parts.next().map(str::to_owned) })
    }
}

async fn describe(
    state: &ServiceState,
    model: String,
    version: u64,
) -> Result<VersionDescription, MlflowError> {
    let find = FindModel { model, version: VersionRef::Number(version) };
    Ok(ask(&state.actors.find, find, FIND_LIMIT).await?)
}

fn json(description: &VersionDescription) -> Result<Vec<u8>, MlflowError> {
    serde_json::to_vec_pretty(description).map_err(|error| internal(&error))
}

fn no_file(path: &str) -> MlflowError {
    let text = format!(
        "no file {path:?}; versions have <model>/<version>/{DESCRIPTION} and the file that it names"
    );
    ApiError::new(ErrorKind::NotFound, text).into()
}

fn internal(error: &dyn std::error::Error) -> MlflowError {
    ApiError::new(ErrorKind::Internal, error.to_string()).into()
}
