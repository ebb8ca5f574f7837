//! ModelRegistry → its store, on one node: the log of the catalog, and the tensors of versions.
//!
//! The registry decides what a log entry says; the store only keeps what it is given, and knows
//! where.

use std::time::Duration;

use actix::{MailboxError, Message, Recipient};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::catalog::LogEntry;
use crate::messages::Values;
use crate::new_version::NewVersion;
use crate::version::{Artifact, VersionDescription};

/// The longest wait for one answer of the store. A gigabyte of tensors written to a slow disk and
/// synced takes less; a store that hangs must not hold the registry for ever.
const STORE_LIMIT: Duration = Duration::from_secs(120);

/// Appends entry `number` to the log, if the log has no such entry yet. The first entry is 1.
///
/// An entry carries the seal of the one before it, so that none of them can be changed, exchanged or
/// taken out without a reader's notice.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<Appended, RegistryStoreError>")]
pub struct AppendEntry {
    pub number: u64,
    /// Seal of entry `number - 1`; `None` for the first.
    pub previous: Option<String>,
    pub entry: LogEntry,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Appended {
    /// Durable, and the only entry of this number for ever.
    Written { seal: String },
    /// The log has another entry of this number, or this one from an attempt whose answer was
    /// lost. Read the log and decide again.
    Taken,
}

/// Reads entry `known` once more, so that its reader sees whether it is still the same one, and all
/// that follow it. With 0 the whole log.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<Vec<Sealed>, RegistryStoreError>")]
pub struct ReadLog {
    pub known: u64,
}

/// An entry as it lies in the log.
#[derive(Clone, Debug, PartialEq)]
pub struct Sealed {
    /// BLAKE3 over all that the entry holds, `previous` included, in hexadecimal.
    pub seal: String,
    /// Seal of the entry before, as it was when this one was written; `None` for the first.
    pub previous: Option<String>,
    pub entry: LogEntry,
}

/// Writes the tensors of a version that is about to be published, and its description beside them.
/// Nothing that was written before is replaced, and a folder that holds another run's model is left
/// alone: the log that knew of it may be lost.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<Artifact, RegistryStoreError>")]
pub struct WriteArtifact {
    pub description: NewVersion,
    pub version: u64,
    /// In the order of `description.tensors`.
    pub tensors: Vec<Values>,
    /// Of a model that is imported: it is kept as it is.
    pub file: Option<Bytes>,
}

/// Reads what is stored of a published version, and checks it against size and digest.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<Stored, RegistryStoreError>")]
pub struct ReadArtifact {
    pub description: VersionDescription,
}

/// What is stored of a version.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stored {
    /// In the order of `description.tensors`.
    pub tensors: Vec<Values>,
    /// Of a model that was imported.
    pub file: Option<Bytes>,
}

/// Removes stored files. What is gone already is no error.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<(), RegistryStoreError>")]
pub struct RemoveArtifact {
    pub model: String,
    pub version: u64,
    pub files: Remove,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remove {
    /// This artifact and its description: an attempt that lost.
    Attempt(Artifact),
    /// All that is stored for the version: it was deleted, and its number never comes back.
    All,
}

/// The store could not do it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum RegistryStoreError {
    #[error("can't {action} {path}: {cause}; check the folder of registry.store")]
    Unavailable { action: String, path: String, cause: String },
    #[error("log entry {path} can't be read: {cause}; restore the file from a backup")]
    Unreadable { path: String, cause: String },
    #[error("log entry {path} can't be read: {cause}")]
    Format { path: String, cause: String },
    /// Later ones are there, or it was read before.
    #[error("log entry {path} is missing; restore the file from a backup")]
    Gap { path: String },
    #[error(
        "log entry {number} follows one with seal {got}, the one before it has {expected}: one of the two was changed; restore both from a backup"
    )]
    Chain { number: u64, expected: String, got: String },
    #[error(
        "log entry {number} was replaced: its seal was {expected} when it was read first, now it is {got}; restore the log from a backup"
    )]
    Replaced { number: u64, expected: String, got: String },
    #[error("log entry {number} contradicts the entries before it: {cause}")]
    Contradiction { number: u64, cause: String },
    #[error("artifact {path} is missing; restore it from a backup, or delete the version")]
    Missing { path: String },
    #[error(
        "artifact {path} is not what was published: {what} is {got}, expected {expected}; restore it from a backup, or delete the version"
    )]
    Corrupt { path: String, what: String, expected: String, got: String },
    /// Publish under a number above `highest`.
    #[error(
        "{path} holds the model of run {run}, which the log doesn't know; restore the log from a backup"
    )]
    Occupied {
        path: String,
        run: String,
        /// The highest version of the model that has a folder.
        highest: u64,
    },
    #[error("the store of the registry is gone")]
    Gone,
    #[error("the store of the registry did not answer within {limit_ms} ms")]
    Timeout { limit_ms: u64 },
}

impl RegistryStoreError {
    /// Whether the same request may succeed later.
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::Gone | Self::Timeout { .. })
    }
}

/// Where a registry finds its store.
#[derive(Clone, Debug)]
pub struct RegistryStoreLink {
    pub append_entry: Recipient<AppendEntry>,
    pub read_log: Recipient<ReadLog>,
    pub write_artifact: Recipient<WriteArtifact>,
    pub read_artifact: Recipient<ReadArtifact>,
    pub remove_artifact: Recipient<RemoveArtifact>,
}

/// Sends a message to the store and waits for the answer.
///
/// # Errors
/// The store's own error, or that it did not answer; whether it acted is then unknown.
pub async fn ask_store<M, R>(store: &Recipient<M>, message: M) -> Result<R, RegistryStoreError>
where
    M: Message<Result = Result<R, RegistryStoreError>> + Send + 'static,
    R: Send + 'static,
{
    match tokio::time::timeout(STORE_LIMIT, store.send(message)).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(MailboxError::Closed)) => Err(RegistryStoreError::Gone),
        Ok(Err(MailboxError::Timeout)) | Err(_) => {
            let limit_ms = u64::try_from(STORE_LIMIT.as_millis()).unwrap_or(u64::MAX);
            Err(RegistryStoreError::Timeout { limit_ms })
        }
    }
}
