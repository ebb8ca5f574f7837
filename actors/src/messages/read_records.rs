//! Anyone → ModelRegistry: models and versions as people find them.

use serde::{Deserialize, Serialize};

use crate::catalog::{ModelRecord, Search, VersionRecord};
use crate::messages::{FindError, WireMessage, WirePart};
use crate::version::VersionRef;

/// Asks for one record, or for a page of those that a search finds.
#[derive(Clone, Debug, actix::Message, Serialize, Deserialize)]
#[rtype(result = "Result<Records, FindError>")]
pub struct ReadRecords {
    pub of: RecordsOf,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RecordsOf {
    Model { model: String },
    Version { model: String, version: VersionRef },
    Models(Search),
    Versions(Search),
}

/// Models for a question for models, versions for one for versions.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Records {
    pub models: Vec<ModelRecord>,
    pub versions: Vec<VersionRecord>,
    /// [`Search::from`] of the next page, where there is one.
    pub next: Option<usize>,
}

impl WirePart for ReadRecords {}
impl WirePart for Records {}

impl WireMessage for ReadRecords {
    const KIND: u16 = 0x020a;
    type Reply = Records;
    type Refusal = FindError;
}
