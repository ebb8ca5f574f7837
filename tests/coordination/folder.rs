//! The log in a real folder.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Addr};
use gradmesh::store::coordination::{CoordinationStore, ENTRIES_KEPT};
use gradmesh::store::open_store;
use gradmesh_actors::messages::coordination::{Appended, CoordinationError};
use tempfile::TempDir;
use tokio::sync::Notify;

use crate::conformance::conforms;
use crate::faulty::{Fault, Faulty};
use crate::support::{Place, append, beat, entry, observe, renew, won};

pub(crate) struct Folder(TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn path(&self, relative: &str) -> PathBuf {
        self.0.path().join("log").join(relative)
    }

    fn entry_path(&self, view: u64) -> PathBuf {
        self.path(&format!("views/{view:020}.json"))
    }

    fn faulty(&self) -> (Faulty, Addr<CoordinationStore>) {
        let faulty = Faulty::new(open_store("log", self.0.path()).unwrap().objects);
        let store = CoordinationStore::in_folder(Arc::new(faulty.clone()), "log");
        (faulty, store.start())
    }
}

impl Place for Folder {
    fn open(&self) -> Addr<CoordinationStore> {
        let open = |path: &str| open_store(path, self.0.path());
        CoordinationStore::open("log", Duration::from_secs(5), open).unwrap().start()
    }

    fn entry_name(&self, view: u64) -> String {
        let log = fs::canonicalize(self.path("")).unwrap();
        format!("views/{view:020}.json in coordination.store {} is damaged", log.display())
    }

    async fn overwrite(&self, view: u64, bytes: &[u8]) {
        fs::write(self.entry_path(view), bytes).unwrap();
    }

    async fn overwrite_beat(&self, bytes: &[u8]) {
        fs::write(self.path("beat.json"), bytes).unwrap();
    }

    async fn views(&self) -> Vec<u64> {
        let name = |path: PathBuf| path.file_stem()?.to_str()?.parse().ok();
        let files = fs::read_dir(self.path("views")).unwrap();
        let mut views: Vec<u64> = files.filter_map(|file| name(file.unwrap().path())).collect();
        views.sort_unstable();
        views
    }
}

conforms!(Folder::new());

/// An entry is read once, and again where its file is another one.
#[actix_rt::test]
async fn another_file_in_the_place_of_an_entry_is_read() {
    let (folder, other) = (Folder::new(), Folder::new());
    let store = folder.open();
    won(&store, 1, 1, "a").await;
    won(&other.open(), 1, 1, "another leader").await;
    for _ in 0..2 {
        assert_eq!(observe(&store).await.unwrap().newest, Some(entry(1, 1, "a")));
    }
    fs::copy(other.entry_path(1), folder.entry_path(1)).unwrap();
    assert_eq!(observe(&store).await.unwrap().newest, Some(entry(1, 1, "another leader")));
    let superseded = renew(&store, beat(1, "a", 1)).await.unwrap_err();
    assert!(matches!(superseded, CoordinationError::Superseded { .. }), "{superseded}");
    fs::remove_file(folder.entry_path(1)).unwrap();
    assert_eq!(observe(&store).await.unwrap().newest, None);
    won(&store, 1, 1, "b").await;
}

#[actix_rt::test]
async fn a_full_disk_says_what_to_free_and_nothing_is_taken() {
    let folder = Folder::new();
    let (faulty, store) = folder.faulty();
    for (kind, way_out) in [
        (ErrorKind::StorageFull, "; free space in coordination.store"),
        (ErrorKind::ReadOnlyFilesystem, "or change coordination.store"),
        (ErrorKind::PermissionDenied, "or change coordination.store"),
    ] {
        faulty.fail_next_put(Fault::Before(kind));
        let refused = append(&store, entry(1, 1, "a")).await.unwrap_err();
        assert!(matches!(refused, CoordinationError::Store { .. }), "{refused}");
        assert!(refused.to_string().ends_with(way_out), "{refused}");
        assert!(refused.may_pass());
        faulty.fail_next_put(Fault::Before(kind));
        let refused = renew(&store, beat(1, "a", 1)).await.unwrap_err();
        assert!(refused.to_string().ends_with(way_out), "{refused}");
    }
    won(&store, 1, 1, "b").await;
}

#[actix_rt::test]
async fn an_append_of_unknown_outcome_says_so_and_wins_when_it_is_asked_for_again() {
    let folder = Folder::new();
    let (faulty, store) = folder.faulty();
    faulty.fail_next_put(Fault::After(ErrorKind::Other));
    let unknown = append(&store, entry(1, 1, "a")).await.unwrap_err();
    assert!(matches!(unknown, CoordinationError::NoAnswer { .. }), "{unknown}");
    assert!(unknown.may_pass());
    assert_eq!(
        append(&folder.open(), entry(1, 1, "b")).await,
        Ok(Appended::Taken(entry(1, 1, "a")))
    );
    // What may not be synced is written once more before it counts.
    faulty.fail_next_put(Fault::Before(ErrorKind::StorageFull));
    let unsynced = append(&store, entry(1, 1, "a")).await.unwrap_err();
    assert!(matches!(unsynced, CoordinationError::NoAnswer { .. }), "{unsynced}");
    won(&store, 1, 1, "a").await;
}

