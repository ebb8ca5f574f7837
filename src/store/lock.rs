//! One run at a time in a folder of checkpoints.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tracing::warn;

use super::{StoreError, folder, made};

/// Stands beside the checkpoints, holds the number of the process, and stays when it is gone: a
/// file that was removed could be locked by one process and made again by the next.
const FILE: &str = "lock";
/// A process that was just told to end, or whose parent was killed, is waited for.
const WAIT_MAX: Duration = Duration::from_secs(2);
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Of a process number, in decimal.
const PID_BYTES_MAX: u64 = 20;

/// The right to coordinate runs over a folder: no other process has it until this is dropped, but
/// for the other coordinators of a cluster that has several. The
/// system takes it from a process that dies, however it dies.
#[derive(Debug)]
pub struct StoreLock {
    path: PathBuf,
    /// `None` where the file system knows no locks.
    file: Option<File>,
    shared: bool,
}

impl StoreLock {
    /// Locks the store at a path or a `file://` URL; a relative path is one from `base`. The folder
    /// is made if it isn't there. `shared`: with others that share it too.
    ///
    /// # Errors
    /// Another process has it and keeps it, or the folder can't be written.
    pub async fn take(url_or_path: &str, base: &Path, shared: bool) -> Result<Self, StoreError> {
        let path = made(folder(url_or_path, base)?)?;
        let file = path.join(FILE);
        let failed = |source| StoreError::Folder { path: file.clone(), source };
        let mut options = OpenOptions::new();
        let options = options.read(true).write(true).create(true).truncate(false);
        let mut opened = options.open(&file).map_err(failed)?;
        let until = Instant::now() + WAIT_MAX;
        loop {
            let locked = if shared { opened.try_lock_shared() } else { opened.try_lock() };
            match locked {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if Instant::now() < until => sleep(LOOK_EVERY).await,
                Err(TryLockError::WouldBlock) => return Err(in_use(path, &mut opened)),
                Err(TryLockError::Error(error)) => {
                    warn!(path = %path.display(), %error, "no locks here; start one run at a time");
                    return Ok(Self { path, file: None, shared });
                }
            }
        }
        // For whoever is refused; the lock holds without it, also on a full disk.
        let _ = opened.set_len(0).and_then(|()| write!(opened, "{}", own_pid()));
        Ok(Self { path, file: Some(opened), shared })
    }

    /// Whether nobody else can have it.
    pub fn is_exclusive(&self) -> bool {
        self.file.is_some() && !self.shared
    }

    /// Whether it is of the same folder, by whatever path.
    pub fn is_of(&self, url_or_path: &str, base: &Path) -> bool {
        let real = |path: &Path| std::fs::canonicalize(path).ok();
        let other = folder(url_or_path, base).ok().and_then(|other| real(&other));
        other.is_some() && other == real(&self.path)
    }
}

#[expect(clippy::disallowed_methods, reason = "for people; only processes have such locks")]
fn own_pid() -> u32 {
    std::process::id()
}

fn in_use(path: PathBuf, file: &mut File) -> StoreError {
    let mut text = String::new();
    let read = file.rewind().and_then(|()| file.take(PID_BYTES_MAX).read_to_string(&mut text));
    let pid = read.ok().and_then(|_| text.parse::<u32>().ok());
    let owner = pid.map_or("another process".to_owned(), |pid| format!("process {pid}"));
    StoreError::InUse { path, owner }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[actix_rt::test]
    async fn a_locked_folder_is_refused_by_name_and_free_again_after_the_drop() {
        tokio::time::pause();
        let base = tempfile::tempdir().unwrap();
        let first = StoreLock::take("store", base.path(), false).await.unwrap();
        let refused = StoreLock::take("store", base.path(), false).await.unwrap_err().to_string();
        let owner = format!("store is used by a run of process {};", own_pid());
        assert!(refused.contains(&owner), "{refused}");
        assert!(refused.ends_with("change checkpoint.store and coordination.store"), "{refused}");
        StoreLock::take("other", base.path(), false).await.unwrap();
        assert!(first.is_of("other/../store", base.path()) && !first.is_of("other", base.path()));
        assert!(first.is_exclusive());
        drop(first);
        StoreLock::take("store", base.path(), false).await.unwrap();
    }

    #[actix_rt::test]
    async fn a_lock_that_is_given_up_soon_is_waited_for() {
        tokio::time::pause();
        let base = tempfile::tempdir().unwrap();
        let first = StoreLock::take("store", base.path(), false).await.unwrap();
        tokio::task::spawn_local(async move {
            sleep(WAIT_MAX / 2).await;
            drop(first);
        });
        StoreLock::take("store", base.path(), false).await.unwrap();
    }
}
