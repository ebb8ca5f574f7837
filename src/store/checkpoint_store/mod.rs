//! Checkpoints in an object store: parts as safetensors, a manifest last.
//!
//! ```text
//! v00000000000000000200/parameters-0-26368.safetensors
//! v00000000000000000200/residuals-0-3.safetensors
//! v00000000000000000200/manifest.json       written last: from now on the checkpoint counts
//! finished.json                             the run that was published last, until another is
//! id                                        the folder's, among several coordinators, see [`store_id`](super::store_id)
//! lock, lock-*                              held by whoever coordinates, see [`StoreLock`](super::StoreLock)
//! ```
//!
//! The JSON files are sealed, the manifest has the digests of the parts: one changed byte anywhere
//! is noticed before anything is restored from it.

mod load;

use std::io::ErrorKind;

use actix::{Actor, Context, Handler, ResponseFuture, Supervised};
use gradmesh_actors::checkpoint::{Finished, Manifest, PartContent, SavedPart};
use gradmesh_actors::ids::{Slot, Version};
use gradmesh_actors::messages::Values;
use gradmesh_actors::messages::checkpoint_store::{
    CheckpointError, CommitCheckpoint, ConcludeRun, FindCheckpoint, FoundCheckpoint, LoadRange,
    LoadResiduals, LoadState, OpenCheckpoints, Opened, SavePart,
};
use gradmesh_actors::planted::{self, Bug};
use object_store::ObjectStoreExt;
use object_store::path::Path;
use tracing::warn;

use crate::store::sealed::Sealed;
use crate::store::tensors::{NamedTensor, TensorFile, write_safetensors};
use crate::store::{Store, removed};

/// Reads and writes the checkpoints of one cluster. Each node has its own, over the same store.
#[derive(Clone, Debug)]
pub struct CheckpointStore {
    store: Store,
    /// Its name for people.
    name: String,
    /// Whole checkpoints that are kept, ≥ 1.
    keep: usize,
}

const PARAMETERS: &str = "parameters";
const FINISHED: &str = "finished.json";

impl CheckpointStore {
    pub fn new(store: impl Into<Store>, name: impl Into<String>, keep: u32) -> Self {
        let store = store.into();
        Self { store, name: name.into(), keep: keep.max(1) as usize }
    }

    async fn save(self, part: SavePart) -> Result<SavedPart, CheckpointError> {
        let file = match &part.content {
            PartContent::Parameters { start, end } => format!("parameters-{start}-{end}"),
            PartContent::Residuals { slots } => {
                let number = |slot: Option<&Slot>| slot.map_or(0, |slot| slot.0);
                format!("residuals-{}-{}", number(slots.first()), number(slots.last()))
            }
        };
        let path = format!("{}/{file}.safetensors", folder(part.version));
        let tensor = |(name, values): (String, Values)| NamedTensor {
            name,
            shape: vec![values.len()],
            values,
        };
        let tensors = part.tensors.into_iter().map(tensor).collect();
        let file = TensorFile { tensors, metadata: Default::default() };
        let bytes = write_safetensors(&file).map_err(|error| store_error(&error))?;
        let saved = SavedPart {
            content: part.content,
            path: path.clone(),
            bytes: bytes.len() as u64,
            digest: blake3::hash(&bytes).to_hex().to_string(),
        };
        if planted::is(Bug::ReportFirst) {
            let written = async move { self.put(&path, bytes).await };
            tokio::task::spawn_local(written);
            return Ok(saved);
        }
        self.put(&path, bytes).await?;
        Ok(saved)
    }

    async fn open(self, wanted: OpenCheckpoints) -> Result<Opened, CheckpointError> {
        for version in self.versions().await?.into_iter().rev() {
            if wanted.not.contains(&version) {
                warn!(%version, "checkpoint passed over, it could not be restored");
                continue;
            }
            match self.whole(version).await {
                Ok(manifest) => {
                    self.check_job(&manifest, &wanted)?;
                    let finished = self.finished(&wanted).await?;
                    return Ok(Opened { manifest: Some(manifest), finished });
                }
                // Not the checkpoint's fault: going back further would lose work.
                Err(error) if error.may_pass() => return Err(error),
                Err(error) => {
                    warn!(%version, %error, "checkpoint passed over, looking at the one before")
                }
            }
        }
        Ok(Opened { manifest: None, finished: self.finished(&wanted).await? })
    }

