//! Several registries over one store, stopped at the worst places.

use std::sync::Arc;

use actix::{Actor, Addr, Context, Handler, Message, Recipient, ResponseFuture};
use gradmesh_actors::messages::{AppendEntry, RegistryStoreLink, WriteArtifact};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::*;

/// Holds what goes to the store until it is let through.
struct Gate {
    inner: RegistryStoreLink,
    arrived: Arc<Semaphore>,
    open: Arc<Semaphore>,
}

impl Actor for Gate {
    type Context = Context<Self>;
}

impl Gate {
    fn pass<M, R>(&self, inner: &Recipient<M>, message: M) -> ResponseFuture<R>
    where
        M: Message<Result = R> + Send + 'static,
        R: Send + 'static,
    {
        let (inner, arrived, open) = (inner.clone(), self.arrived.clone(), self.open.clone());
        Box::pin(async move {
            arrived.add_permits(1);
            open.acquire().await.unwrap().forget();
            inner.send(message).await.unwrap()
        })
    }
}

impl Handler<AppendEntry> for Gate {
    type Result = ResponseFuture<<AppendEntry as Message>::Result>;

    fn handle(&mut self, message: AppendEntry, _: &mut Self::Context) -> Self::Result {
        self.pass(&self.inner.append_entry, message)
    }
}

impl Handler<WriteArtifact> for Gate {
    type Result = ResponseFuture<<WriteArtifact as Message>::Result>;

    fn handle(&mut self, message: WriteArtifact, _: &mut Self::Context) -> Self::Result {
        self.pass(&self.inner.write_artifact, message)
    }
}

/// The two sides of a gate.
struct Keeper {
    arrived: Arc<Semaphore>,
    open: Arc<Semaphore>,
}

impl Keeper {
    fn new(inner: &RegistryStoreLink) -> (Addr<Gate>, Self) {
        let (arrived, open) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
        let gate = Gate { inner: inner.clone(), arrived: arrived.clone(), open: open.clone() };
        (gate.start(), Self { arrived, open })
    }

    /// Waits for the next one that is held.
    async fn reached(&self) {
        let arrived = self.arrived.acquire();
        let permit: SemaphorePermit<'_> =
            actix_rt::time::timeout(Duration::from_secs(20), arrived).await.expect("held").unwrap();
        permit.forget();
    }

    fn open(&self) {
        self.open.add_permits(Semaphore::MAX_PERMITS >> 1);
    }
}

fn link(folder: &Path) -> RegistryStoreLink {
    let store = open_store(&folder.display().to_string(), folder).unwrap();
    RegistryStore::link(&RegistryStore::new(store).start())
}

/// A registry whose entries are held, or whose artifacts are.
fn holding_entries(folder: &Path) -> (Addr<ModelRegistry>, Keeper) {
    let mut link = link(folder);
    let (gate, keeper) = Keeper::new(&link);
    link.append_entry = gate.recipient();
    (ModelRegistry::new(link).start(), keeper)
}

fn holding_artifacts(folder: &Path) -> (Addr<ModelRegistry>, Keeper) {
    let mut link = link(folder);
    let (gate, keeper) = Keeper::new(&link);
    link.write_artifact = gate.recipient();
    (ModelRegistry::new(link).start(), keeper)
}

/// Until a registry has seen a version by itself.
async fn sees(registry: &Addr<ModelRegistry>, run: &str) {
    let follow = async {
        let mut look = actix_rt::time::interval(Duration::from_millis(5));
        while find(registry, "latest").await.map(|found| found.run).as_deref() != Ok(run) {
            look.tick().await;
        }
    };
    actix_rt::time::timeout(Duration::from_secs(20), follow).await.expect("it follows the log");
}

/// What a registry that starts now reads: run by version.
async fn runs(folder: &Path) -> Vec<(u64, String)> {
    let fresh = open(folder);
    let list = fresh.send(ListModels {}).await.unwrap().unwrap();
    let mut runs = Vec::new();
    for version in list.models.iter().flat_map(|summary| summary.versions.clone()) {
        let fetched = fetch_version(&fresh, &version.to_string()).await.unwrap();
        assert_eq!(fetched.tensors, new_version(&fetched.description.run).tensors);
        runs.push((version, fetched.description.run));
    }
    runs
}

/// It has read the other's entries when its artifact is written, so the number that it chose before
/// is not its own any more.
#[actix_rt::test]
async fn a_number_that_was_given_while_the_artifact_was_written_is_not_given_again() {
    let (folder, second) = fresh();
    let (slow, gate) = holding_artifacts(folder.path());
    let publication = actix_rt::spawn(slow.send(new_version("a")));
    gate.reached().await;
    publish(&second, "b").await.unwrap();
    publish(&second, "c").await.unwrap();
    sees(&slow, "c").await;
    gate.open();
    let a = publication.await.unwrap().unwrap().unwrap();
    assert_eq!(a, Published { version: 3, already: false });
    let expected = [(1, "b".to_owned()), (2, "c".to_owned()), (3, "a".to_owned())];
    assert_eq!(runs(folder.path()).await, expected);
}

#[actix_rt::test]
async fn a_run_that_another_registry_published_meanwhile_keeps_that_version() {
    let (folder, second) = fresh();
    let (slow, gate) = holding_artifacts(folder.path());
    let publication = actix_rt::spawn(slow.send(new_version("a")));
    gate.reached().await;
    publish(&second, "a").await.unwrap();
    sees(&slow, "a").await;
    gate.open();
    let again = publication.await.unwrap().unwrap().unwrap();
    assert_eq!(again, Published { version: 1, already: true });
    assert_eq!(runs(folder.path()).await, [(1, "a".to_owned())]);
}

