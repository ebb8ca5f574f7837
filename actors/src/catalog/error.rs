//! Why the catalog refuses.

use serde::{Deserialize, Serialize};

use super::filter::FilterError;
use crate::new_version::NewVersionError;
use crate::notes::NotesError;
use crate::route::RouteError;
use crate::version::{NameError, VersionRef};

/// How many known names an error lists: enough to spot a misspelling, short enough for a log line.
const KNOWN_MAX: usize = 12;

/// The catalog refuses. It has not changed.
#[derive(Clone, Debug, PartialEq, thiserror::Error, Serialize, Deserialize)]
pub enum CatalogError {
    #[error(transparent)]
    Name(#[from] NameError),
    #[error("no model {model:?}; {}", known_names("models", known))]
    NoModel { model: String, known: Vec<String> },
    #[error("{model} has no version {version}; {}", known_names("versions", known))]
    NoVersion { model: String, version: u64, known: Vec<String> },
    #[error("no version of {model} is there: none was published, or all were deleted")]
    NoVersions { model: String },
    #[error("{model} has no alias {alias:?}; {}", known_names("aliases", known))]
    NoAlias { model: String, alias: String, known: Vec<String> },
    #[error(
        "version {version} of {model} is named by alias {alias:?}; move the alias or remove it first: node models alias {model} {alias} --remove"
    )]
    InUse { model: String, version: u64, alias: String },
    #[error("version {version} of {model} is in its route; change the route first")]
    Routed { model: String, version: VersionRef },
    #[error(
        "version {version} of {model} is a part of version {whole_version} of {whole}; delete that first"
    )]
    Part { model: String, version: u64, whole: String, whole_version: u64 },
    #[error(
        "{model} is made of version {version} of {part} with state {digest}; that version has {published} here"
    )]
    OtherPart { model: String, part: String, version: u64, published: String, digest: String },
    #[error(transparent)]
    Route(#[from] RouteError),
    #[error("run {run} was published as version {version} of {model}, which was deleted")]
    RunDeleted { model: String, run: String, version: u64 },
    #[error(
        "run {run} is version {version} of {model} with state {published}, not {digest}; a run has one final state"
    )]
    RunDiffers { model: String, run: String, version: u64, published: String, digest: String },
    #[error("{model} is there already; its description and tags can be changed")]
    ModelExists { model: String },
    #[error(
        "version {version} of {model} lies at {place}, which is not read here: it can be found, and not served; publish it to serve it"
    )]
    Linked { model: String, version: u64, place: String },
    #[error("{model} has a route; remove it first: node models route {model}")]
    HasRoute { model: String },
    #[error("there are {limit} models already; delete one that has no use")]
    ManyModels { limit: usize },
    #[error(transparent)]
    Notes(#[from] NotesError),
    #[error(transparent)]
    Filter(#[from] FilterError),
    #[error("run {run} already made version {version} of {model}")]
    RunTaken { model: String, run: String, version: u64 },
    #[error("the next version of {model} is {expected}, not {got}")]
    OutOfOrder { model: String, expected: u64, got: u64 },
    #[error(transparent)]
    Values(#[from] NewVersionError),
}

impl CatalogError {
    /// Whether the thing that was asked for does not exist.
    pub fn is_not_found(&self) -> bool {
        matches!(
            self,
            Self::NoModel { .. }
                | Self::NoVersion { .. }
                | Self::NoVersions { .. }
                | Self::NoAlias { .. }
        )
    }
}

pub(super) fn some(mut known: impl Iterator<Item = String>) -> Vec<String> {
    let mut some: Vec<_> = known.by_ref().take(KNOWN_MAX).collect();
    if known.next().is_some() {
        some.push("…".to_owned());
    }
    some
}

fn known_names(what: &str, known: &[String]) -> String {
    match known {
        [] => format!("there are no {what}"),
        known => format!("known {what}: {}", known.join(", ")),
    }
}
