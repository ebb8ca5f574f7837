//! How a ParameterServer and a Worker write a part of a checkpoint.

use std::fmt;
use std::time::Duration;

use actix::Recipient;
use tokio::time::Instant;
use tracing::warn;

use crate::checkpoint::SavedPart;
use crate::ids::Version;
use crate::messages::checkpoint_store::SavePart;

/// A full disk is worth waiting for: the checkpoint before stays the one that counts.
const WRITE_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// Between two warnings of checkpoints that are left out: with each of some hundred a second they would fill the log.
const SKIPS_TOLD_EVERY: Duration = Duration::from_secs(10);

/// Checkpoints that were left out since that was told.
#[derive(Debug, Default)]
pub(crate) struct Skips {
    count: u64,
    told: Option<Instant>,
}

impl Skips {
    pub(crate) fn add(&mut self, writer: impl fmt::Display, version: Version) {
        self.count += 1;
        let now = Instant::now();
        if self.told.is_none_or(|told| now >= told + SKIPS_TOLD_EVERY) {
            self.told = Some(now);
            let skipped = std::mem::take(&mut self.count);
            warn!(
                %writer, %version, skipped,
                "checkpoints are skipped while earlier ones are being written; see that checkpoint.store takes them, or raise checkpoint.every_steps"
            );
        }
    }
}

/// Writes a part, again and again until the store takes it; `None` if the store is gone for good.
pub(crate) async fn save_until_written(
    store: &Recipient<SavePart>,
    part: SavePart,
) -> Option<SavedPart> {
    loop {
        match store.send(part.clone()).await {
            Ok(Ok(saved)) => return Some(saved),
            Ok(Err(error)) => {
                warn!(version = %part.version, %error, "checkpoint part not written, trying again");
                tokio::time::sleep(WRITE_AGAIN_AFTER).await;
            }
            // It has died of this request, and lives again.
            Err(error) if store.connected() => {
                warn!(version = %part.version, %error, "checkpoint part not written, trying again");
                tokio::time::sleep(WRITE_AGAIN_AFTER).await;
            }
            Err(_) => return None,
        }
    }
}
