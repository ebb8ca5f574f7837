//! The model registry over a real folder: what was published stays published, whatever happens
//! around it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "the helpers of a test fail with it")]

mod any_of;
mod chain;
mod records;
mod rivals;
mod routes;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use actix::{Actor, Addr};
use gradmesh::store::{RegistryStore, open_store};
use gradmesh_actors::catalog::CatalogError;
use gradmesh_actors::dataset::Scaling;
use gradmesh_actors::messages::{
    AliasSet, ChangeError, DeleteVersion, FetchModel, FetchedModel, FindError, FindModel,
    ListModels, PublishModel, Published, RegistryStoreError, RemoveAlias, SetAlias, WirePart,
};
use gradmesh_actors::model::ModelDescription;
use gradmesh_actors::model_registry::ModelRegistry;
use gradmesh_actors::new_version::NewVersion;
use gradmesh_actors::version::{TensorShape, VersionDescription};
use tempfile::TempDir;

#[actix_rt::test]
async fn versions_count_from_one_and_latest_is_the_newest() {
    let (_folder, registry) = fresh();
    assert_eq!(publish(&registry, "a").await, Ok(Published { version: 1, already: false }));
    assert_eq!(publish(&registry, "b").await, Ok(Published { version: 2, already: false }));
    assert_eq!(find(&registry, "latest").await.unwrap().run, "b");
    assert_eq!(find(&registry, "1").await.unwrap().run, "a");
    let list = registry.send(ListModels {}).await.unwrap().unwrap();
    assert_eq!(
        (list.models[0].model.as_str(), list.models[0].versions.as_slice()),
        ("m", &[1, 2][..])
    );
}

#[actix_rt::test]
async fn fetched_tensors_are_the_published_bits() {
    let (_folder, registry) = fresh();
    let message = new_version("a");
    let tensors = message.tensors.clone();
    registry.send(message).await.unwrap().unwrap();
    assert_eq!(fetch(&registry).await.unwrap().tensors, tensors);
}

#[actix_rt::test]
async fn a_run_that_is_published_twice_has_one_version() {
    let (folder, registry) = fresh();
    publish(&registry, "a").await.unwrap();
    assert_eq!(publish(&registry, "a").await, Ok(Published { version: 1, already: true }));
    let restarted = open(folder.path());
    assert_eq!(publish(&restarted, "a").await, Ok(Published { version: 1, already: true }));
}

#[actix_rt::test]
async fn publications_at_the_same_time_get_different_versions() {
    let (_folder, registry) = fresh();
    let runs = ["a", "b", "c", "d"];
    let sent: Vec<_> =
        runs.iter().map(|run| actix_rt::spawn(registry.send(new_version(run)))).collect();
    let mut versions = Vec::new();
    for answer in sent {
        versions.push(answer.await.unwrap().unwrap().unwrap().version);
    }
    versions.sort_unstable();
    assert_eq!(versions, [1, 2, 3, 4]);
}

#[actix_rt::test]
async fn an_alias_names_a_version_until_it_is_moved_or_removed() {
    let (_folder, registry) = fresh();
    publish(&registry, "a").await.unwrap();
    publish(&registry, "b").await.unwrap();
    for (version, run) in [("1", "a"), ("latest", "b")] {
        alias(&registry, version).await.unwrap();
        assert_eq!(find(&registry, "production").await.unwrap().run, run);
    }
    let remove = || RemoveAlias { model: "m".into(), alias: "production".into() };
    registry.send(remove()).await.unwrap().unwrap();
    registry.send(remove()).await.unwrap().unwrap();
    let gone = find(&registry, "production").await.unwrap_err();
    assert_eq!(gone.to_string(), "m has no alias \"production\"; there are no aliases");
}

#[actix_rt::test]
async fn an_alias_that_can_not_be_told_from_a_version_is_refused() {
    let (_folder, registry) = fresh();
    publish(&registry, "a").await.unwrap();
    for alias in ["latest", "7", "Production", ""] {
        let (model, alias) = ("m".into(), alias.into());
        let set = SetAlias { model, alias, version: "1".parse().unwrap() };
        let refused = registry.send(set).await.unwrap();
        assert!(matches!(refused, Err(ChangeError::Catalog(CatalogError::Name(_)))), "{refused:?}");
    }
}

