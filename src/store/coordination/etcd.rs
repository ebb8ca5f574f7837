//! The log in etcd.
//!
//! ```text
//! <prefix>/views/00000000000000000017    one entry; written once, never changed
//! <prefix>/beat                          overwritten with each renewal, goes with its lease
//! ```
//!
//! An append is one transaction: the number is free, the number before it is there (or, for the
//! first, none is), then it is written and old ones go. So no removed number comes back.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use etcd_client::{
    Client, Compare, CompareOp, ConnectOptions, DeleteOptions, Error, GetOptions, KeyValue,
    PutOptions, SortOrder, SortTarget, Txn, TxnOp, TxnOpResponse,
};
use gradmesh_actors::ids::View;
use gradmesh_actors::messages::coordination::{Appended, Beat, CoordinationError, Entry};
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::place::EtcdCluster;
use super::{ENTRIES_KEPT, ENTRY_BYTES_MAX, ViewLog, record};

/// For a connection that is silent: a member that was cut off is left for another one.
const KEEP_ALIVE: Duration = Duration::from_secs(1);
/// Shortest wait for an answer: below this, a busy member's disk would look like no member.
const PATIENCE_MIN: Duration = Duration::from_millis(50);

pub(super) struct EtcdLog {
    cluster: EtcdCluster,
    /// For people.
    name: String,
    patience: Duration,
    /// By the member's place in the list.
    clients: Mutex<BTreeMap<usize, Client>>,
    /// The member that answered last.
    answered: AtomicUsize,
}

impl fmt::Debug for EtcdLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EtcdLog").field("name", &self.name).finish_non_exhaustive()
    }
}

impl EtcdLog {
    pub(super) fn new(cluster: EtcdCluster, patience: Duration) -> Self {
        let name = format!("etcd://{}/{}", cluster.endpoints.join(","), cluster.prefix);
        let patience = patience.max(PATIENCE_MIN);
        Self { cluster, name, patience, clients: Mutex::default(), answered: AtomicUsize::new(0) }
    }

    /// A client of one member. It connects when it is first used, and again when that breaks.
    async fn client(&self, member: usize) -> Result<Client, Error> {
        let mut clients = self.clients.lock().await;
        if let Some(client) = clients.get(&member) {
            return Ok(client.clone());
        }
        let options = ConnectOptions::new()
            .with_connect_timeout(self.patience)
            .with_timeout(self.patience)
            .with_keep_alive(KEEP_ALIVE, self.patience)
            // A member that was cut off from the others says so instead of waiting for them.
            .with_require_leader(true);
        let client =
            Client::connect(&self.cluster.endpoints[member..=member], Some(options)).await?;
        clients.insert(member, client.clone());
        Ok(client)
    }

    /// Asks the member that answered last, then each of the others: all within this store's
    /// patience. Every request is safe to repeat.
    async fn ask<T, F>(&self, request: impl Fn(Client) -> F) -> Result<T, CoordinationError>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let members = self.cluster.endpoints.len();
        let each = self.patience / u32::try_from(members).unwrap_or(1).max(1);
        let first = self.answered.load(Ordering::Relaxed);
        let mut causes = Vec::new();
        for member in (0..members).map(|after| (first + after) % members) {
            let asked = async { request(self.client(member).await?).await };
            let cause = match timeout(each, asked).await {
                Ok(Ok(answer)) => {
                    self.answered.store(member, Ordering::Relaxed);
                    return Ok(answer);
                }
                Ok(Err(error)) => error.to_string(),
                Err(_) => format!("none within {} ms", each.as_millis()),
            };
            causes.push(format!("{}: {cause}", self.cluster.endpoints[member]));
        }
        Err(self.no_answer(causes.join("; ")))
    }

    /// Where etcd refused, too, nothing is known of what another member has done.
    fn no_answer(&self, cause: String) -> CoordinationError {
        let full = cause.contains("database space exceeded");
        let what_to_do =
            if full { "; compact and defragment etcd, then disarm its alarm" } else { "" };
        CoordinationError::NoAnswer { store: self.name.clone(), cause: cause + what_to_do }
    }

    fn views(&self) -> String {
        format!("{}/views/", self.cluster.prefix)
    }

    fn key(&self, view: View) -> String {
        format!("{}{:020}", self.views(), view.0)
    }

    fn beat_key(&self) -> String {
        format!("{}/beat", self.cluster.prefix)
    }

    fn get_newest(&self) -> TxnOp {
        let newest = GetOptions::new().with_prefix().with_limit(1);
        let newest = newest.with_sort(SortTarget::Key, SortOrder::Descend);
        TxnOp::get(self.views(), Some(newest))
    }

    fn entry(&self, found: &KeyValue) -> Result<Entry, CoordinationError> {
        let key = String::from_utf8_lossy(found.key()).into_owned();
        let number = key.strip_prefix(&self.views()).and_then(|number| number.parse().ok());
        let read = match number.map(View) {
            Some(view) if self.key(view) != key => Err("it is no key of an entry".to_owned()),
            None => Err("it is no key of an entry".to_owned()),
            Some(_) if found.value().len() > ENTRY_BYTES_MAX => {
                Err(format!("it has {} bytes", found.value().len()))
            }
            Some(view) => record::read_entry(found.value(), view),
        };
        read.map_err(|cause| {
            let store = self.name.clone();
            CoordinationError::Damaged { store, path: format!("key {key}"), cause }
        })
    }

    fn first_of(&self, answers: Vec<TxnOpResponse>) -> Result<Option<Entry>, CoordinationError> {
        let found = answers.into_iter().find_map(|answer| match answer {
            TxnOpResponse::Get(found) => found.kvs().first().cloned(),
            _ => None,
        });
        found.map(|found| self.entry(&found)).transpose()
    }

    /// Nobody has the number, and the log ends before it.
    fn is_next(&self, view: View) -> Vec<Compare> {
        let absent = |key: String| Compare::create_revision(key, CompareOp::Equal, 0);
        match view.0.checked_sub(1).filter(|before| *before > 0) {
            None => vec![absent(self.views()).with_prefix()],
            Some(before) => vec![
                absent(self.key(view)),
                Compare::create_revision(self.key(View(before)), CompareOp::Greater, 0),
            ],
        }
    }
}

