//! A place of a log that can be opened many times and looked into.

use actix::Addr;
use bytes::Bytes;
use gradmesh::store::coordination::CoordinationStore;
use gradmesh_actors::ids::{Term, View};
use gradmesh_actors::messages::coordination::{
    AppendView, Appended, Beat, CoordinationError, Entry, Observe, Observed, RenewLease, Resign,
};

/// Whatever a log lies in.
#[allow(async_fn_in_trait, reason = "a test's futures stay on its thread")]
pub(crate) trait Place {
    /// One candidate's store.
    fn open(&self) -> Addr<CoordinationStore>;

    /// What the entry is called in messages.
    fn entry_name(&self, view: u64) -> String;

    /// Writes over the entry of a number, past the store.
    async fn overwrite(&self, view: u64, bytes: &[u8]);

    /// Writes over the beat.
    async fn overwrite_beat(&self, bytes: &[u8]);

    /// The numbers of the log, as they lie there.
    async fn views(&self) -> Vec<u64>;
}

pub(crate) fn entry(view: u64, term: u64, leader: &str) -> Entry {
    let state = Bytes::from(format!("{{\"by\":\"{leader}\"}}"));
    Entry { view: View(view), term: Term(term), leader: leader.into(), state }
}

pub(crate) fn beat(term: u64, leader: &str, count: u64) -> Beat {
    Beat { term: Term(term), leader: leader.into(), count }
}

pub(crate) async fn append(
    store: &Addr<CoordinationStore>,
    entry: Entry,
) -> Result<Appended, CoordinationError> {
    store.send(AppendView { entry }).await.unwrap()
}

pub(crate) async fn won(store: &Addr<CoordinationStore>, view: u64, term: u64, leader: &str) {
    assert_eq!(append(store, entry(view, term, leader)).await, Ok(Appended::Won), "{view}");
}

pub(crate) async fn observe(
    store: &Addr<CoordinationStore>,
) -> Result<Observed, CoordinationError> {
    store.send(Observe).await.unwrap()
}

pub(crate) async fn renew(
    store: &Addr<CoordinationStore>,
    beat: Beat,
) -> Result<(), CoordinationError> {
    let ttl = std::time::Duration::from_secs(1);
    store.send(RenewLease { beat, ttl }).await.unwrap()
}

pub(crate) async fn resign(store: &Addr<CoordinationStore>, term: u64, leader: &str) {
    let resign = Resign { term: Term(term), leader: leader.into() };
    store.send(resign).await.unwrap().unwrap();
}
