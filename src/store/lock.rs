//! One run at a time in a folder of checkpoints.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tracing::warn;

use super::{StoreError, folder, made};

/// Stands beside the checkpoints, holds the number of the process, and stays when it is gone: a
/// file that was removed could be locked by one process and made again by the next.
const FILE: &str = "lock";
/// Holds what the folder is called, see [`store_id`].
const ID: &str = "id";
const ID_BYTES_MAX: u64 = 64;
/// A process that was just told to end, or whose parent was killed, is waited for.
const WAIT_MAX: Duration = Duration::from_secs(2);
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Of a process number, in decimal.
const PID_BYTES_MAX: u64 = 20;

/// Beside it, of a cluster with several coordinators: they share the one that ends with what they agree on.
/// Empty, one for each configuration that such a cluster had.
const OF_CLUSTER: &str = "lock-";

/// The right to coordinate runs over a folder: no other process has it until this is dropped, but
/// for the other coordinators of a cluster that has several. The
/// system takes it from a process that dies, however it dies.
#[derive(Debug)]
pub struct StoreLock {
    path: PathBuf,
    /// Fewer where the file system knows no locks.
    files: Vec<File>,
    shared: bool,
}

impl StoreLock {
    /// Locks the store at a path or a `file://` URL; a relative path is one from `base`. The folder
    /// is made if it isn't there. `cluster`: with others that say the same, in letters and digits.
    ///
    /// # Errors
    /// Another process has it and keeps it, or the folder can't be written.
    pub async fn take(
        url_or_path: &str,
        base: &Path,
        cluster: Option<&str>,
    ) -> Result<Self, StoreError> {
        let path = made(folder(url_or_path, base)?)?;
        let mut files = Vec::new();
        let common = lock(&path, FILE, cluster.is_some()).await?;
        if let Some(mut common) = common {
            // For whoever is refused; the lock holds without it, also on a full disk.
            let pid = if cluster.is_some() { String::new() } else { own_pid().to_string() };
            let _ = common.set_len(0).and_then(|()| write!(common, "{pid}"));
            files.push(common);
        }
        if let Some(cluster) = cluster {
            let own = format!("{OF_CLUSTER}{cluster}");
            files.extend(lock(&path, &own, true).await?);
            for other in others(&path, &own)? {
                // Nobody has it: free again at once.
                drop(lock(&path, &other, false).await?);
            }
        }
        Ok(Self { path, files, shared: cluster.is_some() })
    }

    /// Whether nobody else can have it.
    pub fn is_exclusive(&self) -> bool {
        !self.files.is_empty() && !self.shared
    }

    /// Whether it is of the same folder, by whatever path.
    pub fn is_of(&self, url_or_path: &str, base: &Path) -> bool {
        let real = |path: &Path| std::fs::canonicalize(path).ok();
        let other = folder(url_or_path, base).ok().and_then(|other| real(&other));
        other.is_some() && other == real(&self.path)
    }
}

/// What the folder of a store is called, by whatever path, host or mount it is reached: `new` where nobody
/// has named it yet. Both are letters and digits.
///
/// # Errors
/// The folder can't be read or written, or its name is none.
pub fn store_id(url_or_path: &str, base: &Path, new: &str) -> Result<String, StoreError> {
    let path = made(folder(url_or_path, base)?)?;
    let file = path.join(ID);
    let name = || -> std::io::Result<String> {
        if !file.exists() {
            // Whole or not at all, and the first one's: as a file whose name is taken by a link.
            let draft = path.join(format!("{ID}-{new}"));
            let mut written = File::create(&draft)?;
            written.write_all(new.as_bytes())?;
            written.sync_all()?;
            let named = std::fs::hard_link(&draft, &file);
            std::fs::remove_file(&draft)?;
            named.or_else(|error| match error.kind() {
                ErrorKind::AlreadyExists => Ok(()),
                // A file system without hard links: who reads half of it starts again.
                ErrorKind::PermissionDenied | ErrorKind::Unsupported => {
                    File::create_new(&file)?.write_all(new.as_bytes())
                }
                _ => Err(error),
            })?;
        }
        let mut text = String::new();
        File::open(&file)?.take(ID_BYTES_MAX).read_to_string(&mut text)?;
        let is_name = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
        let none = || std::io::Error::new(ErrorKind::InvalidData, "it is no name; delete it");
        if is_name { Ok(text) } else { Err(none()) }
    };
    name().map_err(|source| StoreError::Folder { path: file.clone(), source })
}

