//! From the last checkpoint to a registered version.

use std::time::Duration;

use tracing::{info, warn};

use super::{ANSWER_MAX, CoordinatorLinks, RETRY_AFTER};
use crate::checkpoint::{Finished, Manifest, Published};
use crate::messages::checkpoint_store::{CheckpointError, ConcludeRun, LoadState};
use crate::messages::{FindModel, ask};
use crate::publication::describe;
use crate::version::{Parent, VersionRef};

const PUBLISH_MAX: Duration = Duration::from_secs(60);

/// Why a trained model was not published.
pub(super) enum NotPublished {
    /// Its checkpoint is damaged: an earlier one may not be.
    Checkpoint(CheckpointError),
    /// It would happen again.
    Refused(String),
}

/// Reads the last checkpoint, publishes it, and removes the run's checkpoints.
pub(super) async fn publish(
    links: CoordinatorLinks,
    manifest: Manifest,
    created_unix_ms: u64,
) -> Result<Published, NotPublished> {
    let load = LoadState { version: manifest.version };
    let state = loop {
        match links.load_state.send(load.clone()).await.unwrap_or(Err(CheckpointError::Closed)) {
            Ok(state) => break state,
            Err(error) if error.may_pass() => retry(&error).await,
            Err(error) => return Err(NotPublished::Checkpoint(error)),
        }
    };
    let mut message =
        describe(&manifest, &state, created_unix_ms).map_err(NotPublished::Refused)?;
    if let Some(parent) = &mut message.description.parent {
        parent.digest = digest_of(&links, parent).await;
    }
    let (model, digest) = (message.description.model.clone(), message.description.digest.clone());
    let version = loop {
        match ask(&links.publish, message.clone(), PUBLISH_MAX).await {
            Ok(published) => break published.version,
            Err(error) if error.may_pass() => retry(&error).await,
            Err(refused) => return Err(NotPublished::Refused(refused.to_string())),
        }
    };
    info!(%model, version, %digest, "published");
    let published = Published { model, version, digest };
    let finished = Finished {
        run: manifest.run,
        job_digest: manifest.job_digest,
        data_digest: manifest.offer.data.digest.clone(),
        last_version: manifest.version,
        ledger: manifest.ledger,
        published: published.clone(),
    };
    // A coordinator that starts again before this is done publishes the same version once more.
    let conclude = ConcludeRun { finished };
    if let Err(error) = links.conclude.send(conclude).await.unwrap_or(Err(CheckpointError::Closed))
    {
        warn!(%error, "checkpoints of the finished run stay");
    }
    Ok(published)
}

/// The digest of a version; `None` where it was deleted.
async fn digest_of(links: &CoordinatorLinks, parent: &Parent) -> Option<String> {
    let (model, version) = (parent.model.clone(), VersionRef::Number(parent.version));
    let find = FindModel { model, version };
    loop {
        match ask(&links.find, find.clone(), ANSWER_MAX).await {
            Ok(found) => return Some(found.digest),
            Err(error) if error.may_pass() => retry(&error).await,
            Err(_) => return None,
        }
    }
}

async fn retry(error: &dyn std::error::Error) {
    warn!(%error, "publishing again");
    tokio::time::sleep(RETRY_AFTER).await;
}