/// Its look at the log was before all the others; its write comes when its number is free again.
#[actix_rt::test]
async fn a_zombie_whose_number_was_removed_meanwhile_has_not_won_it() {
    let folder = Folder::new();
    let (faulty, zombie) = folder.faulty();
    won(&zombie, 1, 1, "z").await;
    let (reached, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    faulty.fail_next_put(Fault::Held { reached: Arc::clone(&reached), go: Arc::clone(&go) });
    let held = tokio::task::spawn_local(async move { append(&zombie, entry(2, 1, "z")).await });
    reached.notified().await;
    let others = folder.open();
    let last = ENTRIES_KEPT + 10;
    for view in 2..=last {
        won(&others, view, 2, "a").await;
    }
    assert!(!folder.entry_path(2).exists());
    go.notify_one();
    assert_eq!(held.await.unwrap(), Ok(Appended::Taken(entry(last, 2, "a"))));
    assert_eq!(observe(&others).await.unwrap().newest, Some(entry(last, 2, "a")));
    won(&others, last + 1, 2, "a").await;
    assert!(!folder.entry_path(2).exists());
}

/// A crash leaves the file that was being written, under a name that is no entry's.
#[actix_rt::test]
async fn what_a_crash_left_half_written_is_no_entry() {
    let folder = Folder::new();
    let store = folder.open();
    won(&store, 1, 1, "a").await;
    let half = PathBuf::from(format!("{}#1", folder.entry_path(2).display()));
    fs::write(&half, b"{\"blake3\"").unwrap();
    fs::write(folder.path("views/3.json"), b"{").unwrap();
    fs::write(folder.path("views/notes.txt"), b"what people leave").unwrap();
    assert_eq!(observe(&store).await.unwrap().newest, Some(entry(1, 1, "a")));
    won(&store, 2, 1, "a").await;
    assert_eq!(observe(&store).await.unwrap().newest, Some(entry(2, 1, "a")));
}

#[actix_rt::test]
async fn a_damaged_entry_that_was_deleted_gives_way_to_the_one_before() {
    let folder = Folder::new();
    let store = folder.open();
    won(&store, 1, 1, "a").await;
    won(&store, 2, 2, "b").await;
    folder.overwrite(2, b"{").await;
    observe(&store).await.unwrap_err();
    fs::remove_file(folder.entry_path(2)).unwrap();
    assert_eq!(observe(&store).await.unwrap().newest, Some(entry(1, 1, "a")));
    won(&store, 2, 2, "c").await;
}

#[actix_rt::test]
async fn something_else_in_the_place_of_a_file_or_folder_is_an_error_with_a_way_out() {
    let folder = Folder::new();
    let store = folder.open();
    fs::write(folder.path("views"), b"a file").unwrap();
    let refused = append(&store, entry(1, 1, "a")).await.unwrap_err();
    assert!(refused.to_string().contains("can't be used"), "{refused}");
    fs::remove_file(folder.path("views")).unwrap();
    won(&store, 1, 1, "a").await;
    fs::create_dir_all(folder.path("beat.json/inner")).unwrap();
    let refused = renew(&store, beat(1, "a", 1)).await.unwrap_err();
    assert!(refused.to_string().contains("can't be used"), "{refused}");
    fs::create_dir_all(folder.entry_path(2)).unwrap();
    let refused = append(&store, entry(2, 1, "a")).await.unwrap_err();
    assert!(refused.to_string().contains(&folder.entry_name(2)), "{refused}");
}

#[actix_rt::test]
async fn a_number_that_nothing_can_follow_is_damage() {
    let folder = Folder::new();
    let store = folder.open();
    won(&store, 1, 1, "a").await;
    folder.overwrite(u64::MAX, b"{}").await;
    assert!(matches!(observe(&store).await, Err(CoordinationError::Damaged { .. })));
    let refused = append(&store, entry(2, 1, "a")).await.unwrap_err();
    assert!(matches!(refused, CoordinationError::Damaged { .. }), "{refused}");
}

#[actix_rt::test]
async fn a_folder_that_is_none_and_etcd_without_its_feature_are_refused_when_opened() {
    let folder = Folder::new();
    fs::write(folder.0.path().join("log"), b"a file").unwrap();
    let open = |place: &str| {
        let base: &Path = folder.0.path();
        CoordinationStore::open(place, Duration::from_secs(1), |path| open_store(path, base))
    };
    let refused = open("log").unwrap_err().to_string();
    assert!(refused.contains("log can't be made"), "{refused}");
    let etcd = open("etcd://127.0.0.1:2379/gradmesh").map(drop);
    if cfg!(feature = "etcd") {
        etcd.unwrap();
    } else {
        assert!(etcd.unwrap_err().to_string().contains("cargo's feature etcd"));
    }
}