    async fn newest(self, find: FindCheckpoint) -> Result<FoundCheckpoint, CheckpointError> {
        for version in self.folders().await?.into_iter().rev() {
            // Whoever follows looks again and again: not at all that are older.
            if self.counts(version).await? {
                return Ok(match find.known == Some(version) {
                    true => FoundCheckpoint::Known,
                    false => FoundCheckpoint::Other(Box::new(self.manifest(version).await?)),
                });
            }
        }
        Ok(FoundCheckpoint::Nothing)
    }

    /// The run that finished last, if it is one of the wanted job.
    async fn finished(
        &self,
        wanted: &OpenCheckpoints,
    ) -> Result<Option<Finished>, CheckpointError> {
        let Some(bytes) = self.find(FINISHED).await? else { return Ok(None) };
        match Sealed::<Finished>::read(&bytes) {
            Ok(finished) => Ok(Some(finished).filter(|finished| {
                finished.job_digest == wanted.job_digest
                    && finished.data_digest == wanted.data_digest
            })),
            Err(error) => {
                warn!(%error, "{FINISHED} is damaged, the job is trained again");
                Ok(None)
            }
        }
    }

    fn check_job(
        &self,
        manifest: &Manifest,
        wanted: &OpenCheckpoints,
    ) -> Result<(), CheckpointError> {
        let data = &manifest.offer.data.digest;
        for (what, got, expected) in [
            ("job", &manifest.job_digest, &wanted.job_digest),
            ("data set", data, &wanted.data_digest),
        ] {
            if got != expected {
                return Err(CheckpointError::OtherJob {
                    store: self.name.clone(),
                    version: manifest.version,
                    what,
                    expected: short(expected),
                    got: short(got),
                });
            }
        }
        Ok(())
    }

    async fn commit(self, commit: CommitCheckpoint) -> Result<(), CheckpointError> {
        let manifest = commit.manifest;
        let version = manifest.version;
        if planted::is(Bug::RemovedFirst) {
            self.remove_older(version, self.keep - 1).await?;
        }
        let text = Sealed::write(manifest).map_err(|error| store_error(&error))?;
        self.put(&manifest_path(version), text).await?;
        self.remove_older(version, self.keep).await
    }

    /// Keeps so many checkpoints of those up to `version`, and nothing that is older.
    async fn remove_older(&self, version: Version, keep: usize) -> Result<(), CheckpointError> {
        let mut folders = self.folders().await?;
        // Newer ones are damaged, or training would have gone on from there: none to rely on.
        folders.retain(|older| *older <= version);
        let mut kept = 0;
        for version in folders.into_iter().rev() {
            if kept < keep {
                kept += usize::from(self.counts(version).await?);
                continue;
            }
            // With a manifest or without: it never became whole, and won't any more.
            if let Err(error) = self.remove(version).await {
                warn!(%version, %error, "old checkpoint not removed");
            }
        }
        Ok(())
    }

    async fn conclude(self, conclude: ConcludeRun) -> Result<(), CheckpointError> {
        // A leader that slept since it published has been succeeded, and the next run may have
        // begun: its checkpoints are not this one's to remove.
        for version in self.versions().await? {
            let other = match self.manifest(version).await {
                Ok(manifest) => Some(manifest.run),
                Err(error) if error.may_pass() => return Err(error),
                // Damaged: nobody goes on from it.
                Err(_) => None,
            };
            if let Some(run) = other.filter(|run| *run != conclude.finished.run) {
                warn!(%version, %run, finished = %conclude.finished.run, "another run goes on here");
                return Ok(());
            }
        }
        let text = Sealed::write(conclude.finished).map_err(|error| store_error(&error))?;
        self.put(FINISHED, text).await?;
        self.remove_all().await
    }

    /// Removes all checkpoints, whole or not, and the sign that a job is finished.
    ///
    /// # Errors
    /// The store can't be read or a file can't be removed.
    pub async fn discard(self) -> Result<(), CheckpointError> {
        self.forget_finished().await?;
        self.remove_all().await
    }

    /// Removes the sign that a job is finished, so that it is trained again.
    ///
    /// # Errors
    /// The file can't be removed.
    pub async fn forget_finished(&self) -> Result<(), CheckpointError> {
        removed(self.store.objects.delete(&Path::from(FINISHED)).await).map_err(|e| store_error(&e))
    }

    async fn remove_all(&self) -> Result<(), CheckpointError> {
        // All folders, also those of checkpoints that never became whole.
        for version in self.folders().await? {
            self.remove(version).await?;
        }
        Ok(())
    }

    /// Versions that have a manifest, in order.
    async fn versions(&self) -> Result<Vec<Version>, CheckpointError> {
        let mut versions = Vec::new();
        for version in self.folders().await? {
            if self.counts(version).await? {
                versions.push(version);
            }
        }
        Ok(versions)
    }

