//! How a ParameterServer and a Worker write a part of a checkpoint.

use std::time::Duration;

use actix::Recipient;
use tracing::warn;

use crate::checkpoint::SavedPart;
use crate::messages::checkpoint_store::SavePart;

/// A full disk is worth waiting for: the checkpoint before stays the one that counts.
const WRITE_AGAIN_AFTER: Duration = Duration::from_secs(1);

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