#[actix_rt::test]
async fn a_version_is_deleted_only_when_no_alias_names_it_and_its_number_stays_unused() {
    let (folder, registry) = fresh();
    publish(&registry, "a").await.unwrap();
    alias(&registry, "1").await.unwrap();
    let refused = delete(&registry).await.unwrap_err();
    assert!(refused.to_string().contains("\"production\""), "{refused}");

    let remove = RemoveAlias { model: "m".into(), alias: "production".into() };
    registry.send(remove).await.unwrap().unwrap();
    delete(&registry).await.unwrap();
    delete(&registry).await.unwrap();
    assert!(!folder.path().join("models/m/1/model.safetensors").exists());
    let refused = publish(&registry, "a").await;
    assert!(matches!(refused, Err(ChangeError::Catalog(CatalogError::RunDeleted { .. }))));
    assert_eq!(publish(&registry, "b").await.unwrap().version, 2);
}

#[actix_rt::test]
async fn a_restarted_registry_reads_back_what_there_was() {
    let (folder, registry) = fresh();
    publish(&registry, "a").await.unwrap();
    publish(&registry, "b").await.unwrap();
    alias(&registry, "1").await.unwrap();
    let before = (find(&registry, "latest").await, find(&registry, "production").await);
    let restarted = open(folder.path());
    let after = (find(&restarted, "latest").await, find(&restarted, "production").await);
    assert_eq!(after, before);
}

#[actix_rt::test]
async fn two_registries_over_one_folder_never_give_one_version_twice() {
    let (folder, first) = fresh();
    let second = open(folder.path());
    let mut versions = BTreeMap::new();
    for round in 0..5 {
        let a = actix_rt::spawn(first.send(new_version(&format!("a{round}"))));
        let b = second.send(new_version(&format!("b{round}"))).await.unwrap().unwrap();
        let a = a.await.unwrap().unwrap().unwrap();
        versions.extend([(a.version, format!("a{round}")), (b.version, format!("b{round}"))]);
    }
    assert_eq!(versions.len(), 10);
    // Each artifact is the one of its run: none was overwritten by the registry that lost.
    let fresh = open(folder.path());
    for (version, run) in versions {
        let fetched = fetch_version(&fresh, &version.to_string()).await.unwrap();
        assert_eq!(fetched.description.run, run);
        assert_eq!(fetched.tensors, new_version(&fetched.description.run).tensors);
    }
}

#[actix_rt::test]
async fn a_run_published_through_two_registries_has_one_version() {
    let (folder, first) = fresh();
    let second = open(folder.path());
    let a = actix_rt::spawn(first.send(new_version("a")));
    let b = second.send(new_version("a")).await.unwrap().unwrap();
    let a = a.await.unwrap().unwrap().unwrap();
    assert_eq!((a.version, b.version), (1, 1));
    assert!(a.already != b.already);
    assert!(fetch(&open(folder.path())).await.is_ok());
}

/// Both write the same files, for the plain names are taken; whoever loses must not remove them.
#[actix_rt::test]
async fn a_registry_that_loses_leaves_the_files_of_the_same_run_alone() {
    let (folder, first) = fresh();
    let version = folder.path().join("models/m/1");
    fs::create_dir_all(&version).unwrap();
    fs::write(version.join("description.json"), "left behind").unwrap();
    let second = open(folder.path());
    let a = actix_rt::spawn(first.send(new_version("a")));
    second.send(new_version("a")).await.unwrap().unwrap();
    a.await.unwrap().unwrap().unwrap();
    assert_eq!(fetch(&first).await.unwrap().tensors, new_version("a").tensors);
}

#[actix_rt::test]
async fn a_change_sees_what_another_registry_published_before() {
    let (folder, first) = fresh();
    let second = open(folder.path());
    find(&second, "latest").await.unwrap_err();
    publish(&first, "a").await.unwrap();
    assert_eq!(alias(&second, "1").await.unwrap().version, 1);
}

#[actix_rt::test]
async fn a_registry_follows_what_another_one_publishes() {
    let (folder, first) = fresh();
    let second = open(folder.path());
    find(&second, "latest").await.unwrap_err();
    publish(&first, "a").await.unwrap();
    let follow = async {
        let mut look = actix_rt::time::interval(Duration::from_millis(10));
        while find(&second, "latest").await.is_err() {
            look.tick().await;
        }
    };
    actix_rt::time::timeout(Duration::from_secs(20), follow).await.expect("version 1 is seen");
}

