//! Models in memory, shared by the predictors of a process.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, OnceCell, watch};
use tokio::time::{Instant, timeout_at};
use tracing::info;

use crate::messages::PredictError;
use crate::serving::ServedModel;
use crate::shelf::{Key, Room, Shelf};

/// What a running training has made of its model, ready to answer; beside the budget of [`Models`].
pub type Followed = watch::Receiver<Option<Arc<ServedModel>>>;

/// All of them within a budget; clones share it.
#[derive(Clone, Debug)]
pub struct Models {
    shelf: Arc<Mutex<Shelf<Cell>>>,
    /// Told when a model was loaded or has gone.
    changed: Arc<Notify>,
    /// Times of the shelf are since then.
    origin: Instant,
}

/// Filled once, however many requests wait for it.
type Cell = Arc<OnceCell<Arc<ServedModel>>>;

/// Whoever waits for a model to be loaded. However that ends, also with its thread, those who wait for
/// room look again, and the place of a model that is not there is free.
#[derive(Debug)]
struct Loading<'a> {
    models: &'a Models,
    key: &'a Key,
    cell: &'a Cell,
}

impl Drop for Loading<'_> {
    fn drop(&mut self) {
        if !self.cell.initialized() {
            let mut shelf = self.models.shelf();
            // The shelf's and this one: else somebody goes on loading it.
            let alone = Arc::strong_count(self.cell) == 2;
            if alone && shelf.get(self.key).is_some_and(|there| Arc::ptr_eq(there, self.cell)) {
                shelf.remove(self.key);
            }
        }
        self.models.changed.notify_waiters();
    }
}

impl Models {
    /// `budget`: bytes of all models together.
    pub fn new(budget: u64) -> Self {
        Self {
            shelf: Arc::new(Mutex::new(Shelf::new(budget))),
            changed: Arc::default(),
            origin: Instant::now(),
        }
    }

    /// Bytes of the models that are in memory, and how many they are.
    pub fn used(&self) -> (u64, usize) {
        let shelf = self.shelf();
        (shelf.bytes(), shelf.len())
    }

    /// The version, if it is there.
    pub(crate) fn here(&self, model: &str, version: u64) -> Option<Arc<ServedModel>> {
        self.shelf().used(&(model.to_owned(), version))?.get().cloned()
    }

    /// The version of so many bytes, loaded by `load` if it is not there; others leave for it, and
    /// where they may not yet, it waits.
    pub(crate) async fn get(
        &self,
        model: &str,
        version: u64,
        bytes: u64,
        load: impl AsyncFnOnce() -> Result<ServedModel, PredictError>,
    ) -> Result<Arc<ServedModel>, PredictError> {
        let key = (model.to_owned(), version);
        let cell = self.place(&key, bytes).await?;
        if let Some(served) = cell.get() {
            return Ok(served.clone());
        }
        let _loading = Loading { models: self, key: &key, cell: &cell };
        let load = async || {
            let began = Instant::now();
            let served = load().await?;
            let took = began.elapsed();
            self.shelf().loaded(self.origin.elapsed(), &key, took);
            info!(model, version, bytes, ?took, "version loaded");
            Ok(Arc::new(served))
        };
        cell.get_or_try_init(load).await.cloned()
    }

    async fn place(&self, key: &Key, bytes: u64) -> Result<Cell, PredictError> {
        loop {
            let changed = self.changed.notified();
            let room = self.shelf().place(self.origin.elapsed(), key, bytes, Cell::default);
            match room {
                Room::Here(cell) => return Ok(cell),
                Room::Never { budget } => {
                    let (model, version) = key.clone();
                    return Err(PredictError::TooLarge { model, version, bytes, budget });
                }
                Room::Wait(None) => changed.await,
                // Whichever it was, it looks again.
                Room::Wait(Some(settled)) => {
                    drop(timeout_at(self.origin + settled, changed).await);
                }
            }
        }
    }

    /// A model that has panicked is loaded again for the next request: whatever state it keeps may be
    /// broken. Not where that has happened already.
    pub(crate) fn replace(&self, model: &str, failed: &Arc<ServedModel>) {
        let key = (model.to_owned(), failed.version());
        let mut shelf = self.shelf();
        let there = shelf.get(&key).and_then(|cell| cell.get());
        if there.is_some_and(|there| Arc::ptr_eq(there, failed)) {
            shelf.remove(&key);
        }
        drop(shelf);
        self.changed.notify_waiters();
    }

    /// The version is not published any more.
    pub(crate) fn forget(&self, model: &str, version: u64) {
        self.shelf().remove(&(model.to_owned(), version));
        self.changed.notify_waiters();
    }

    /// Takes all versions of a model out of memory, and says how many there were.
    pub(crate) fn unload(&self, model: &str) -> usize {
        let versions = self.shelf().retain(|(loaded, _)| loaded != model);
        self.changed.notify_waiters();
        versions
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf<Cell>> {
        // Nothing panics in the middle of a change.
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
