//! Anyone → ModelRegistry: models and versions as people find them.

use serde::{Deserialize, Serialize};

use crate::catalog::{Events, ModelRecord, Search, VersionRecord};
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
    Model {
        model: String,
    },
    Version {
        model: String,
        version: VersionRef,
    },
    Models(Search),
    Versions(Search),
    /// What happened behind the event `after`, without it the newest; at most `limit`, and at most
    /// [`EVENTS_PAGE_MAX`](crate::catalog::EVENTS_PAGE_MAX).
    Events {
        after: Option<u64>,
        limit: usize,
    },
}

/// Models for a question for models, versions for one for versions, events for one for events.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Records {
    pub models: Vec<ModelRecord>,
    pub versions: Vec<VersionRecord>,
    /// [`Search::from`] of the next page, where there is one.
    pub next: Option<usize>,
    pub events: Events,
}

impl WirePart for ReadRecords {}
impl WirePart for Records {}

impl WireMessage for ReadRecords {
    const KIND: u16 = 0x020a;
    type Reply = Records;
    type Refusal = FindError;
}
