//! The simulated disk: an object store that is slow, fails, and loses what was not synced.
//!
//! A put is written, synced, renamed and acknowledged, as by a folder store that syncs. A process
//! that is killed in between leaves nothing; what is acknowledged stays, whatever happens.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::Rng;
use tokio::time::sleep;

use super::fault::{ANY, FaultKind};
use super::trace::{EventKind, NodeIndex};

/// Writing and syncing a file on a solid-state disk.
const WRITE_MS: std::ops::RangeInclusive<u64> = 1..=4;
/// Syncing its folder, before the acknowledgement.
const SYNC_FOLDER: Duration = Duration::from_millis(1);

/// All folders of one simulation, by the path that they are opened with.
#[derive(Clone)]
pub(super) struct Disk(Arc<Mutex<State>>);

struct State {
    folders: BTreeMap<String, Arc<InMemory>>,
    rng: ChaCha8Rng,
    /// Faults of disks that are active.
    faults: Vec<FaultKind>,
    names: Vec<String>,
    /// Acknowledged by each node and not yet synced: nothing, but where a bug is planted.
    unsynced: BTreeMap<NodeIndex, Vec<(Arc<InMemory>, Path)>>,
    /// For the trace, which belongs to the simulation's thread.
    events: Vec<EventKind>,
    syncs: bool,
}

impl Disk {
    pub(super) fn new(rng: ChaCha8Rng, syncs: bool) -> Self {
        Self(Arc::new(Mutex::new(State {
            folders: BTreeMap::new(),
            rng,
            faults: Vec::new(),
            names: Vec::new(),
            unsynced: BTreeMap::new(),
            events: Vec::new(),
            syncs,
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A node's handle to a folder, which is made if it isn't there.
    pub(super) fn open(&self, node: NodeIndex, folder: &str) -> Arc<dyn ObjectStore> {
        let folders = Arc::clone(self.state().folders.entry(folder.to_owned()).or_default());
        Arc::new(Folder { disk: self.clone(), node, name: folder.to_owned(), files: folders })
    }

    /// What is stored, past all faults.
    pub(super) fn folders(&self) -> Vec<Arc<dyn ObjectStore>> {
        let state = self.state();
        state.folders.values().map(|files| Arc::clone(files) as Arc<dyn ObjectStore>).collect()
    }

    pub(super) fn name_nodes(&self, names: Vec<String>) {
        self.state().names = names;
    }

    pub(super) fn set_faults(&self, faults: Vec<FaultKind>) {
        self.state().faults = faults;
    }

    pub(super) fn take_events(&self) -> Vec<EventKind> {
        std::mem::take(&mut self.state().events)
    }

    /// A machine has lost its power: what it had acknowledged and not synced is gone or torn.
    pub(super) async fn lose_unsynced(&self, node: NodeIndex) {
        let lost = self.state().unsynced.remove(&node).unwrap_or_default();
        for (files, path) in lost {
            let keep = self.state().rng.next_u64();
            let Ok(found) = files.get(&path).await else { continue };
            let Ok(bytes) = found.bytes().await else { continue };
            // Half of them are gone, the others end somewhere.
            if keep.is_multiple_of(2) {
                let _ = files.delete(&path).await;
            } else {
                let torn = bytes.slice(..(keep / 2) as usize % (bytes.len() + 1));
                let _ = files.put(&path, torn.into()).await;
            }
        }
    }

    /// Flips a bit of a file whose path contains `part`; whether there was one.
    pub(super) async fn flip_bit(&self, part: &str) -> Option<String> {
        let folders: Vec<_> =
            self.state().folders.iter().map(|(n, f)| (n.clone(), Arc::clone(f))).collect();
        let mut found = Vec::new();
        for (name, files) in folders {
            let listed: Vec<_> = files.list(None).collect().await;
            for meta in listed.into_iter().flatten() {
                let path = format!("{name}/{}", meta.location);
                if meta.size > 0 && path.contains(part) {
                    found.push((path, Arc::clone(&files), meta.location));
                }
            }
        }
        if found.is_empty() {
            return None;
        }
        let (which, bit) = {
            let mut state = self.state();
            (state.rng.next_u64() as usize % found.len(), state.rng.next_u64())
        };
        let (name, files, path) = found.swap_remove(which);
        let mut bytes = files.get(&path).await.ok()?.bytes().await.ok()?.to_vec();
        let at = (bit / 8) as usize % bytes.len();
        bytes[at] ^= 1 << (bit % 8);
        files.put(&path, bytes.into()).await.ok()?;
        Some(name)
    }

    /// How long a write takes, and whether it fails.
    fn draw_write(&self, node: NodeIndex) -> (Duration, bool) {
        let mut state = self.state();
        let is = |of: &str| of == ANY || state.names.get(node as usize).is_some_and(|n| n == of);
        let (mut slower, mut rate) = (0, 0);
        for fault in &state.faults {
            match fault {
                FaultKind::SlowDisk { node, ms } if is(node) => slower += ms,
                FaultKind::FailWrites { node, rate: more } if is(node) => rate += u64::from(*more),
                _ => {}
            }
        }
        let width = WRITE_MS.end() - WRITE_MS.start() + 1;
        let takes = WRITE_MS.start() + state.rng.next_u64() % width + slower;
        let fails = rate > 0 && state.rng.next_u64() % 1000 < rate;
        (Duration::from_millis(takes), fails)
    }
}

/// One folder, as one node holds it.
struct Folder {
    disk: Disk,
    node: NodeIndex,
    name: String,
    files: Arc<InMemory>,
}

impl Folder {
    fn note(&self, event: EventKind) {
        self.disk.state().events.push(event);
    }

    fn path(&self, location: &Path) -> String {
        format!("{}/{location}", self.name)
    }
}

impl fmt::Debug for Folder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Folder").field("name", &self.name).finish_non_exhaustive()
    }
}

impl fmt::Display for Folder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "simulated folder {}", self.name)
    }
}

#[async_trait]
impl ObjectStore for Folder {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        let bytes: Bytes = payload.into();
        let (takes, fails) = self.disk.draw_write(self.node);
        sleep(takes).await;
        let written = EventKind::Written {
            node: self.node,
            path: self.path(location),
            bytes: bytes.len() as u64,
            checksum: crc32fast::hash(&bytes),
            failed: fails,
        };
        self.note(written);
        if fails {
            let source = std::io::Error::from(std::io::ErrorKind::StorageFull);
            return Err(Error::Generic { store: "simulated disk", source: source.into() });
        }
        let put = self.files.put_opts(location, bytes.into(), options).await?;
        let syncs = self.disk.state().syncs;
        if syncs {
            sleep(SYNC_FOLDER).await;
        } else {
            let lost = (Arc::clone(&self.files), location.clone());
            self.disk.state().unsynced.entry(self.node).or_default().push(lost);
        }
        Ok(put)
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.files.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.files.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.files.get_ranges(location, ranges).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let (disk, node, name) = (self.disk.clone(), self.node, self.name.clone());
        let deleted = self.files.delete_stream(locations);
        deleted
            .inspect(move |path| {
                if let Ok(path) = path {
                    let path = format!("{name}/{path}");
                    disk.state().events.push(EventKind::Removed { node, path });
                }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.files.list(prefix)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.files.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.files.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.files.copy_opts(from, to, options).await
    }
}