/// Its artifact is written, its entry is on its way, and the others have long gone on.
#[actix_rt::test]
async fn a_registry_that_wakes_up_with_its_entry_in_hand_writes_over_nothing() {
    let (folder, second) = fresh();
    let (zombie, gate) = holding_entries(folder.path());
    let publication = actix_rt::spawn(zombie.send(new_version("a")));
    gate.reached().await;
    // The folder of version 1 is taken by the one that sleeps.
    let b = publish(&second, "b").await.unwrap().version;
    let again = publish(&second, "a").await.unwrap();
    assert!(!again.already);
    gate.open();
    let woken = publication.await.unwrap().unwrap().unwrap();
    assert_eq!(woken, Published { version: again.version, already: true });
    let expected = [(b, "b".to_owned()), (again.version, "a".to_owned())];
    assert_eq!(runs(folder.path()).await, expected);
}

#[actix_rt::test]
async fn a_registry_that_dies_between_artifact_and_entry_leaves_nothing_that_counts() {
    let (folder, second) = fresh();
    let (dying, gate) = holding_entries(folder.path());
    let publication = actix_rt::spawn(dying.send(new_version("a")));
    gate.reached().await;
    publication.abort();
    drop((dying, gate));
    assert_eq!(publish(&second, "a").await, Ok(Published { version: 1, already: false }));
    assert_eq!(publish(&second, "b").await.unwrap().version, 2);
    assert_eq!(runs(folder.path()).await, [(1, "a".to_owned()), (2, "b".to_owned())]);
}

#[actix_rt::test]
async fn an_alias_that_two_registries_set_names_one_version_everywhere() {
    let (folder, first) = fresh();
    let second = open(folder.path());
    publish(&first, "a").await.unwrap();
    publish(&first, "b").await.unwrap();
    for _ in 0..10 {
        let one = actix_rt::spawn({
            let first = first.clone();
            async move { alias(&first, "1").await }
        });
        assert_eq!(alias(&second, "2").await.unwrap().version, 2);
        assert_eq!(one.await.unwrap().unwrap().version, 1);
    }
    let named = find(&open(folder.path()), "production").await.unwrap().version;
    for registry in [&first, &second] {
        let agree = async {
            let mut look = actix_rt::time::interval(Duration::from_millis(5));
            while find(registry, "production").await.unwrap().version != named {
                look.tick().await;
            }
        };
        actix_rt::time::timeout(Duration::from_secs(20), agree).await.expect("they agree");
    }
}

/// The alias was allowed when the version was there, the deletion when it had no alias: one of the
/// two must see the other.
#[actix_rt::test]
async fn a_version_is_deleted_here_or_named_there_but_not_both() {
    for held_alias in [true, false] {
        let (folder, second) = fresh();
        publish(&second, "a").await.unwrap();
        let (first, gate) = holding_entries(folder.path());
        find(&first, "1").await.unwrap();
        if held_alias {
            let set = actix_rt::spawn(async move { alias(&first, "1").await });
            gate.reached().await;
            delete(&second).await.unwrap();
            gate.open();
            let refused = set.await.unwrap().unwrap_err();
            assert!(matches!(refused, ChangeError::Catalog(CatalogError::NoVersion { .. })));
        } else {
            let deleted = actix_rt::spawn(async move { delete(&first).await });
            gate.reached().await;
            alias(&second, "1").await.unwrap();
            gate.open();
            let refused = deleted.await.unwrap().unwrap_err();
            assert!(matches!(refused, ChangeError::Catalog(CatalogError::InUse { .. })));
            assert!(fetch(&open(folder.path())).await.is_ok());
        }
    }
}

#[actix_rt::test]
async fn a_deletion_while_the_other_publishes_takes_no_file_of_the_new_version() {
    let (folder, second) = fresh();
    publish(&second, "a").await.unwrap();
    let (first, gate) = holding_entries(folder.path());
    let publication = actix_rt::spawn(first.send(new_version("b")));
    gate.reached().await;
    delete(&second).await.unwrap();
    gate.open();
    assert_eq!(publication.await.unwrap().unwrap().unwrap().version, 2);
    assert_eq!(runs(folder.path()).await, [(2, "b".to_owned())]);
}

/// A coordinator that asks another registry for the version that it has published must not hear
/// that there is none.
#[actix_rt::test]
async fn what_another_registry_has_acknowledged_is_found_at_once() {
    let (folder, first) = fresh();
    let second = open(folder.path());
    find(&second, "latest").await.unwrap_err();
    for (version, run) in (1..).zip(["a", "b", "c", "d"]) {
        publish(&first, run).await.unwrap();
        assert_eq!(find(&second, &format!("{version}")).await.unwrap().run, run);
    }
}

#[actix_rt::test]
async fn a_version_that_another_registry_deleted_is_no_damage() {
    let (folder, first) = fresh();
    let second = open(folder.path());
    publish(&first, "a").await.unwrap();
    fetch(&second).await.unwrap();
    delete(&first).await.unwrap();
    let gone = fetch(&second).await.unwrap_err();
    assert!(
        matches!(
            gone,
            FindError::Catalog(CatalogError::NoVersions { .. } | CatalogError::NoVersion { .. })
        ),
        "{gone}"
    );
}
