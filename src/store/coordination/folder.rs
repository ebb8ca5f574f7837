//! The log as files.
//!
//! ```text
//! views/00000000000000000017.json    one entry; written once, never changed
//! beat.json                          overwritten with each renewal
//! ```
//!
//! A put is written under another name, synced, and then given its name by a hard link, which is
//! refused where the name is taken: a crash leaves no half of an entry, and no two have one number.

use std::io::ErrorKind;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::TryStreamExt;
use gradmesh_actors::ids::View;
use gradmesh_actors::messages::coordination::{Appended, Beat, CoordinationError, Entry};
use object_store::path::Path;
use object_store::{Error, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode};
use tracing::warn;

use super::{ENTRIES_KEPT, ENTRY_BYTES_MAX, ViewLog, record};

const VIEWS: &str = "views";
const BEAT: &str = "beat.json";
/// Files of the log that are removed at a time: more are left where a store was down for long.
const REMOVED_AT_ONCE: usize = 256;
/// Entries that may be removed while one is looked for; each time, 64 others were appended.
const LOOKS_MAX: usize = 8;

#[derive(Debug)]
pub(super) struct FolderLog {
    store: Arc<dyn ObjectStore>,
    /// For people.
    name: String,
    /// The newest entry that was read, and its file: a leader looks many times a second, and an entry
    /// never changes. A file that somebody has put in its place has another time.
    read: Mutex<Option<(ObjectMeta, Entry)>>,
}

impl FolderLog {
    pub(super) fn new(store: Arc<dyn ObjectStore>, name: String) -> Self {
        Self { store, name, read: Mutex::default() }
    }

    /// The numbers in the log, in order.
    async fn views(&self) -> Result<Vec<View>, CoordinationError> {
        Ok(self.files().await?.into_iter().map(|(view, _)| view).collect())
    }

    /// The same with their files.
    async fn files(&self) -> Result<Vec<(View, ObjectMeta)>, CoordinationError> {
        let files = self.store.list(Some(&Path::from(VIEWS)));
        let files: Vec<_> = files.try_collect().await.map_err(|error| self.unusable(&error))?;
        let number = |name: &str| name.strip_suffix(".json")?.parse().ok().map(View);
        let view = |file: &Path| number(file.filename()?).filter(|view| path(*view) == *file);
        let of = |file: ObjectMeta| Some((view(&file.location)?, file));
        let mut files: Vec<(View, ObjectMeta)> = files.into_iter().filter_map(of).collect();
        files.sort_unstable_by_key(|(view, _)| *view);
        Ok(files)
    }

    fn has_read(&self) -> MutexGuard<'_, Option<(ObjectMeta, Entry)>> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The entry of a number; `None` where there is none.
    async fn read(&self, view: View) -> Result<Option<Entry>, CoordinationError> {
        let path = path(view);
        let Some(bytes) = self.find(&path).await? else { return Ok(None) };
        let entry = record::read_entry(&bytes, view);
        entry.map(Some).map_err(|cause| self.damaged(&path, cause))
    }

    async fn find(&self, path: &Path) -> Result<Option<Vec<u8>>, CoordinationError> {
        let file = match self.store.get(path).await {
            Ok(file) => file,
            Err(Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(self.unusable(&error)),
        };
        if file.meta.size > ENTRY_BYTES_MAX as u64 {
            return Err(self.damaged(path, format!("it has {} bytes", file.meta.size)));
        }
        let bytes = file.bytes().await.map_err(|error| self.unusable(&error))?;
        Ok(Some(bytes.to_vec()))
    }

    /// Of an entry whose number is taken: by itself, where its first answer was lost.
    async fn taken(&self, entry: Entry) -> Result<Appended, CoordinationError> {
        match self.newest().await? {
            Some(newest) if newest == entry => {
                // Whoever wrote it may not have lived to sync the folder.
                let bytes = record::write_entry(&entry, &self.name)?;
                let again = self.store.put(&path(entry.view), bytes.into()).await;
                again.map_err(|error| self.unknown(&error))?;
                Ok(Appended::Won)
            }
            Some(newest) if newest.view >= entry.view => Ok(Appended::Taken(newest)),
            _ => {
                let cause = "something that is no file has its name".to_owned();
                Err(self.damaged(&path(entry.view), cause))
            }
        }
    }

    /// Of an entry that was just written.
    async fn written(&self, entry: &Entry) -> Result<Appended, CoordinationError> {
        let views = self.views().await.map_err(|error| self.unknown(&error))?;
        match views.last() {
            Some(last) if *last == entry.view => {
                self.prune(&views).await;
                Ok(Appended::Won)
            }
            // Others have gone on since the number was free, and may have removed what had it.
            Some(_) => {
                let newest = self.newest().await.map_err(|error| self.unknown(&error))?;
                newest.map(Appended::Taken).ok_or_else(|| self.vanished())
            }
            None => Err(self.vanished()),
        }
    }

    /// Numbers stay used: whoever appends looks at the newest.
    async fn prune(&self, views: &[View]) {
        let Some(last) = views.last() else { return };
        let old = views.iter().take_while(|view| last.0 - view.0 >= ENTRIES_KEPT);
        for view in old.take(REMOVED_AT_ONCE) {
            let removed = self.store.delete(&path(*view)).await;
            if let Err(error) = removed
                && !matches!(error, Error::NotFound { .. })
            {
                warn!(store = self.name, %view, %error, "an old entry stays");
                return;
            }
        }
    }

    /// Whether a failed put has left its file: the link may have been made and the sync have failed.
    async fn not_written(&self, view: View, error: &Error) -> CoordinationError {
        match self.views().await {
            Ok(views) if !views.contains(&view) => self.unusable(error),
            _ => self.unknown(error),
        }
    }

    fn unusable(&self, error: &Error) -> CoordinationError {
        let cause = format!("{error}{}", what_to_do(error));
        CoordinationError::Store { store: self.name.clone(), cause }
    }

    fn unknown(&self, cause: &dyn ToString) -> CoordinationError {
        CoordinationError::NoAnswer { store: self.name.clone(), cause: cause.to_string() }
    }

    fn vanished(&self) -> CoordinationError {
        self.unknown(&"its entries vanished while they were read")
    }

    fn damaged(&self, path: &Path, cause: String) -> CoordinationError {
        CoordinationError::Damaged { store: self.name.clone(), path: path.to_string(), cause }
    }
}

#[async_trait]
impl ViewLog for FolderLog {
    fn name(&self) -> &str {
        &self.name
    }

