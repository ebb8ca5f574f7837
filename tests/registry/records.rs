//! What people write into the registry, and how long versions are kept.

use std::num::NonZeroUsize;

use actix::{Actor, Addr};
use gradmesh::store::{RegistryStore, open_store};
use gradmesh_actors::catalog::{Edit, Search, VersionRecord};
use gradmesh_actors::messages::{
    ChangeError, EditRegistry, Edited, ReadRecords, RecordsOf, SetAlias,
};
use gradmesh_actors::model_registry::ModelRegistry;
use gradmesh_actors::notes::Notes;
use tokio::sync::watch;

use crate::{entry, find, fresh, open, publish};

async fn edit(registry: &Addr<ModelRegistry>, edit: Edit) -> Result<Edited, ChangeError> {
    registry.send(EditRegistry { edit, at_unix_ms: 1 }).await.unwrap()
}

fn tag(version: Option<u64>, value: Option<&str>) -> Edit {
    let value = value.map(str::to_owned);
    Edit::Tag { model: "m".into(), version, key: "team".into(), value }
}

async fn versions(registry: &Addr<ModelRegistry>, filter: &str) -> Vec<VersionRecord> {
    let search = Search {
        filter: filter.into(),
        order: vec!["version_number ASC".into()],
        max: 100,
        from: 0,
    };
    let read = ReadRecords { of: RecordsOf::Versions(search) };
    registry.send(read).await.unwrap().unwrap().versions
}

#[actix_rt::test]
async fn what_people_write_is_there_after_a_restart_and_said_twice_it_is_one_entry() {
    let (folder, registry) = fresh();
    publish(&registry, "a").await.unwrap();
    for _ in 0..2 {
        edit(&registry, tag(Some(1), Some("vision"))).await.unwrap();
    }
    assert!(entry(folder.path(), 2).exists() && !entry(folder.path(), 3).exists());
    let restarted = open(folder.path());
    let found = versions(&restarted, "tags.team = 'vision'").await;
    assert_eq!(found.iter().map(|found| found.version).collect::<Vec<_>>(), [1]);
    edit(&restarted, tag(Some(1), None)).await.unwrap();
    // The first registry sees it at its next look, which a change begins with.
    edit(&registry, tag(None, Some("other"))).await.unwrap();
    assert_eq!(versions(&registry, "tags.team = 'vision'").await, []);
}

#[actix_rt::test]
async fn a_request_that_is_repeated_links_one_version() {
    let (_folder, registry) = fresh();
    publish(&registry, "a").await.unwrap();
    let link = |key: &str| Edit::LinkVersion {
        model: "m".into(),
        key: key.into(),
        place: "s3://bucket/m".into(),
        run: None,
        notes: Notes::default(),
    };
    for _ in 0..2 {
        let linked = edit(&registry, link("first")).await;
        assert_eq!(linked, Ok(Edited { version: Some(2) }));
    }
    assert_eq!(edit(&registry, link("second")).await, Ok(Edited { version: Some(3) }));
    assert_eq!(publish(&registry, "b").await.unwrap().version, 4);
    assert_eq!(find(&registry, "latest").await.unwrap().version, 4);
    assert_eq!(versions(&registry, "source_path LIKE 's3://%'").await.len(), 2);
}

#[actix_rt::test]
async fn a_deleted_model_leaves_no_files_and_its_next_version_another_number() {
    let (folder, registry) = fresh();
    publish(&registry, "a").await.unwrap();
    publish(&registry, "b").await.unwrap();
    // Of a publication whose process was killed.
    std::fs::write(folder.path().join("models/m/1/model-5a.safetensors#1"), "half").unwrap();
    edit(&registry, Edit::DeleteModel { model: "m".into() }).await.unwrap();
    for version in ["1", "2"] {
        assert!(!folder.path().join("models/m").join(version).exists(), "{version}");
    }
    assert!(find(&registry, "latest").await.is_err());
    assert_eq!(publish(&registry, "c").await.unwrap().version, 3);
    assert_eq!(find(&open(folder.path()), "latest").await.unwrap().run, "c");
}

#[actix_rt::test]
async fn a_folder_with_the_name_of_the_next_entry_is_told_and_uses_up_no_version() {
    let (folder, registry) = fresh();
    publish(&registry, "a").await.unwrap();
    let next = folder.path().join("log/00000000000000000002.json");
    std::fs::create_dir(&next).unwrap();
    let refused = publish(&registry, "b").await.unwrap_err().to_string();
    assert!(refused.contains("something that is no file has its name"), "{refused}");
    std::fs::remove_dir(&next).unwrap();
    assert_eq!(publish(&registry, "b").await.unwrap().version, 2);
}

#[actix_rt::test]
async fn old_versions_go_when_a_new_one_comes_but_none_that_has_a_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let store = open_store(&path.display().to_string(), path).unwrap();
    let link = RegistryStore::link(&RegistryStore::new(store).start());
    let keep = NonZeroUsize::new(2);
    let registry = ModelRegistry::keeping(keep, link, watch::Sender::default()).start();
    for run in ["a", "b"] {
        publish(&registry, run).await.unwrap();
    }
    let (model, alias) = ("m".into(), "production".into());
    let version = "1".parse().unwrap();
    registry.send(SetAlias { model, alias, version }).await.unwrap().unwrap();
    for run in ["c", "d", "e"] {
        publish(&registry, run).await.unwrap();
    }
    let kept: Vec<_> = versions(&registry, "").await.iter().map(|found| found.version).collect();
    assert_eq!(kept, [1, 4, 5]);
    for version in 1..=5u64 {
        let file = path.join(format!("models/m/{version}/model.safetensors"));
        assert_eq!(file.exists(), kept.contains(&version), "{version}");
    }
}