    /// Versions that have a folder, in order.
    async fn folders(&self) -> Result<Vec<Version>, CheckpointError> {
        let list = self.store.objects.list_with_delimiter(None).await;
        let list = list.map_err(|error| store_error(&error))?;
        let folders = list.common_prefixes.iter();
        let mut versions: Vec<_> = folders.filter_map(|one| version_of(one.as_ref())).collect();
        versions.sort_unstable();
        Ok(versions)
    }

    /// Whether it has a manifest. One that can't be looked for is not one that isn't there: who took it for
    /// that would go back further than it has to, or remove what is another run's.
    async fn counts(&self, version: Version) -> Result<bool, CheckpointError> {
        match self.store.objects.head(&Path::from(manifest_path(version))).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(store_error(&error)),
        }
    }

    /// The manifest first: a checkpoint that is half gone doesn't count.
    async fn remove(&self, version: Version) -> Result<(), CheckpointError> {
        let manifest = Path::from(manifest_path(version));
        let removal = async {
            removed(self.store.objects.delete(&manifest).await)?;
            self.store.remove_under(&Path::from(folder(version))).await
        };
        removal.await.map_err(|error| store_error(&error))
    }

    async fn get(&self, path: &str) -> Result<Vec<u8>, CheckpointError> {
        self.find(path).await?.ok_or_else(|| CheckpointError::Damaged {
            path: path.to_owned(),
            cause: "it is not there".to_owned(),
        })
    }

    /// `None` if there is no such file.
    async fn find(&self, path: &str) -> Result<Option<Vec<u8>>, CheckpointError> {
        let found = match self.store.objects.get(&Path::from(path)).await {
            Ok(found) => found.bytes().await,
            Err(error) => Err(error),
        };
        match found {
            Ok(bytes) => Ok(Some(bytes.to_vec())),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(store_error(&error)),
        }
    }

    async fn put(&self, path: &str, bytes: Vec<u8>) -> Result<(), CheckpointError> {
        let put = self.store.objects.put(&Path::from(path), bytes.into()).await;
        put.map(|_| ()).map_err(|error| store_error(&error))
    }
}

impl Actor for CheckpointStore {
    type Context = Context<Self>;
}

impl Supervised for CheckpointStore {
    fn restarting(&mut self, _ctx: &mut Self::Context) {
        gradmesh_actors::restart::replace(self);
    }
}

/// Each request works on its own copy: it has no state but the store's.
macro_rules! answer {
    ($message:ty, $method:ident) => {
        impl Handler<$message> for CheckpointStore {
            type Result = ResponseFuture<<$message as actix::Message>::Result>;

            fn handle(&mut self, message: $message, _ctx: &mut Self::Context) -> Self::Result {
                Box::pin(self.clone().$method(message))
            }
        }
    };
}

answer!(SavePart, save);
answer!(LoadRange, load_range);
answer!(LoadResiduals, load_residuals);
answer!(LoadState, load_state);
answer!(OpenCheckpoints, open);
answer!(FindCheckpoint, newest);
answer!(CommitCheckpoint, commit);
answer!(ConcludeRun, conclude);

fn folder(version: Version) -> String {
    format!("v{:020}", version.0)
}

fn version_of(folder: &str) -> Option<Version> {
    let version = folder.strip_prefix('v')?.parse().ok().map(Version)?;
    // Another name of the same number is not ours.
    (self::folder(version) == folder).then_some(version)
}

fn manifest_path(version: Version) -> String {
    format!("{}/manifest.json", folder(version))
}

fn store_error(error: &(dyn std::error::Error + 'static)) -> CheckpointError {
    let full = |error: &std::io::Error| {
        matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
    };
    let mut causes = std::iter::successors(Some(error), |error| error.source());
    let full = causes.any(|cause| cause.downcast_ref::<std::io::Error>().is_some_and(full));
    let what_to_do = if full { "; free space in checkpoint.store" } else { "" };
    CheckpointError::Store(format!("{error}{what_to_do}"))
}

/// Enough of a digest to tell two apart.
fn short(digest: &str) -> String {
    digest.chars().take(12).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_says_where_to_free_space() {
        let full = std::io::Error::from(ErrorKind::StorageFull);
        let error = object_store::Error::Generic { store: "folder", source: full.into() };
        assert!(store_error(&error).to_string().ends_with("; free space in checkpoint.store"));
        let other = std::io::Error::from(ErrorKind::NotFound);
        let error = object_store::Error::Generic { store: "folder", source: other.into() };
        assert!(!store_error(&error).to_string().contains("free space"));
    }
}
