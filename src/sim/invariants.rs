//! What holds in every cluster that trains, whatever happens to it.

use std::collections::BTreeMap;

use futures_util::{FutureExt, TryStreamExt};
use gradmesh_actors::catalog::LogEntry;
use gradmesh_actors::ids::{Version, View};
use gradmesh_actors::ledger::EPOCHS_KEPT;
use gradmesh_actors::training::{Progress, TrainingStatus};
use gradmesh_actors::version::VersionDescription;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use serde::Deserialize;

use super::disk::Disk;
use super::log::{self, Commit};
use super::trace::NodeIndex;
use super::world::World;

/// Whoever leads in it; and none of them goes back to an earlier one.
const VIEWS_RISE: &str = "a view is begun by one coordinator";
/// A shard obeys no order of a view that is over.
const RESTORES_RISE: &str = "a shard is never restored to a view below its own";
/// A shard applies the steps of a view one after the other.
const VERSIONS_RISE: &str = "versions of a shard never fall within a view";
/// A zombie commits nothing.
const ONE_PRIMARY: &str = "a shard has one primary in a view";
/// However often a step is computed, and by whom.
const ONE_CONTENT: &str = "a version of a shard has the same bits whenever it is made";
/// Where no bit of it flipped, training never goes back further.
const CHECKPOINTS_STAY: &str = "a checkpoint that was committed is never lost";
/// And each epoch once.
const ROWS_ONCE: &str = "the ledger counts each row of each epoch once";
const ONE_PUBLISHED: &str = "a run has one registered version";
const PUBLISHED_WHOLE: &str = "a registered version is whole";

/// What was seen of a run so far.
#[derive(Debug, Default)]
pub(super) struct Invariants {
    /// The coordinator that showed each view, and the newest that each has shown.
    begun: BTreeMap<View, NodeIndex>,
    newest: BTreeMap<NodeIndex, View>,
    committed: Version,
    /// Newest version of each shard in each view.
    versions: BTreeMap<(u64, u64), u64>,
    /// Newest view that each shard was restored to, in each life of its node.
    restored: BTreeMap<(NodeIndex, String, u64), u64>,
    /// Who committed in each view of each shard.
    primaries: BTreeMap<(u64, u64), u64>,
    /// Checksum of each version of each shard.
    contents: BTreeMap<(u64, u64), u64>,
}

impl Invariants {
    /// After an event.
    ///
    /// # Errors
    /// What doesn't hold.
    pub(super) fn look(&mut self, world: &World<'_>) -> Result<(), &'static str> {
        for commit in log::take_commits() {
            self.commit(commit)?;
        }
        for restore in log::take_restores() {
            let life = world.nodes.get(restore.node as usize).map_or(0, |node| node.restarts);
            let newest = self.restored.entry((restore.node, restore.shard, life)).or_default();
            if restore.view < *newest {
                return Err(RESTORES_RISE);
            }
            *newest = restore.view;
        }
        Ok(())
    }

    /// After an event that a run's status shows.
    ///
    /// # Errors
    /// What doesn't hold.
    pub(super) fn look_at_training(&mut self, world: &World<'_>) -> Result<(), &'static str> {
        let training = world.seen.training.borrow();
        for (&node, status) in training.iter() {
            self.view(status.borrow().view, node)?;
        }
        let newest = self.begun.last_key_value().map(|(view, _)| *view);
        for status in training.values() {
            let status = status.borrow();
            // A coordinator that is gone, or leads no more, has shown its last.
            if Some(status.view) == newest {
                self.checkpoint(&status, world.counts.bits_flipped > 0)?;
            }
            rows(&status)?;
        }
        Ok(())
    }

    fn commit(&mut self, commit: Commit) -> Result<(), &'static str> {
        let Commit { shard, server, view, version, checksum } = commit;
        if *self.primaries.entry((shard, view)).or_insert(server) != server {
            return Err(ONE_PRIMARY);
        }
        // The same again where the last version was evaluated.
        let newest = self.versions.entry((shard, view)).or_default();
        if version < *newest {
            return Err(VERSIONS_RISE);
        }
        *newest = version;
        if *self.contents.entry((shard, version)).or_insert(checksum) == checksum {
            Ok(())
        } else {
            Err(ONE_CONTENT)
        }
    }

    fn view(&mut self, view: View, by: NodeIndex) -> Result<(), &'static str> {
        // One that doesn't lead shows none.
        if view == View(0) {
            return Ok(());
        }
        let newest = self.newest.entry(by).or_default();
        let rises = view >= *newest;
        *newest = view;
        let one = *self.begun.entry(view).or_insert(by) == by;
        if rises && one { Ok(()) } else { Err(VIEWS_RISE) }
    }

