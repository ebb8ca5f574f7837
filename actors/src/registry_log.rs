//! The registry's place in its log: the catalog as far as it was read, and the next entry.

use std::cell::RefCell;

use tokio::sync::OnceCell;
use tracing::info;

use crate::catalog::{Catalog, LogEntry};
use crate::messages::{
    AppendEntry, Appended, ReadLog, RegistryStoreError, RegistryStoreLink, ask_store,
};

/// A catalog that follows a log which other registries write too.
#[derive(Debug)]
pub(crate) struct RegistryLog {
    store: RegistryStoreLink,
    /// Set once the log was read; whoever comes before waits for it.
    folded: OnceCell<RefCell<Folded>>,
}

/// Invariant: `catalog` is the fold of the entries 1 to `last`.
#[derive(Debug, Default)]
struct Folded {
    catalog: Catalog,
    last: u64,
}

impl RegistryLog {
    pub(crate) fn new(store: RegistryStoreLink) -> Self {
        Self { store, folded: OnceCell::new() }
    }

    /// Asks the catalog, once it was read.
    pub(crate) async fn read<R>(
        &self,
        question: impl FnOnce(&Catalog) -> R,
    ) -> Result<R, RegistryStoreError> {
        let folded = self.folded().await?;
        Ok(question(&folded.borrow().catalog))
    }

    /// Reads what was appended since the last look.
    pub(crate) async fn catch_up(&self) -> Result<(), RegistryStoreError> {
        let folded = self.folded().await?;
        let after = folded.borrow().last;
        let entries = ask_store(&self.store.read_log, ReadLog { after }).await?;
        let mut folded = folded.borrow_mut();
        (after + 1..).zip(&entries).try_for_each(|(number, entry)| folded.advance(number, entry))
    }

    /// Appends an entry that was checked against the catalog as it is. After
    /// [`Appended::Taken`] the catalog has caught up: check again.
    pub(crate) async fn append(&self, entry: &LogEntry) -> Result<Appended, RegistryStoreError> {
        let folded = self.folded().await?;
        let number = folded.borrow().last + 1;
        let append = AppendEntry { number, entry: entry.clone() };
        match ask_store(&self.store.append_entry, append).await? {
            Appended::Written => {
                folded.borrow_mut().advance(number, entry)?;
                Ok(Appended::Written)
            }
            Appended::Taken => {
                self.catch_up().await?;
                Ok(Appended::Taken)
            }
        }
    }

    async fn folded(&self) -> Result<&RefCell<Folded>, RegistryStoreError> {
        let load = || async {
            let entries = ask_store(&self.store.read_log, ReadLog { after: 0 }).await?;
            let mut folded = Folded::default();
            for (number, entry) in (1..).zip(&entries) {
                folded.advance(number, entry)?;
            }
            info!(entries = folded.last, "registry log read");
            Ok(RefCell::new(folded))
        };
        self.folded.get_or_try_init(load).await
    }
}

impl Folded {
    /// Applies an entry that may have been applied already: two readers of the log may overlap.
    fn advance(&mut self, number: u64, entry: &LogEntry) -> Result<(), RegistryStoreError> {
        if number <= self.last {
            return Ok(());
        }
        self.catalog.apply(entry).map_err(|cause| RegistryStoreError::Contradiction {
            number,
            cause: cause.to_string(),
        })?;
        self.last = number;
        Ok(())
    }
}
