//! What the log of the registry is made of.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Edit;
use crate::route::Route;
use crate::version::VersionDescription;

/// One change of the catalog. The log of them is its whole history.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(clippy::large_enum_variant, reason = "most entries are publications")]
pub enum LogEntry {
    Published {
        description: VersionDescription,
    },
    /// `alias` names `version` from here on, whatever it named before.
    Aliased {
        model: String,
        alias: String,
        version: u64,
    },
    AliasRemoved {
        model: String,
        alias: String,
    },
    Deleted {
        model: String,
        version: u64,
    },
    /// Requests that name no version are split like this from here on.
    Routed {
        model: String,
        route: Option<Route>,
    },
    /// What a person wrote.
    Edited {
        edit: Edit,
        at_unix_ms: u64,
    },
}

/// In a line, for logs.
impl fmt::Display for LogEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Published { description } => {
                write!(f, "{} has version {}", description.model, description.version)
            }
            Self::Aliased { model, alias, version } => {
                write!(f, "{alias} of {model} is version {version}")
            }
            Self::AliasRemoved { model, alias } => write!(f, "{model} has no alias {alias}"),
            Self::Deleted { model, version } => write!(f, "version {version} of {model} is gone"),
            Self::Routed { model, route: None } => write!(f, "{model} has no route"),
            Self::Routed { model, route: Some(_) } => write!(f, "{model} has another route"),
            Self::Edited { edit, .. } => edit.fmt(f),
        }
    }
}
