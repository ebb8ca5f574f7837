//! Models in memory, shared by the predictors of a process.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, OnceCell};
use tokio::time::{Instant, timeout_at};
use tracing::info;

use crate::messages::PredictError;
use crate::serving::ServedModel;
use crate::shelf::{Key, Room, Shelf};

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

    /// The version of so many bytes, loaded by `load` if it is not there; others leave for it, and where they may
    /// not yet, it waits.
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
        let loaded = cell
            .get_or_try_init(async || {
                let began = Instant::now();
                let served = load().await?;
                let took = began.elapsed();
                self.shelf().loaded(self.origin.elapsed(), &key, took);
                info!(model, version, bytes, ?took, "version loaded");
                Ok(Arc::new(served))
            })
            .await
            .cloned();
        if loaded.is_err() {
            self.give_up(&key, &cell);
        }
        self.changed.notify_waiters();
        loaded
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

    /// The place of a model that can't be loaded is free again, but not where somebody else tries.
    fn give_up(&self, key: &Key, cell: &Cell) {
        let mut shelf = self.shelf();
        if shelf.get(key).is_some_and(|there| Arc::ptr_eq(there, cell) && !there.initialized()) {
            shelf.remove(key);
        }
    }

    /// The model is loaded again for the next request: whatever state it keeps may be broken.
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
