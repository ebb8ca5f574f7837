//! Checkpoints on a real folder: whatever is torn, flipped or missing, one that is whole is used.

#![allow(clippy::single_range_in_vec_init, reason = "one shard is a cut too")]
#![allow(clippy::unwrap_used, reason = "the helpers of a test fail with it")]

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use actix::{Actor, Addr};
use gradmesh::config::Config;
use gradmesh::store::{CheckpointStore, open_store};
use gradmesh_actors::checkpoint::{
    Finished, Manifest, PartContent, Published, SavedPart, residual_name,
};
use gradmesh_actors::dataset::{DatasetShape, Scaling};
use gradmesh_actors::ids::{Slot, Version};
use gradmesh_actors::layout::{Init, TensorSpec};
use gradmesh_actors::ledger::Ledger;
use gradmesh_actors::messages::checkpoint_store::{
    CheckpointError, CommitCheckpoint, ConcludeRun, FindCheckpoint, FoundCheckpoint, LoadRange,
    LoadResiduals, LoadState, OpenCheckpoints, Opened, SavePart,
};
use gradmesh_actors::model::ModelDescription;
use gradmesh_actors::plan::JobOffer;
use tempfile::TempDir;

const LEN: usize = 600;

/// A store on a folder of its own; what the folder is called goes into messages.
struct Stored {
    folder: TempDir,
    store: Addr<CheckpointStore>,
}

impl Stored {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let store = open(folder.path());
        Self { folder, store }
    }

    /// Saves and commits a checkpoint of these cuts, with the residuals of two slots.
    async fn commit(&self, version: u64, cuts: &[Range<usize>]) -> Manifest {
        let mut parts = Vec::new();
        for cut in cuts {
            parts.push(self.save(version, cut.clone()).await);
        }
        let residual = |slot| (residual_name(Slot(slot)), Arc::new(vec![slot as f32; LEN]));
        let residuals = SavePart {
            version: Version(version),
            content: PartContent::Residuals { slots: vec![Slot(0), Slot(1)] },
            tensors: vec![residual(0), residual(1)],
        };
        parts.push(self.store.send(residuals).await.unwrap().unwrap());
        let manifest = manifest(version, parts);
        let commit = CommitCheckpoint { manifest: manifest.clone() };
        self.store.send(commit).await.unwrap().unwrap();
        manifest
    }

    async fn save(&self, version: u64, cut: Range<usize>) -> SavedPart {
        let values = |scale: f32| {
            Arc::new(cut.clone().map(|i| i as f32 * scale + version as f32).collect::<Vec<_>>())
        };
        let part = SavePart {
            version: Version(version),
            content: PartContent::Parameters { start: cut.start, end: cut.end },
            tensors: vec![
                ("parameters".to_owned(), values(1.0)),
                ("momentum".to_owned(), values(0.5)),
            ],
        };
        self.store.send(part).await.unwrap().unwrap()
    }

    async fn open(&self) -> Result<Option<Version>, CheckpointError> {
        Ok(self.newest(&[]).await?.map(|manifest| manifest.version))
    }

    /// The newest whole checkpoint that is none of these.
    async fn newest(&self, not: &[u64]) -> Result<Option<Manifest>, CheckpointError> {
        let not = not.iter().copied().map(Version).collect();
        let wanted = OpenCheckpoints { not, ..wanted() };
        let Opened { manifest, .. } = self.store.send(wanted).await.unwrap()?;
        Ok(manifest)
    }

    /// Finishes a run of the job on this data.
    async fn conclude(&self, data: &str) -> Finished {
        let finished = Finished {
            run: "run".into(),
            job_digest: job_digest(),
            data_digest: data.into(),
            last_version: Version(12),
            ledger: Ledger::default(),
            published: Published { model: "m".into(), version: 3, digest: "d".into() },
        };
        let conclude = ConcludeRun { finished: finished.clone() };
        self.store.send(conclude).await.unwrap().unwrap();
        finished
    }

    /// The run that the store says has finished.
    async fn finished(&self) -> Option<Finished> {
        self.store.send(wanted()).await.unwrap().unwrap().finished
    }

    fn path(&self, relative: &str) -> PathBuf {
        self.folder.path().join("checkpoints").join(relative)
    }

    /// Folders of versions that hold a manifest, and all folders.
    fn folders(&self) -> (usize, usize) {
        let folders: Vec<PathBuf> = fs::read_dir(self.path(""))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.is_dir() && fs::read_dir(path).unwrap().next().is_some())
            .collect();
        let whole = folders.iter().filter(|folder| folder.join("manifest.json").exists());
        (whole.count(), folders.len())
    }
}