/// Locks one file; `None` where the file system knows no locks.
async fn lock(path: &Path, name: &str, shared: bool) -> Result<Option<File>, StoreError> {
    let file = path.join(name);
    let mut options = OpenOptions::new();
    let options = options.read(true).write(true).create(true).truncate(false);
    let failed = |source| StoreError::Folder { path: file.clone(), source };
    let mut opened = options.open(&file).map_err(failed)?;
    let until = Instant::now() + WAIT_MAX;
    loop {
        let locked = if shared { opened.try_lock_shared() } else { opened.try_lock() };
        match locked {
            Ok(()) => return Ok(Some(opened)),
            Err(TryLockError::WouldBlock) if Instant::now() < until => sleep(LOOK_EVERY).await,
            Err(TryLockError::WouldBlock) => return Err(in_use(path.to_owned(), &mut opened)),
            Err(TryLockError::Error(error)) => {
                warn!(path = %path.display(), %error, "no locks here; start one run at a time");
                return Ok(None);
            }
        }
    }
}

/// Names of the files that other clusters share.
fn others(path: &Path, own: &str) -> Result<Vec<String>, StoreError> {
    let failed = |source| StoreError::Folder { path: path.to_owned(), source };
    let mut others = Vec::new();
    for entry in std::fs::read_dir(path).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name().to_string_lossy().into_owned();
        if name.starts_with(OF_CLUSTER) && name != own {
            others.push(name);
        }
    }
    Ok(others)
}

#[expect(clippy::disallowed_methods, reason = "for people; only processes have such locks")]
fn own_pid() -> u32 {
    std::process::id()
}

fn in_use(path: PathBuf, file: &mut File) -> StoreError {
    let mut text = String::new();
    let read = file.rewind().and_then(|()| file.take(PID_BYTES_MAX).read_to_string(&mut text));
    let pid = read.ok().and_then(|_| text.parse::<u32>().ok());
    let owner = pid.map_or("another cluster or process".to_owned(), |pid| format!("process {pid}"));
    StoreError::InUse { path, owner }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[actix_rt::test]
    async fn a_locked_folder_is_refused_by_name_and_free_again_after_the_drop() {
        tokio::time::pause();
        let base = tempfile::tempdir().unwrap();
        let first = StoreLock::take("store", base.path(), None).await.unwrap();
        let refused = StoreLock::take("store", base.path(), None).await.unwrap_err().to_string();
        let owner = format!("store is used by a run of process {};", own_pid());
        assert!(refused.contains(&owner), "{refused}");
        assert!(refused.ends_with("change checkpoint.store and coordination.store"), "{refused}");
        StoreLock::take("other", base.path(), None).await.unwrap();
        assert!(first.is_of("other/../store", base.path()) && !first.is_of("other", base.path()));
        assert!(first.is_exclusive());
        drop(first);
        StoreLock::take("store", base.path(), None).await.unwrap();
    }

    #[actix_rt::test]
    async fn coordinators_of_one_cluster_share_a_folder_and_those_of_another_are_refused() {
        tokio::time::pause();
        let base = tempfile::tempdir().unwrap();
        let take = |cluster| StoreLock::take("store", base.path(), cluster);
        let first = take(Some("a")).await.unwrap();
        let second = take(Some("a")).await.unwrap();
        assert!(!first.is_exclusive());
        for other in [Some("b"), None] {
            let refused = take(other).await.unwrap_err().to_string();
            assert!(refused.contains("a run of another cluster or process;"), "{refused}");
        }
        drop(first);
        take(Some("b")).await.unwrap_err();
        drop(second);
        let _other = take(Some("b")).await.unwrap();
        take(Some("a")).await.unwrap_err();
    }

    #[test]
    fn a_folder_keeps_the_name_that_it_was_given_first() {
        let base = tempfile::tempdir().unwrap();
        assert_eq!(store_id("store", base.path(), "a1").unwrap(), "a1");
        assert_eq!(store_id("other/../store", base.path(), "b2").unwrap(), "a1");
        assert_eq!(store_id("other", base.path(), "b2").unwrap(), "b2");
        std::fs::write(base.path().join("store/id"), "").unwrap();
        let refused = store_id("store", base.path(), "c3").unwrap_err().to_string();
        assert!(refused.contains("store/id") && refused.ends_with("delete it"), "{refused}");
    }

    #[actix_rt::test]
    async fn a_lock_that_is_given_up_soon_is_waited_for() {
        tokio::time::pause();
        let base = tempfile::tempdir().unwrap();
        let first = StoreLock::take("store", base.path(), None).await.unwrap();
        tokio::task::spawn_local(async move {
            sleep(WAIT_MAX / 2).await;
            drop(first);
        });
        StoreLock::take("store", base.path(), None).await.unwrap();
    }
}
