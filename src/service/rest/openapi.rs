//! The OpenAPI document, from the handlers and the types that they read and write.

use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn, PathItem};
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{OpenApi, RefOr, Required};
use utoipa::{IntoResponses, OpenApi as _, ToSchema};

use super::{infer, repository, routes};
use crate::service::{events, mlflow, openai, status};

/// What each refusal says.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "what `ApiError` writes, for the document")]
pub(in crate::service) struct ErrorBody {
    error: String,
}

/// What may be said to any question for a model.
#[derive(Debug, IntoResponses)]
#[expect(dead_code, reason = "for the document")]
pub(in crate::service) enum Refusals {
    /// The request is wrong
    #[response(status = 400)]
    Invalid(ErrorBody),
    /// A key is needed: `service.keys` is set
    #[response(status = 401)]
    Unauthenticated(ErrorBody),
    /// There is no such model, or no such version of it
    #[response(status = 404)]
    NotFound(ErrorBody),
    /// Too much is under way; try again
    #[response(status = 429)]
    Busy(ErrorBody),
    /// A version is damaged, or its model fails
    #[response(status = 500)]
    Internal(ErrorBody),
    /// The model was unloaded, or the registry is away; try again
    #[response(status = 503)]
    Unavailable(ErrorBody),
    /// No answer within the limit
    #[response(status = 504)]
    Late(ErrorBody),
}

/// What may be said to a body.
#[derive(Debug, IntoResponses)]
#[expect(dead_code, reason = "for the document")]
pub(in crate::service) enum BodyRefusals {
    /// The body did not arrive in time
    #[response(status = 408)]
    Slow(ErrorBody),
    /// The body is too large
    #[response(status = 413)]
    TooLarge(ErrorBody),
    /// The body's encoding is not known
    #[response(status = 415)]
    Encoding(ErrorBody),
}

/// What may be said to whoever asks a model.
#[derive(Debug, IntoResponses)]
#[expect(dead_code, reason = "for the document")]
pub(in crate::service) enum ModelRefusals {
    /// The entry of the key does not name the model
    #[response(status = 403)]
    Forbidden(ErrorBody),
}

/// What may be said to whoever loads and unloads models.
#[derive(Debug, IntoResponses)]
#[expect(dead_code, reason = "for the document")]
pub(in crate::service) enum ControlRefusals {
    /// Callers may not: `service.model_control` is off, or not in the entry of their key
    #[response(status = 403)]
    Forbidden(ErrorBody),
    /// Models come by publication, not with a request
    #[response(status = 501)]
    Unsupported(ErrorBody),
}

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "gradmesh",
        description = "The Open Inference Protocol, version 2, MLflow's model registry, and what is gradmesh's own beside them"
    ),
    components(schemas(ErrorBody)),
    paths(
        infer::infer,
        routes::server,
        routes::live,
        routes::ready,
        routes::models,
        routes::model,
        routes::model_ready,
        routes::config,
        routes::statistics,
        repository::index,
        repository::load,
        repository::unload,
        routes::metrics,
        routes::triton_page,
        status::status,
        events::events,
        openai::embed,
        openai::list,
        openai::retrieve,
        mlflow::create_model,
        mlflow::get_model,
        mlflow::search_models,
        mlflow::update_model,
        mlflow::rename_model,
        mlflow::delete_model,
        mlflow::set_model_tag,
        mlflow::delete_model_tag,
        mlflow::latest_versions,
        mlflow::get_by_alias,
        mlflow::set_alias,
        mlflow::delete_alias,
        mlflow::create_version,
        mlflow::get_version,
        mlflow::search_versions,
        mlflow::update_version,
        mlflow::delete_version,
        mlflow::set_version_tag,
        mlflow::delete_version_tag,
        mlflow::transition_stage,
        mlflow::download_uri,
        mlflow::list_artifacts,
        mlflow::artifact,
    )
)]
struct Document;

const MODEL: &str = "/v2/models/{model}";

/// The document. Each path of a model is there for its versions too, and the statistics for all
/// models.
pub(in crate::service) fn document() -> OpenApi {
    let mut document = Document::openapi();
    let of_models: Vec<(String, PathItem)> = document
        .paths
        .paths
        .iter()
        .filter_map(|(path, item)| {
            let below = path.strip_prefix(MODEL)?;
            Some((format!("{MODEL}/versions/{{version}}{below}"), of_version(item.clone())))
        })
        .collect();
    document.paths.paths.extend(of_models);
    if let Some(of_model) = document.paths.paths.get("/v2/models/{model}/stats").cloned() {
        let all = changed(of_model, "all", |parameters| parameters.clear());
        document.paths.paths.insert("/v2/models/stats".to_owned(), all);
    }
    document
}

fn of_version(item: PathItem) -> PathItem {
    changed(item, "version", |parameters| {
        let text = ObjectBuilder::new().schema_type(Type::String).build();
        let version = ParameterBuilder::new()
            .name("version")
            .parameter_in(ParameterIn::Path)
            .required(Required::True)
            .description(Some("A number, an alias, or `latest`"))
            .schema(Some(text));
        parameters.push(RefOr::T(version.build()));
    })
}

/// The same operations under another path.
fn changed(
    mut item: PathItem,
    name: &str,
    change: impl Fn(&mut Vec<RefOr<Parameter>>),
) -> PathItem {
    for operation in [&mut item.get, &mut item.post].into_iter().flatten() {
        change(operation.parameters.get_or_insert_default());
        if let Some(id) = &mut operation.operation_id {
            *id = format!("{id}_of_{name}");
        }
    }
    item
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_has_each_path_of_a_model_for_its_versions_too() {
        let document = serde_json::to_value(document()).unwrap();
        let paths = document["paths"].as_object().unwrap();
        assert_eq!(paths.len(), 46, "{:?}", paths.keys());
        for below in ["", "/ready", "/config", "/stats", "/infer"] {
            let path = format!("/v2/models/{{model}}/versions/{{version}}{below}");
            let item = paths.get(&path).unwrap_or_else(|| panic!("{path}"));
            let parameters = item.as_object().unwrap().values().next().unwrap()["parameters"]
                .as_array()
                .unwrap()
                .iter()
                .map(|parameter| parameter["name"].as_str().unwrap());
            assert!(parameters.eq(match below {
                "/infer" => vec!["model", "inference-header-content-length", "version"],
                _ => vec!["model", "version"],
            }));
        }
        let mut ids: Vec<&str> = paths
            .values()
            .flat_map(|item| item.as_object().unwrap().values())
            .map(|operation| operation["operationId"].as_str().unwrap())
            .collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), 48);
    }
}