fn open(folder: &Path) -> Addr<CheckpointStore> {
    CheckpointStore::new(open_store("checkpoints", folder).unwrap(), "checkpoints", 2).start()
}

fn offer() -> JobOffer {
    let text = "job.data.format = 'csv'\njob.data.train = 'rows.csv'\njob.optimizer.kind = 'momentum'\njob.gradient.codec = 'top-k'\njob.virtual_workers = 2\n";
    JobOffer {
        job: Config::from_toml(text, Path::new(".")).unwrap().job,
        data: DatasetShape {
            train_rows: 100,
            test_rows: 0,
            features: LEN - 1,
            classes: None,
            target_width: 1,
            digest: "data".into(),
        },
        scaling: Scaling::None,
        architecture: ModelDescription { kind: "linear".into(), settings: serde_json::Value::Null },
        tensors: vec![TensorSpec::new("w", vec![LEN], Init::Zeros)],
        outputs: 1,
    }
}

fn wanted() -> OpenCheckpoints {
    let not = Default::default();
    OpenCheckpoints { job_digest: job_digest(), data_digest: "data".into(), not }
}

fn job_digest() -> String {
    offer().job.digest()
}

fn manifest(version: u64, parts: Vec<SavedPart>) -> Manifest {
    Manifest {
        version: Version(version),
        run: "run".into(),
        job_digest: job_digest(),
        offer: offer(),
        parts,
        ledger: Ledger { rows: 7, ..Ledger::default() },
    }
}

const HALVES: [Range<usize>; 2] = [0..256, 256..600];

#[actix_rt::test]
async fn another_cut_of_shards_reads_the_same_values() {
    let stored = Stored::new();
    stored.commit(4, &HALVES).await;
    for range in [0..600, 0..256, 100..300, 512..600] {
        let load =
            LoadRange { version: Version(4), range: range.clone(), state: vec!["momentum".into()] };
        let loaded = stored.store.send(load).await.unwrap().unwrap();
        let expected: Vec<f32> = range.clone().map(|i| i as f32 + 4.0).collect();
        assert_eq!(loaded.parameters, expected);
        let momentum: Vec<f32> = range.map(|i| i as f32 * 0.5 + 4.0).collect();
        assert_eq!(loaded.state, [momentum]);
        assert_eq!(loaded.manifest.ledger.rows, 7);
    }
}

#[actix_rt::test]
async fn the_whole_state_does_not_depend_on_the_cut() {
    let (one, two) = (Stored::new(), Stored::new());
    one.commit(4, &[0..600]).await;
    two.commit(4, &HALVES).await;
    let load = LoadState { version: Version(4) };
    let one = one.store.send(load.clone()).await.unwrap().unwrap();
    let two = two.store.send(load).await.unwrap().unwrap();
    assert_eq!(one.residuals.len(), 2);
    assert_eq!(one, two);
    assert_eq!(one.digest(), two.digest());
}

