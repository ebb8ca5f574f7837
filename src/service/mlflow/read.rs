//! What a request asks for, and whom the answer comes from.

use actix_web::{HttpRequest, web};
use gradmesh_actors::catalog::{Edit, ModelRecord, Search, VersionRecord};
use gradmesh_actors::messages::{EditRegistry, Edited, ReadRecords, Records, RecordsOf, ask};
use gradmesh_actors::notes::Notes;
use gradmesh_actors::version::VersionRef;
use serde::de::DeserializeOwned;

use super::answers::Tag;
use super::error::MlflowError;
use crate::service::api_error::{ApiError, ErrorKind};
use crate::service::oip::unix_ms;
use crate::service::rest::read_json;
use crate::service::{CHANGE_LIMIT, FIND_LIMIT, RegistryActors, ServiceState};

/// The body of a change; nobody changes anything where callers may not.
pub(super) async fn change<T: DeserializeOwned>(
    state: &ServiceState,
    request: &HttpRequest,
    payload: web::Payload,
) -> Result<T, MlflowError> {
    state.caller_of(request)?.may_write()?;
    if !state.registry_writes {
        let text = "callers don't change the registry here; set service.registry_writes = true";
        return Err(ApiError::new(ErrorKind::Forbidden, text).into());
    }
    Ok(read_json(state, request, payload).await?)
}

/// Of a GET, which is refused without a key where one is needed: the values of its parameters, which may come several times.
pub(super) struct Parameters(Vec<(String, String)>);

impl Parameters {
    pub(super) fn of(state: &ServiceState, request: &HttpRequest) -> Result<Self, MlflowError> {
        state.caller_of(request)?;
        let pairs = web::Query::<Vec<(String, String)>>::from_query(request.query_string());
        match pairs {
            Ok(pairs) => Ok(Self(pairs.into_inner())),
            Err(error) => Err(MlflowError::bad(format!("the query can't be read: {error}"))),
        }
    }

    pub(super) fn get(&self, key: &str) -> Option<&str> {
        let found = self.0.iter().find(|(name, _)| name == key);
        found.map(|(_, value)| value.as_str())
    }

    pub(super) fn required(&self, key: &str) -> Result<&str, MlflowError> {
        self.get(key).ok_or_else(|| MlflowError::bad(format!("parameter {key:?} is missing")))
    }

    /// `filter`, `order_by`, `max_results`, `page_token`.
    pub(super) fn search(&self, max: usize) -> Result<Search, MlflowError> {
        let number = |key: &str, default: usize| match self.get(key).filter(|text| !text.is_empty())
        {
            None => Ok(default),
            Some(text) => {
                let wrong =
                    || MlflowError::bad(format!("{key} {text:?} is no whole number above 0"));
                text.parse().map_err(|_| wrong())
            }
        };
        let max = match number("max_results", max)? {
            0 => return Err(MlflowError::bad("max_results is 0; ask for at least one")),
            max => max,
        };
        let order = self.0.iter().filter(|(name, _)| name == "order_by" || name == "order_by[]");
        Ok(Search {
            filter: self.get("filter").unwrap_or_default().to_owned(),
            order: order.map(|(_, value)| value.clone()).collect(),
            max,
            from: number("page_token", 0)?,
        })
    }
}

/// A version by its number.
pub(super) fn number(version: &str) -> Result<u64, MlflowError> {
    match version.parse()? {
        VersionRef::Number(number) => Ok(number),
        other => Err(MlflowError::bad(format!("version {:?} is not a number", other.to_string()))),
    }
}

pub(super) fn notes(description: Option<String>, tags: Vec<Tag>) -> Notes {
    let tags = tags.into_iter().map(|tag| (tag.key, tag.value)).collect();
    Notes { description: description.unwrap_or_default(), tags }
}

pub(super) fn registry(state: &ServiceState) -> Result<&RegistryActors, MlflowError> {
    state.registry.as_ref().ok_or_else(|| {
        ApiError::new(ErrorKind::Unsupported, "this server has no registry to ask").into()
    })
}

pub(super) async fn edit(state: &ServiceState, edit: Edit) -> Result<Edited, MlflowError> {
    let edit = EditRegistry { edit, at_unix_ms: unix_ms() };
    Ok(ask(&registry(state)?.edit, edit, CHANGE_LIMIT).await?)
}

pub(super) async fn records(state: &ServiceState, of: RecordsOf) -> Result<Records, MlflowError> {
    Ok(ask(&registry(state)?.records, ReadRecords { of }, FIND_LIMIT).await?)
}

pub(super) async fn model(state: &ServiceState, model: &str) -> Result<ModelRecord, MlflowError> {
    let of = RecordsOf::Model { model: model.to_owned() };
    one(records(state, of).await?.models)
}

pub(super) async fn version(
    state: &ServiceState,
    model: &str,
    version: VersionRef,
) -> Result<VersionRecord, MlflowError> {
    let of = RecordsOf::Version { model: model.to_owned(), version };
    one(records(state, of).await?.versions)
}

fn one<T>(mut found: Vec<T>) -> Result<T, MlflowError> {
    let none = || ApiError::new(ErrorKind::Internal, "the registry answered another question");
    found.pop().ok_or_else(|| none().into())
}