    async fn newest(&self) -> Result<Option<Entry>, CoordinationError> {
        for _ in 0..LOOKS_MAX {
            let Some((last, file)) = self.files().await?.pop() else {
                self.has_read().take();
                return Ok(None);
            };
            let read = self.has_read().as_ref().filter(|(of, _)| *of == file).cloned();
            if let Some((_, entry)) = read {
                return Ok(Some(entry));
            }
            if let Some(entry) = self.read(last).await? {
                self.has_read().replace((file, entry.clone()));
                return Ok(Some(entry));
            }
        }
        Err(self.vanished())
    }

    async fn append(&self, entry: Entry) -> Result<Appended, CoordinationError> {
        let bytes = record::write_entry(&entry, &self.name)?;
        let last = self.views().await?.pop().unwrap_or_default();
        if entry.view <= last {
            return self.taken(entry).await;
        }
        match last.next() {
            Some(next) if next == entry.view => {}
            next => {
                let (store, next) = (self.name.clone(), next.unwrap_or(last));
                return Err(CoordinationError::Gap { store, next, got: entry.view });
            }
        }
        match self.store.put_opts(&path(entry.view), bytes.into(), PutMode::Create.into()).await {
            Ok(_) => self.written(&entry).await,
            Err(Error::AlreadyExists { .. }) => self.taken(entry).await,
            Err(error) => Err(self.not_written(entry.view, &error).await),
        }
    }

    async fn beat(&self) -> Result<Option<Beat>, CoordinationError> {
        let found = match self.find(&Path::from(BEAT)).await {
            Ok(Some(bytes)) => record::read_beat(&bytes),
            Ok(None) => return Ok(None),
            Err(CoordinationError::Damaged { cause, .. }) => Err(cause),
            Err(error) => return Err(error),
        };
        if let Err(cause) = &found {
            // The next renewal writes it anew; without one, somebody else is to lead.
            warn!(store = self.name, file = BEAT, %cause, "the beat can't be read");
        }
        Ok(found.ok())
    }

    async fn write_beat(&self, beat: Beat, _ttl: Duration) -> Result<(), CoordinationError> {
        let bytes = record::write_beat(&beat, &self.name)?;
        let put = self.store.put(&Path::from(BEAT), bytes.into()).await;
        put.map(drop).map_err(|error| self.unusable(&error))
    }

    async fn remove_beat(&self) -> Result<(), CoordinationError> {
        match self.store.delete(&Path::from(BEAT)).await {
            Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.unusable(&error)),
        }
    }
}

fn path(view: View) -> Path {
    Path::from(format!("{VIEWS}/{:020}.json", view.0))
}

fn what_to_do(error: &(dyn std::error::Error + 'static)) -> &'static str {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let mut kinds = causes.filter_map(|cause| cause.downcast_ref::<std::io::Error>());
    match kinds.next().map(std::io::Error::kind) {
        Some(ErrorKind::StorageFull | ErrorKind::QuotaExceeded) => {
            "; free space in coordination.store"
        }
        Some(ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem) => {
            "; let this process write there, or change coordination.store"
        }
        Some(ErrorKind::NotADirectory | ErrorKind::IsADirectory) => {
            "; something else lies there: move it away, or change coordination.store"
        }
        _ => "",
    }
}
