//! Who leads a cluster, in which view, with what state: one log that all candidates share.
//!
//! The number of an entry is its view, and appending is put-if-absent, so a view has one leader.
//! `docs/coordination.md` says what lies where.

#[cfg(feature = "etcd")]
mod etcd;
mod folder;
mod place;
mod record;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Context, Handler, ResponseFuture, Supervised};
use async_trait::async_trait;
use gradmesh_actors::ids::View;
use gradmesh_actors::messages::coordination::{
    AppendView, Appended, Beat, CoordinationError, Entry, Observe, Observed, RenewLease, Resign,
};
use object_store::ObjectStore;

pub use place::{CoordinationPlace, PlaceError};

use super::{Store, StoreError};
use folder::FolderLog;

/// Newest entries that stay. Only the newest one is read; the others tell a person how the last
/// leaders changed, and a view of a cluster that heals each minute lasts an hour.
pub const ENTRIES_KEPT: u64 = 64;
/// Largest entry as it is stored: etcd takes requests of 1.5 MiB.
pub const ENTRY_BYTES_MAX: usize = 1 << 20;

/// What a folder and etcd do each in their own way.
#[async_trait]
trait ViewLog: fmt::Debug + Send + Sync {
    /// For people.
    fn name(&self) -> &str;

    async fn newest(&self) -> Result<Option<Entry>, CoordinationError>;

    /// Appends one that no other is behind, and removes those that are not kept.
    async fn append(&self, entry: Entry) -> Result<Appended, CoordinationError>;

    async fn beat(&self) -> Result<Option<Beat>, CoordinationError>;

    async fn write_beat(&self, beat: Beat, ttl: Duration) -> Result<(), CoordinationError>;

    async fn remove_beat(&self) -> Result<(), CoordinationError>;
}

/// Answers for the log of one cluster. Each candidate has its own, over the same log.
#[derive(Clone, Debug)]
pub struct CoordinationStore {
    log: Arc<dyn ViewLog>,
}

impl CoordinationStore {
    /// Opens the store at a place of the configuration. Nothing is asked of it yet.
    ///
    /// `open_folder` opens a folder by its path or URL. No request to etcd takes longer than
    /// `patience`: a part of the lease, because a renewal that comes later is worth nothing.
    ///
    /// # Errors
    /// No place, or one that can't be opened or that this build doesn't know.
    pub fn open(
        place: &str,
        patience: Duration,
        open_folder: impl FnOnce(&str) -> Result<Store, StoreError>,
    ) -> Result<Self, StoreError> {
        match CoordinationPlace::read(place)? {
            CoordinationPlace::Folder(path) => {
                let store = open_folder(&path)?;
                let name = store.path().map_or(path, |path| path.display().to_string());
                Ok(Self::in_folder(store.objects, name))
            }
            #[cfg(feature = "etcd")]
            CoordinationPlace::Etcd(cluster) => {
                Ok(Self { log: Arc::new(etcd::EtcdLog::new(cluster, patience)) })
            }
            #[cfg(not(feature = "etcd"))]
            CoordinationPlace::Etcd(_) => {
                let _ = patience;
                Err(PlaceError::NoEtcd { place: place.to_owned() }.into())
            }
        }
    }

    /// The log in a folder, or in another object store that has put-if-absent; `name` is for people.
    pub fn in_folder(store: Arc<dyn ObjectStore>, name: impl Into<String>) -> Self {
        Self { log: Arc::new(FolderLog::new(store, name.into())) }
    }

    async fn append(self, message: AppendView) -> Result<Appended, CoordinationError> {
        let entry = message.entry;
        if entry.view == View(0) {
            // The number of a log without entries.
            let next = self.log.newest().await?.and_then(|newest| newest.view.next());
            let (store, next) = (self.log.name().to_owned(), next.unwrap_or(View(1)));
            return Err(CoordinationError::Gap { store, next, got: entry.view });
        }
        self.log.append(entry).await
    }

    async fn observe(self, _: Observe) -> Result<Observed, CoordinationError> {
        // The beat first: where a leader begins in between, an older beat is told from its own by
        // the term. The other way round, the last leader's would look as if it were gone.
        let beat = self.log.beat().await?;
        let newest = self.log.newest().await?;
        Ok(Observed { newest, beat })
    }

    async fn renew(self, RenewLease { beat, ttl }: RenewLease) -> Result<(), CoordinationError> {
        // Who is superseded before the beat is written is told so by the next renewal.
        match self.log.newest().await? {
            Some(newest) if newest.term != beat.term || newest.leader != beat.leader => {
                let Entry { term, leader, .. } = newest;
                Err(CoordinationError::Superseded { own: beat.term, term, leader })
            }
            _ => self.log.write_beat(beat, ttl).await,
        }
    }

    async fn resign(self, Resign { term, leader }: Resign) -> Result<(), CoordinationError> {
        match self.log.beat().await? {
            Some(beat) if beat.term == term && beat.leader == leader => {
                self.log.remove_beat().await
            }
            _ => Ok(()),
        }
    }
}

impl Actor for CoordinationStore {
    type Context = Context<Self>;
}

impl Supervised for CoordinationStore {
    fn restarting(&mut self, _ctx: &mut Self::Context) {
        gradmesh_actors::restart::replace(self);
    }
}

/// Each request works on its own copy: it has no state but the store's.
macro_rules! answer {
    ($message:ty, $method:ident) => {
        impl Handler<$message> for CoordinationStore {
            type Result = ResponseFuture<<$message as actix::Message>::Result>;

            fn handle(&mut self, message: $message, _ctx: &mut Self::Context) -> Self::Result {
                Box::pin(self.clone().$method(message))
            }
        }
    };
}

answer!(AppendView, append);
answer!(Observe, observe);
answer!(RenewLease, renew);
answer!(Resign, resign);