    fn checkpoint(&mut self, status: &TrainingStatus, damaged: bool) -> Result<(), &'static str> {
        let running = matches!(status.progress, Progress::Running);
        // A coordinator that has just taken over has not read the store yet.
        let Some(newest) = status.checkpoint else { return Ok(()) };
        if running && newest < self.committed && !damaged {
            return Err(CHECKPOINTS_STAY);
        }
        self.committed = self.committed.max(newest);
        Ok(())
    }

    /// When the run has ended.
    ///
    /// # Errors
    /// What doesn't hold.
    pub(super) fn end(&self, world: &World<'_>, disk: &Disk) -> Result<(), &'static str> {
        let Some(status) = world.training() else { return Ok(()) };
        let Progress::Done(published) = &status.progress else { return Ok(()) };
        if let (Some(last), Some(epoch)) = (status.last_version, status.steps_per_epoch) {
            let epochs = last.0.checked_div(epoch).unwrap_or(0);
            if status.ledger.epochs() != epochs {
                return Err(ROWS_ONCE);
            }
        }
        let registered = registered(disk).now_or_never().unwrap_or_default();
        // Where the only checkpoint is rotten, and nobody heard that its run is published, another
        // run begins.
        let damaged = world.counts.bits_flipped > 0;
        let Some((version, whole)) = registered.last() else { return Err(ONE_PUBLISHED) };
        if registered.len() > 1 && !damaged {
            return Err(ONE_PUBLISHED);
        }
        if version.version != published.version || version.digest != published.digest {
            return Err(ONE_PUBLISHED);
        }
        if *whole { Ok(()) } else { Err(PUBLISHED_WHOLE) }
    }
}

fn rows(status: &TrainingStatus) -> Result<(), &'static str> {
    let Some(rows) = status.train_rows else { return Ok(()) };
    let finished = &status.ledger.finished;
    let whole = finished.iter().all(|record| record.rows == rows);
    let ordered = finished.is_sorted_by(|a, b| a.epoch < b.epoch);
    let all = status.ledger.epochs() > EPOCHS_KEPT as u64
        || finished.len() as u64 == status.ledger.epochs();
    if whole && ordered && all && status.ledger.rows <= rows { Ok(()) } else { Err(ROWS_ONCE) }
}

/// As the registry's log has it.
#[derive(Deserialize)]
struct Record {
    value: Value,
}

#[derive(Deserialize)]
struct Value {
    entry: LogEntry,
}

/// The versions in the registry's log, and whether their files are there and undamaged.
async fn registered(disk: &Disk) -> Vec<(VersionDescription, bool)> {
    let mut found = Vec::new();
    for folder in disk.folders() {
        let log = Path::from("log");
        let entries: Vec<_> = folder.list(Some(&log)).try_collect().await.unwrap_or_default();
        for entry in entries {
            let Some(bytes) = read(&*folder, &entry.location).await else { continue };
            let Ok(record) = serde_json::from_slice::<Record>(&bytes) else { continue };
            if let LogEntry::Published { description } = record.value.entry {
                let whole = is_whole(&*folder, &description).await;
                found.push((description, whole));
            }
        }
    }
    found
}

async fn is_whole(folder: &dyn ObjectStore, description: &VersionDescription) -> bool {
    let VersionDescription { model, version, artifact, .. } = description;
    let path = Path::from(format!("models/{model}/{version}/{}", artifact.file));
    let bytes = read(folder, &path).await;
    bytes.is_some_and(|bytes| blake3::hash(&bytes).to_hex().as_str() == artifact.blake3)
}

async fn read(folder: &dyn ObjectStore, path: &Path) -> Option<Vec<u8>> {
    Some(folder.get(path).await.ok()?.bytes().await.ok()?.to_vec())
}
