//! Where artifacts, checkpoints and the registry's log are kept: a folder, by path or URL.

mod checkpoint_store;
pub mod coordination;
mod lock;
mod registry_store;
mod sealed;
mod tensors;

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::TryStreamExt;
use object_store::local::LocalFileSystem;
use object_store::path::Path as ObjectPath;
use object_store::{ObjectStore, ObjectStoreExt};

pub use checkpoint_store::CheckpointStore;
pub use lock::{StoreLock, store_id};
pub use registry_store::{RegistryStore, artifact_bytes};
pub use tensors::{NamedTensor, TensorFile, TensorFileError, read_safetensors, write_safetensors};

/// A store can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error(
        "store {url:?} is not a folder; this build knows folders only: give a path or file:///path"
    )]
    Scheme { url: String },
    #[error("store {url:?} is not file:///path without '%'; give the path of the folder instead")]
    FileUrl { url: String },
    #[error("folder {} can't be made: {source}", path.display())]
    Folder { path: PathBuf, source: std::io::Error },
    #[error("folder {} can't be opened: {source}", path.display())]
    Open { path: PathBuf, source: object_store::Error },
    #[error(transparent)]
    Coordination(#[from] coordination::PlaceError),
    #[error("{} is used by a run of {owner}; end it, or change checkpoint.store and coordination.store", path.display())]
    InUse { path: PathBuf, owner: String },
}

/// Opens the store at a path or a `file://` URL; a relative path is one from `base`. The folder is
/// made if it isn't there.
///
/// Whatever a put has acknowledged is synced to disk. A folder goes with its last file.
///
/// # Errors
/// Another scheme, or a folder that can't be made or opened.
pub fn open_store(url_or_path: &str, base: &Path) -> Result<Store, StoreError> {
    let path = made(folder(url_or_path, base)?)?;
    match LocalFileSystem::new_with_prefix(&path) {
        Ok(files) => {
            let files = Arc::new(files.with_fsync(true).with_automatic_cleanup(true));
            // As it is found from anywhere.
            let path = std::fs::canonicalize(&path).unwrap_or(path);
            Ok(Store { objects: files.clone(), folder: Some(Folder { files, path }) })
        }
        Err(source) => Err(StoreError::Open { path, source }),
    }
}

/// A store that is open.
#[derive(Clone, Debug)]
pub struct Store {
    pub objects: Arc<dyn ObjectStore>,
    /// The same store, where it is one.
    folder: Option<Folder>,
}

#[derive(Clone, Debug)]
struct Folder {
    files: Arc<LocalFileSystem>,
    path: PathBuf,
}

impl From<Arc<dyn ObjectStore>> for Store {
    fn from(objects: Arc<dyn ObjectStore>) -> Self {
        Self { objects, folder: None }
    }
}

impl Store {
    /// Its absolute path, where it is a folder.
    fn path(&self) -> Option<&Path> {
        self.folder.as_ref().map(|folder| folder.path.as_path())
    }

    /// Removes all that lies under `prefix`, also what writes have left there whose process was
    /// killed: a folder's store shows that to nobody, and it has the size of what was written.
    async fn remove_under(&self, prefix: &ObjectPath) -> object_store::Result<()> {
        let files: Vec<_> = self.objects.list(Some(prefix)).try_collect().await?;
        for file in files {
            removed(self.objects.delete(&file.location).await)?;
        }
        let Some(Folder { files, .. }) = &self.folder else { return Ok(()) };
        let folder = files.path_to_filesystem(prefix)?;
        #[expect(clippy::disallowed_methods, reason = "a simulated store is no folder")]
        let removal = tokio::task::spawn_blocking(move || std::fs::remove_dir_all(folder)).await;
        let failed = |source| object_store::Error::Generic { store: "folder", source };
        match removal {
            Ok(Err(error)) if error.kind() != ErrorKind::NotFound => Err(failed(error.into())),
            Ok(_) => Ok(()),
            Err(ended) => Err(failed(ended.into())),
        }
    }
}

/// What is not there is as good as removed.
fn removed(result: object_store::Result<()>) -> object_store::Result<()> {
    match result {
        Err(object_store::Error::NotFound { .. }) => Ok(()),
        other => other,
    }
}

fn folder(url_or_path: &str, base: &Path) -> Result<PathBuf, StoreError> {
    match url_or_path.split_once("://") {
        None => Ok(base.join(url_or_path)),
        Some(("file", path)) if path.starts_with('/') && !path.contains('%') => Ok(path.into()),
        Some(("file", _)) => Err(StoreError::FileUrl { url: url_or_path.to_owned() }),
        Some(_) => Err(StoreError::Scheme { url: url_or_path.to_owned() }),
    }
}

fn made(path: PathBuf) -> Result<PathBuf, StoreError> {
    match std::fs::create_dir_all(&path) {
        Ok(()) => Ok(path),
        Err(source) => Err(StoreError::Folder { path, source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_one_from_the_base_and_a_file_url_is_absolute() {
        let base = tempfile::tempdir().unwrap();
        open_store("some/store", base.path()).unwrap();
        assert!(base.path().join("some/store").is_dir());
        let url = format!("file://{}/other", base.path().display());
        open_store(&url, Path::new("/nowhere")).unwrap();
        assert!(base.path().join("other").is_dir());
    }

    #[test]
    fn another_scheme_is_refused_and_makes_no_folder() {
        let base = tempfile::tempdir().unwrap();
        let refused = open_store("s3://bucket/models", base.path()).unwrap_err();
        assert!(refused.to_string().contains("knows folders only"), "{refused}");
        assert!(base.path().read_dir().unwrap().next().is_none());
    }

    #[test]
    fn a_file_in_the_place_of_the_folder_is_an_error_that_names_it() {
        let base = tempfile::tempdir().unwrap();
        std::fs::write(base.path().join("store"), "x").unwrap();
        let refused = open_store("store", base.path()).unwrap_err();
        assert!(refused.to_string().contains("/store can't be made"), "{refused}");
    }
}