#[actix_rt::test]
async fn an_artifact_that_is_not_what_was_published_is_refused() {
    let (folder, registry) = fresh();
    publish(&registry, "a").await.unwrap();
    let file = folder.path().join("models/m/1/model.safetensors");
    let good = fs::read(&file).unwrap();
    let mut flipped = good.clone();
    *flipped.last_mut().unwrap() ^= 1;
    for (bytes, cause) in [(flipped.as_slice(), "BLAKE3"), (&good[..good.len() - 1], "size")] {
        fs::write(&file, bytes).unwrap();
        let text = fetch(&registry).await.unwrap_err().to_string();
        assert!(text.starts_with("artifact models/m/1/model.safetensors is not"), "{text}");
        assert!(text.contains(cause), "{text}");
    }
    fs::remove_file(&file).unwrap();
    let gone = fetch(&registry).await;
    assert!(matches!(gone, Err(FindError::Store(RegistryStoreError::Missing { .. }))));
    fs::write(&file, good).unwrap();
    assert!(fetch(&registry).await.is_ok());
}

#[actix_rt::test]
async fn an_interrupted_publication_is_invisible_and_its_number_is_used() {
    for left in [
        &["description.json"][..],
        &["model.safetensors"],
        &["description.json", "model.safetensors"],
    ] {
        let (folder, registry) = fresh();
        let version = folder.path().join("models/m/1");
        fs::create_dir_all(&version).unwrap();
        for file in left {
            fs::write(version.join(file), "left behind").unwrap();
        }
        let unknown = find(&registry, "latest").await;
        assert!(matches!(unknown, Err(FindError::Catalog(CatalogError::NoModel { .. }))));
        assert_eq!(publish(&registry, "a").await.unwrap().version, 1);
        assert_eq!(fetch(&registry).await.unwrap().tensors, new_version("a").tensors);
    }
}

/// All that is left of versions 1 to 3 are their folders: nobody writes into them, and they stay.
#[actix_rt::test]
async fn folders_of_a_lost_log_are_left_alone_and_the_number_after_them_is_taken() {
    let (folder, registry) = fresh();
    for run in ["a", "b", "c"] {
        publish(&registry, run).await.unwrap();
    }
    let files = |version: &str| {
        let files = fs::read_dir(folder.path().join("models/m").join(version)).unwrap();
        let mut files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
        files.sort();
        files.into_iter().map(|path| (fs::read(&path).unwrap(), path)).collect::<Vec<_>>()
    };
    let before = ["1", "2", "3"].map(files);
    fs::remove_dir_all(folder.path().join("log")).unwrap();
    let restarted = open(folder.path());
    assert_eq!(publish(&restarted, "d").await, Ok(Published { version: 4, already: false }));
    assert_eq!(publish(&restarted, "e").await, Ok(Published { version: 5, already: false }));
    assert_eq!(["1", "2", "3"].map(files), before);
    assert_eq!(find(&open(folder.path()), "latest").await.unwrap().run, "e");
}

#[actix_rt::test]
async fn a_run_whose_log_entry_is_lost_takes_its_own_folder_again() {
    let (folder, registry) = fresh();
    publish(&registry, "a").await.unwrap();
    fs::remove_dir_all(folder.path().join("log")).unwrap();
    let restarted = open(folder.path());
    assert_eq!(publish(&restarted, "a").await, Ok(Published { version: 1, already: false }));
    assert_eq!(fetch(&restarted).await.unwrap().tensors, new_version("a").tensors);
}

#[actix_rt::test]
async fn a_log_that_is_damaged_is_an_error_that_names_the_file() {
    let (folder, registry) = fresh();
    for run in ["a", "b", "c"] {
        publish(&registry, run).await.unwrap();
    }
    let entry = entry(folder.path(), 2);
    let good = fs::read(&entry).unwrap();
    fs::write(&entry, &good[..good.len() / 2]).unwrap();
    let torn = find(&open(folder.path()), "latest").await.unwrap_err().to_string();
    assert!(torn.starts_with("log entry log/00000000000000000002.json can't be read"), "{torn}");

    fs::remove_file(&entry).unwrap();
    let gap = find(&open(folder.path()), "latest").await.unwrap_err().to_string();
    assert!(gap.starts_with("log entry log/00000000000000000002.json is missing"), "{gap}");
}

#[actix_rt::test]
async fn a_registry_reads_a_log_that_was_repaired_without_a_restart() {
    let (folder, first) = fresh();
    publish(&first, "a").await.unwrap();
    let entry = entry(folder.path(), 1);
    let good = fs::read(&entry).unwrap();
    fs::write(&entry, "{").unwrap();
    let registry = open(folder.path());
    find(&registry, "latest").await.unwrap_err();
    fs::write(&entry, good).unwrap();
    assert_eq!(find(&registry, "latest").await.unwrap().run, "a");
}