#[actix_rt::test]
async fn a_checkpoint_with_any_damaged_file_is_passed_over_for_the_one_before() {
    let damages: [fn(&Path); 3] = [
        |file| {
            let mut bytes = fs::read(file).unwrap();
            let last = bytes.len() - 1;
            bytes[last] ^= 1;
            fs::write(file, bytes).unwrap();
        },
        |file| {
            let bytes = fs::read(file).unwrap();
            fs::write(file, &bytes[..bytes.len() / 2]).unwrap();
        },
        |file| fs::remove_file(file).unwrap(),
    ];
    for damage in damages {
        for file in ["parameters-256-600.safetensors", "residuals-0-1.safetensors", "manifest.json"]
        {
            let stored = Stored::new();
            stored.commit(4, &HALVES).await;
            stored.commit(8, &HALVES).await;
            assert_eq!(stored.open().await, Ok(Some(Version(8))));
            damage(&stored.path(&format!("v00000000000000000008/{file}")));
            assert_eq!(stored.open().await, Ok(Some(Version(4))), "{file}");
        }
    }
}

/// As with too many open files: who went back to the one before would lose work that is there.
#[cfg(unix)]
#[actix_rt::test]
async fn a_manifest_that_can_not_be_looked_for_is_an_error_and_not_one_that_is_not_there() {
    let stored = Stored::new();
    stored.commit(4, &HALVES).await;
    stored.commit(8, &HALVES).await;
    let manifest = stored.path("v00000000000000000008/manifest.json");
    fs::remove_file(&manifest).unwrap();
    std::os::unix::fs::symlink(&manifest, &manifest).unwrap();
    assert!(matches!(stored.open().await, Err(CheckpointError::Store(_))));
    fs::remove_file(&manifest).unwrap();
    assert_eq!(stored.open().await, Ok(Some(Version(4))));
}

#[actix_rt::test]
async fn parts_without_a_manifest_are_no_checkpoint() {
    let stored = Stored::new();
    stored.save(4, 0..600).await;
    assert_eq!(stored.open().await, Ok(None));
}

#[actix_rt::test]
async fn a_checkpoint_of_another_job_or_of_other_data_is_refused_with_the_way_out() {
    let stored = Stored::new();
    stored.commit(4, &HALVES).await;
    for (job_digest, data_digest) in [("other".into(), "data"), (job_digest(), "other")] {
        let wanted = OpenCheckpoints { job_digest, data_digest: data_digest.into(), ..wanted() };
        let refused = stored.store.send(wanted).await.unwrap().unwrap_err();
        assert!(matches!(refused, CheckpointError::OtherJob { .. }), "{refused:?}");
        assert!(refused.to_string().ends_with("drop it with --fresh"), "{refused}");
    }
}

#[actix_rt::test]
async fn the_oldest_checkpoints_make_room_and_keep_no_files() {
    let stored = Stored::new();
    for version in [4, 8, 12] {
        stored.commit(version, &HALVES).await;
    }
    assert_eq!(stored.folders(), (2, 2));
    assert_eq!(stored.open().await, Ok(Some(Version(12))));
    let gone = LoadState { version: Version(4) };
    assert!(stored.store.send(gone).await.unwrap().is_err());
}

/// Version 12 is damaged, training went back to 4 and comes to 8 again: 4 and 8 are what counts.
#[actix_rt::test]
async fn a_damaged_newer_checkpoint_takes_no_place_of_a_whole_one() {
    let stored = Stored::new();
    stored.commit(4, &HALVES).await;
    stored.commit(12, &HALVES).await;
    fs::remove_file(stored.path("v00000000000000000012/residuals-0-1.safetensors")).unwrap();
    stored.commit(8, &HALVES).await;
    fs::remove_file(stored.path("v00000000000000000008/residuals-0-1.safetensors")).unwrap();
    assert_eq!(stored.open().await, Ok(Some(Version(4))));
}

#[actix_rt::test]
async fn concluding_a_run_removes_whole_and_unfinished_checkpoints() {
    let stored = Stored::new();
    stored.commit(4, &HALVES).await;
    stored.save(8, 0..600).await;
    stored.conclude("data").await;
    assert_eq!(stored.folders(), (0, 0));
    assert_eq!(stored.open().await, Ok(None));
}