#[async_trait]
impl ViewLog for EtcdLog {
    fn name(&self) -> &str {
        &self.name
    }

    async fn newest(&self) -> Result<Option<Entry>, CoordinationError> {
        let txn = Txn::new().and_then([self.get_newest()]);
        let found = self
            .ask(|mut client| {
                let txn = txn.clone();
                async move { client.txn(txn).await }
            })
            .await?;
        self.first_of(found.op_responses())
    }

    async fn append(&self, entry: Entry) -> Result<Appended, CoordinationError> {
        let bytes = record::write_entry(&entry, &self.name)?;
        let mut then = vec![TxnOp::put(self.key(entry.view), bytes, None)];
        if let Some(kept_from) = entry.view.0.checked_sub(ENTRIES_KEPT - 1) {
            let old = DeleteOptions::new().with_range(self.key(View(kept_from)));
            then.push(TxnOp::delete(self.key(View(0)), Some(old)));
        }
        let txn =
            Txn::new().when(self.is_next(entry.view)).and_then(then).or_else([self.get_newest()]);
        let done = self
            .ask(|mut client| {
                let txn = txn.clone();
                async move { client.txn(txn).await }
            })
            .await?;
        if done.succeeded() {
            return Ok(Appended::Won);
        }
        match self.first_of(done.op_responses())? {
            Some(newest) if newest == entry => Ok(Appended::Won),
            Some(newest) if newest.view >= entry.view => Ok(Appended::Taken(newest)),
            newest => {
                let last = newest.map_or(View(0), |newest| newest.view);
                let next = last.next().unwrap_or(last);
                Err(CoordinationError::Gap { store: self.name.clone(), next, got: entry.view })
            }
        }
    }

    async fn beat(&self) -> Result<Option<Beat>, CoordinationError> {
        let key = self.beat_key();
        let found = self
            .ask(|mut client| {
                let key = key.clone();
                async move { client.get(key, None).await }
            })
            .await?;
        let Some(found) = found.kvs().first() else { return Ok(None) };
        let beat = record::read_beat(found.value());
        if let Err(cause) = &beat {
            // The next renewal writes it anew; without one, somebody else is to lead.
            tracing::warn!(store = self.name, key = self.beat_key(), %cause, "the beat can't be read");
        }
        Ok(beat.ok())
    }

    async fn write_beat(&self, beat: Beat, ttl: Duration) -> Result<(), CoordinationError> {
        let bytes = record::write_beat(&beat, &self.name)?;
        let key = self.beat_key();
        // Whole seconds, and never less than what the leader counts on.
        let seconds = i64::try_from(ttl.as_millis().div_ceil(1000)).unwrap_or(i64::MAX).max(1);
        // A lease of its own for each beat: nothing has to be remembered, and the last one, which
        // has lost its key, ends alone.
        let lease = self.ask(|mut c| async move { c.lease_grant(seconds, None).await }).await?;
        let with_lease = PutOptions::new().with_lease(lease.id());
        let put = self.ask(|mut client| {
            let (key, bytes, with_lease) = (key.clone(), bytes.clone(), with_lease.clone());
            async move { client.put(key, bytes, Some(with_lease)).await }
        });
        put.await.map(drop)
    }

    async fn remove_beat(&self) -> Result<(), CoordinationError> {
        let key = self.beat_key();
        self.ask(|mut client| {
            let key = key.clone();
            async move { client.delete(key, None).await }
        })
        .await
        .map(drop)
    }
}