#[actix_rt::test]
async fn tensors_that_are_not_the_described_ones_are_not_published() {
    let (folder, registry) = fresh();
    let mut short = new_version("a");
    short.tensors.pop();
    let mut infinite = new_version("a");
    infinite.tensors[0] = vec![f32::INFINITY; 4].into();
    let mut named = new_version("a");
    named.description.model = "../m".into();
    for message in [short, infinite, named] {
        let refused = registry.send(message).await.unwrap();
        assert!(matches!(refused, Err(ChangeError::Values(_) | ChangeError::Catalog(_))));
    }
    assert!(!folder.path().join("models").exists());
}

/// Messages travel as MessagePack with and without field names, and JSON values in it.
#[test]
fn a_description_survives_the_wire() {
    let message = new_version("a");
    let bytes = rmp_serde::to_vec(&message).unwrap();
    let mut read: PublishModel = rmp_serde::from_slice(&bytes).unwrap();
    read.attach(message.bodies()).unwrap();
    assert_eq!(read.description, message.description);
    assert_eq!(read.tensors, message.tensors);
    let named = rmp_serde::to_vec_named(&message.description).unwrap();
    let read: NewVersion = rmp_serde::from_slice(&named).unwrap();
    assert_eq!(read, message.description);
}

fn fresh() -> (TempDir, Addr<ModelRegistry>) {
    let folder = tempfile::tempdir().unwrap();
    let registry = open(folder.path());
    (folder, registry)
}

fn open(folder: &Path) -> Addr<ModelRegistry> {
    let store = open_store(&folder.display().to_string(), folder).unwrap();
    let store = RegistryStore::new(store).start();
    ModelRegistry::new(RegistryStore::link(&store)).start()
}

fn entry(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("log/{number:020}.json"))
}

async fn publish(registry: &Addr<ModelRegistry>, run: &str) -> Result<Published, ChangeError> {
    registry.send(new_version(run)).await.unwrap()
}

async fn find(
    registry: &Addr<ModelRegistry>,
    version: &str,
) -> Result<VersionDescription, FindError> {
    let version = version.parse().unwrap();
    registry.send(FindModel { model: "m".into(), version }).await.unwrap()
}

async fn fetch(registry: &Addr<ModelRegistry>) -> Result<FetchedModel, FindError> {
    fetch_version(registry, "1").await
}

async fn fetch_version(
    registry: &Addr<ModelRegistry>,
    version: &str,
) -> Result<FetchedModel, FindError> {
    let version = version.parse().unwrap();
    registry.send(FetchModel { model: "m".into(), version }).await.unwrap()
}

async fn alias(registry: &Addr<ModelRegistry>, version: &str) -> Result<AliasSet, ChangeError> {
    let (model, alias) = ("m".into(), "production".into());
    let set = SetAlias { model, alias, version: version.parse().unwrap() };
    registry.send(set).await.unwrap()
}

async fn delete(registry: &Addr<ModelRegistry>) -> Result<(), ChangeError> {
    registry.send(DeleteVersion { model: "m".into(), version: 1 }).await.unwrap()
}

/// Tensors that tell which run they are from.
fn new_version(run: &str) -> PublishModel {
    let mark = run.bytes().map(f32::from).sum::<f32>();
    let shape =
        |name: &str, shape: &[usize]| TensorShape { name: name.into(), shape: shape.into() };
    let description = NewVersion {
        model: "m".into(),
        architecture: ModelDescription {
            kind: "toy".into(),
            settings: serde_json::json!({ "features": 2, "rate": 0.1, "layers": [1, 2] }),
        },
        tensors: vec![shape("w", &[2, 2]), shape("b", &[2])],
        features: 2,
        outputs: 2,
        classes: Some(2),
        scaling: Scaling::Standard { mean: vec![0.1, 0.2], deviation: vec![1.0, 3.3] },
        job: serde_json::json!({ "seed": u64::MAX, "data": null }),
        job_digest: "job".into(),
        data_digest: "data".into(),
        run: run.into(),
        digest: format!("state of {run}"),
        steps: 10,
        epochs: 1,
        metrics: BTreeMap::from([("test_accuracy".into(), 0.1 + 0.2)]),
        created_unix_ms: 1_700_000_000_000,
        signature: None,
        made_of: Vec::new(),
        parent: None,
    };
    let tensors = vec![vec![mark, 1.0, -0.0, 1e-40].into(), vec![mark, 0.5].into()];
    PublishModel { description, tensors, file: None }
}
