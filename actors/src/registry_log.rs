//! The registry's place in its log: the catalog as far as it was read, and the next entry.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use tokio::sync::{Mutex, OnceCell, watch};
use tokio::time::Instant;
use tracing::info;

use crate::catalog::{Catalog, Events, LogEntry, RecentEvents};
use crate::log_seen::LogSeen;
use crate::messages::{
    AppendEntry, Appended, ReadLog, RegistryStoreError, RegistryStoreLink, Sealed, ask_store,
};
use crate::planted::{self, Bug};

/// A catalog that follows a log which other registries write too.
#[derive(Debug)]
pub(crate) struct RegistryLog {
    store: RegistryStoreLink,
    /// Set once the log was read; whoever comes before waits for it.
    folded: OnceCell<RefCell<Folded>>,
    /// Held by the look that is under way.
    look: Mutex<()>,
    /// Looks that were begun, and the newest of them that came to its end.
    begun: Cell<u64>,
    done: Cell<u64>,
    /// When that one began.
    as_of: Cell<Option<Instant>>,
    /// Told of each look and each change, before whoever made the change hears of it.
    seen: watch::Sender<Option<LogSeen>>,
}

/// Invariant: `catalog` is the fold of the entries 1 to `last`, the last of which has seal `head`.
#[derive(Debug, Default)]
struct Folded {
    catalog: Catalog,
    last: u64,
    head: Option<String>,
    events: RecentEvents,
}

/// The place in the log at which a question was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place(u64);

impl RegistryLog {
    pub(crate) fn new(store: RegistryStoreLink, seen: watch::Sender<Option<LogSeen>>) -> Self {
        Self {
            seen,
            store,
            folded: OnceCell::new(),
            look: Mutex::new(()),
            begun: Cell::new(0),
            done: Cell::new(0),
            as_of: Cell::new(None),
        }
    }

    /// Asks the catalog, once it was read.
    pub(crate) async fn read<R>(
        &self,
        question: impl FnOnce(&Catalog) -> R,
    ) -> Result<R, RegistryStoreError> {
        self.read_at(question).await.map(|(answer, _)| answer)
    }

    /// At most `limit` events behind `after`; without it the newest.
    pub(crate) async fn events(
        &self,
        after: Option<u64>,
        limit: usize,
    ) -> Result<Events, RegistryStoreError> {
        Ok(self.folded().await?.borrow().events.read(after, limit))
    }

    /// Asks the catalog, and says of which place the answer is true.
    pub(crate) async fn read_at<R>(
        &self,
        question: impl FnOnce(&Catalog) -> R,
    ) -> Result<(R, Place), RegistryStoreError> {
        let folded = self.folded().await?.borrow();
        Ok((question(&folded.catalog), Place(folded.last)))
    }

    /// Whether the log was not looked at for so long: as after a stop of this process, in which
    /// others went on.
    pub(crate) fn is_older_than(&self, age: Duration) -> bool {
        self.as_of.get().is_none_or(|as_of| as_of.elapsed() > age)
    }

    /// Reads what was appended before this call. Looks that wait for each other share one.
    pub(crate) async fn catch_up(&self) -> Result<(), RegistryStoreError> {
        let folded = self.folded().await?;
        let begun_before = self.begun.get();
        let _look = self.look.lock().await;
        if self.done.get() > begun_before {
            return Ok(());
        }
        self.begun.set(self.begun.get() + 1);
        let (this, began, known) = (self.begun.get(), Instant::now(), folded.borrow().last);
        let entries = ask_store(&self.store.read_log, ReadLog { known }).await?;
        let advanced = {
            let mut folded = folded.borrow_mut();
            (known.max(1)..).zip(entries).try_for_each(|(at, entry)| folded.advance(at, entry))
        };
        if advanced.is_ok() {
            self.done.set(this);
            self.as_of.set(Some(began));
        }
        self.tell(&folded.borrow());
        advanced
    }

    fn tell(&self, folded: &Folded) {
        let entries = folded.last;
        self.seen.send_replace(self.as_of.get().map(|at| LogSeen { entries, at }));
    }

    /// Appends an entry that was checked against the catalog at `place`. After
    /// [`Appended::Taken`] the catalog has moved on from there: check again.
    pub(crate) async fn append(
        &self,
        entry: &LogEntry,
        place: Place,
    ) -> Result<Appended, RegistryStoreError> {
        let folded = self.folded().await?;
        let (last, previous) = {
            let folded = folded.borrow();
            (folded.last, folded.head.clone())
        };
        // A look may have come between the check and this: what follows from the log as it was need
        // not follow from the log as it is.
        if last != place.0 && !planted::is(Bug::StaleCatalog) {
            return Ok(Appended::Taken);
        }
        // An entry that does not follow would make the log unreadable for good.
        let unchecked = planted::is(Bug::StaleCatalog) || planted::is(Bug::RunUnseen);
        let follows = folded.borrow().catalog.check(entry);
        if let (Err(cause), false) = (follows, unchecked) {
            let (number, cause) = (last + 1, cause.to_string());
            return Err(RegistryStoreError::Contradiction { number, cause });
        }
        let number = last + 1;
        let append = AppendEntry { number, previous: previous.clone(), entry: entry.clone() };
        match ask_store(&self.store.append_entry, append).await? {
            Appended::Written { seal } => {
                let sealed = Sealed { seal: seal.clone(), previous, entry: entry.clone() };
                let advanced = folded.borrow_mut().advance(number, sealed);
                self.tell(&folded.borrow());
                advanced.map(|()| Appended::Written { seal })
            }
            Appended::Taken => {
                self.catch_up().await?;
                Ok(Appended::Taken)
            }
        }
    }

    async fn folded(&self) -> Result<&RefCell<Folded>, RegistryStoreError> {
        let load = || async {
            let began = Instant::now();
            let entries = ask_store(&self.store.read_log, ReadLog { known: 0 }).await?;
            let mut folded = Folded::default();
            for (number, entry) in (1..).zip(entries) {
                folded.advance(number, entry)?;
            }
            info!(entries = folded.last, "registry log read");
            self.as_of.set(Some(began));
            self.tell(&folded);
            Ok(RefCell::new(folded))
        };
        self.folded.get_or_try_init(load).await
    }
}

impl Folded {
    /// Applies an entry that may have been applied already: its own writer reads it again.
    fn advance(&mut self, number: u64, sealed: Sealed) -> Result<(), RegistryStoreError> {
        let Sealed { seal, previous, entry } = sealed;
        let shown = |seal: &Option<String>| seal.clone().unwrap_or_else(|| "none".to_owned());
        if number == self.last && self.head.as_ref() != Some(&seal) {
            let expected = shown(&self.head);
            return Err(RegistryStoreError::Replaced { number, expected, got: seal });
        }
        if number <= self.last {
            return Ok(());
        }
        if previous != self.head {
            let (expected, got) = (shown(&self.head), shown(&previous));
            return Err(RegistryStoreError::Chain { number, expected, got });
        }
        self.catalog.apply(&entry).map_err(|cause| RegistryStoreError::Contradiction {
            number,
            cause: cause.to_string(),
        })?;
        self.events.push(number, &entry, &seal);
        self.last = number;
        self.head = Some(seal);
        Ok(())
    }
}