/// A folder's store lists no file whose write was cut off, and each is as large as a shard.
#[actix_rt::test]
async fn what_killed_writes_have_left_goes_with_the_checkpoints_that_make_room() {
    let stored = Stored::new();
    let cut_off = |version: u64| {
        let folder = stored.path(&format!("v{version:020}"));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("parameters-0-600.safetensors#1"), "half of it").unwrap();
    };
    stored.save(2, 0..600).await;
    cut_off(3);
    cut_off(4);
    stored.commit(4, &HALVES).await;
    assert_eq!(stored.folders(), (1, 3), "two whole ones are kept before anything is too old");
    stored.commit(8, &HALVES).await;
    assert_eq!(stored.folders(), (2, 2));
    cut_off(10);
    stored.commit(12, &HALVES).await;
    assert_eq!(stored.folders(), (2, 3), "what may still become whole stays");
    let others = stored.path("v1");
    fs::create_dir(&others).unwrap();
    fs::write(others.join("notes"), "no checkpoint").unwrap();
    stored.conclude("data").await;
    assert_eq!(stored.folders(), (0, 1), "a folder with another name is not the store's");
}

#[actix_rt::test]
async fn concluding_a_run_leaves_the_checkpoints_of_another_one_alone() {
    let stored = Stored::new();
    stored.commit(4, &HALVES).await;
    let finished = Finished {
        run: "slept".into(),
        job_digest: job_digest(),
        data_digest: "data".into(),
        last_version: Version(12),
        ledger: Ledger::default(),
        published: Published { model: "m".into(), version: 3, digest: "d".into() },
    };
    stored.store.send(ConcludeRun { finished }).await.unwrap().unwrap();
    assert_eq!(stored.open().await, Ok(Some(Version(4))));
    assert_eq!(stored.finished().await, None);
}

#[actix_rt::test]
async fn a_residual_that_is_not_there_is_an_error() {
    let stored = Stored::new();
    stored.commit(4, &HALVES).await;
    let load = |slots: &[u32]| LoadResiduals {
        version: Version(4),
        slots: slots.iter().copied().map(Slot).collect(),
    };
    let found = stored.store.send(load(&[1])).await.unwrap().unwrap();
    assert_eq!(found, [(Slot(1), vec![1.0; LEN])]);
    let missing = stored.store.send(load(&[1, 2])).await.unwrap();
    assert!(matches!(missing, Err(CheckpointError::Missing { .. })), "{missing:?}");
}

#[actix_rt::test]
async fn a_hole_in_the_parameters_is_an_error() {
    let stored = Stored::new();
    stored.commit(4, &[0..256, 512..600]).await;
    let load = LoadRange { version: Version(4), range: 0..600, state: Vec::new() };
    let loaded = stored.store.send(load).await.unwrap();
    assert!(matches!(loaded, Err(CheckpointError::Missing { .. })), "{loaded:?}");
}

#[actix_rt::test]
async fn a_finished_run_is_remembered_until_it_is_forgotten() {
    let stored = Stored::new();
    assert_eq!(stored.finished().await, None);
    let finished = stored.conclude("data").await;
    assert_eq!(stored.finished().await, Some(finished));
    let store = open_store("checkpoints", stored.folder.path()).unwrap();
    CheckpointStore::new(store, "checkpoints", 2).forget_finished().await.unwrap();
    assert_eq!(stored.finished().await, None);
}

#[actix_rt::test]
async fn a_finished_run_on_other_data_and_a_damaged_sign_say_nothing_of_this_job() {
    let stored = Stored::new();
    stored.conclude("other data").await;
    assert_eq!(stored.finished().await, None);
    stored.conclude("data").await;
    fs::write(stored.path("finished.json"), "{").unwrap();
    assert_eq!(stored.finished().await, None);
}

