//! The vocabulary of the cluster: one message a file, request, reply and refusal together.

mod delete_version;
mod fetch_model;
mod find_model;
mod link;
mod list_models;
mod predict;
mod publish_model;
mod registry_error;
mod registry_store;
mod remove_alias;
mod set_alias;
mod tensors;

pub use delete_version::DeleteVersion;
pub use fetch_model::{FetchModel, FetchedModel};
pub use find_model::FindModel;
pub use link::{Body, BodyError, LinkError, Values, WireMessage, WirePart, ask};
pub use list_models::{ListModels, ModelList};
pub use predict::{Predict, PredictError, Prediction};
pub use publish_model::{PublishModel, Published};
pub use registry_error::{ChangeError, FindError};
pub use registry_store::{
    AppendEntry, Appended, ReadArtifact, ReadLog, RegistryStoreError, RegistryStoreLink, Remove,
    RemoveArtifact, WriteArtifact, ask_store,
};
pub use remove_alias::RemoveAlias;
pub use set_alias::{AliasSet, SetAlias};