/// Places in a file of this many bytes: some hundreds, first and last among them.
fn places(len: usize) -> impl Iterator<Item = usize> {
    (0..len).step_by((len / 300).max(1)).chain([len - 1])
}

#[actix_rt::test]
async fn a_changed_byte_of_a_manifest_is_passed_over_or_changes_nothing() {
    let stored = Stored::new();
    stored.commit(4, &HALVES).await;
    let written = stored.commit(8, &HALVES).await;
    let path = stored.path("v00000000000000000008/manifest.json");
    let whole = fs::read(&path).unwrap();
    let mut passed_over = 0;
    for place in places(whole.len()) {
        let mut flipped = whole.clone();
        flipped[place] ^= 1 << (place % 8);
        fs::write(&path, flipped).unwrap();
        let opened = stored.newest(&[]).await.unwrap().unwrap();
        if opened.version == Version(4) {
            passed_over += 1;
        } else {
            assert_eq!(opened, written, "byte {place}");
        }
    }
    assert!(passed_over > 100, "{passed_over}");
    fs::write(&path, whole).unwrap();
    assert_eq!(stored.newest(&[]).await, Ok(Some(written)));
}

#[actix_rt::test]
async fn a_manifest_of_another_version_or_without_all_parts_is_passed_over() {
    let stored = Stored::new();
    stored.commit(4, &HALVES).await;
    stored.commit(8, &HALVES).await;
    let manifest = |version: &str| stored.path(&format!("{version}/manifest.json"));
    let (four, eight) = (manifest("v00000000000000000004"), manifest("v00000000000000000008"));
    fs::copy(four, eight).unwrap();
    assert_eq!(stored.open().await, Ok(Some(Version(4))));
    stored.commit(8, &[0..256, 512..600]).await;
    assert_eq!(stored.open().await, Ok(Some(Version(4))));
}

#[actix_rt::test]
async fn a_checkpoint_that_could_not_be_restored_gives_way_to_the_one_before() {
    let stored = Stored::new();
    stored.commit(4, &HALVES).await;
    stored.commit(8, &HALVES).await;
    let version = |manifest: Option<Manifest>| manifest.map(|manifest| manifest.version);
    assert_eq!(version(stored.newest(&[8]).await.unwrap()), Some(Version(4)));
    assert_eq!(version(stored.newest(&[4, 8]).await.unwrap()), None);
}

#[actix_rt::test]
async fn a_changed_byte_of_the_sign_of_a_finished_run_says_nothing_or_the_same() {
    let stored = Stored::new();
    let finished = stored.conclude("data").await;
    let whole = fs::read(stored.path("finished.json")).unwrap();
    let mut ignored = 0;
    for place in 0..whole.len() {
        let mut flipped = whole.clone();
        flipped[place] ^= 1 << (place % 8);
        fs::write(stored.path("finished.json"), flipped).unwrap();
        match stored.finished().await {
            Some(read) => assert_eq!(read, finished, "byte {place}"),
            None => ignored += 1,
        }
    }
    assert!(ignored > whole.len() / 2, "{ignored} of {}", whole.len());
}

#[actix_rt::test]
async fn who_follows_finds_the_newest_checkpoint_that_counts_and_hears_when_it_knows_it() {
    let stored = Stored::new();
    let find = async |known| stored.store.send(FindCheckpoint { known }).await.unwrap().unwrap();
    assert_eq!(find(None).await, FoundCheckpoint::Nothing);
    stored.commit(4, &HALVES).await;
    let eight = stored.commit(8, &HALVES).await;
    // Without a manifest it does not count yet.
    stored.save(12, 0..600).await;
    for known in [None, Some(Version(4)), Some(Version(12))] {
        assert_eq!(find(known).await, FoundCheckpoint::Other(Box::new(eight.clone())));
    }
    assert_eq!(find(Some(Version(8))).await, FoundCheckpoint::Known);
}
