//! The log is a chain: what was changed in it is noticed.

use super::*;

/// A registry over three versions, and the folder.
async fn three() -> (TempDir, Addr<ModelRegistry>) {
    let (folder, registry) = fresh();
    for run in ["a", "b", "c"] {
        publish(&registry, run).await.unwrap();
    }
    (folder, registry)
}

fn change(folder: &Path, number: u64, from: &str, to: &str) {
    let path = entry(folder, number);
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{text}");
    fs::write(path, text.replace(from, to)).unwrap();
}

/// Seals an entry again, as somebody would who knows how.
fn seal(folder: &Path, number: u64) {
    let path = entry(folder, number);
    let mut sealed: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    // The order of the fields is the one in which they are sealed.
    let value = &sealed["value"];
    let entry: gradmesh_actors::catalog::LogEntry =
        serde_json::from_value(value["entry"].clone()).unwrap();
    let text = format!(
        "{{\"format\":2,\"previous\":{},\"entry\":{}}}",
        value["previous"],
        serde_json::to_string(&entry).unwrap()
    );
    sealed["blake3"] = blake3::hash(text.as_bytes()).to_hex().to_string().into();
    fs::write(path, sealed.to_string()).unwrap();
}

async fn read(folder: &Path) -> String {
    match find(&open(folder), "latest").await {
        Ok(found) => format!("latest is version {}", found.version),
        Err(error) => error.to_string(),
    }
}

#[actix_rt::test]
async fn an_entry_of_which_a_byte_was_changed_breaks_its_seal() {
    let (folder, _registry) = three().await;
    change(folder.path(), 2, "state of b", "state of B");
    let text = read(folder.path()).await;
    assert!(text.starts_with("log entry log/00000000000000000002.json can't be read"), "{text}");
    assert!(text.contains("its seal says"), "{text}");
}

#[actix_rt::test]
async fn an_entry_that_was_changed_and_sealed_again_breaks_the_chain() {
    let (folder, _registry) = three().await;
    seal(folder.path(), 2);
    assert_eq!(read(folder.path()).await, "latest is version 3");
    change(folder.path(), 2, "state of b", "state of B");
    seal(folder.path(), 2);
    let text = read(folder.path()).await;
    assert!(text.starts_with("log entry 3 follows one with seal"), "{text}");
}

#[actix_rt::test]
async fn entries_that_were_exchanged_break_the_chain() {
    let (folder, _registry) = three().await;
    fs::copy(entry(folder.path(), 1), entry(folder.path(), 2)).unwrap();
    let text = read(folder.path()).await;
    assert!(text.starts_with("log entry 2 follows one with seal none"), "{text}");
}

/// Nothing follows the newest entry, so the chain can't tell. A registry that has read it can.
#[actix_rt::test]
async fn a_registry_that_has_read_the_newest_entry_notices_that_it_is_gone() {
    let (folder, registry) = three().await;
    let newest = entry(folder.path(), 3);
    let good = fs::read(&newest).unwrap();
    fs::remove_file(&newest).unwrap();
    assert_eq!(read(folder.path()).await, "latest is version 2");
    let refused = publish(&registry, "d").await.unwrap_err().to_string();
    assert!(refused.starts_with("log entry log/00000000000000000003.json is missing"), "{refused}");
    // It answers from what it has read.
    assert_eq!(find(&registry, "latest").await.unwrap().version, 3);

    publish(&open(folder.path()), "e").await.unwrap();
    let refused = publish(&registry, "d").await.unwrap_err().to_string();
    assert!(refused.starts_with("log entry 3 was replaced: its seal was"), "{refused}");

    // The folder of version 4 is the one of "e", whose entry is gone.
    fs::write(&newest, good).unwrap();
    assert_eq!(publish(&registry, "d").await.unwrap().version, 5);
}

/// And nobody's number is given again, where nobody is left who has read it.
#[actix_rt::test]
async fn the_number_of_a_version_whose_entry_is_gone_is_not_given_to_another_run() {
    let (folder, _registry) = three().await;
    fs::remove_file(entry(folder.path(), 3)).unwrap();
    let restarted = open(folder.path());
    assert_eq!(publish(&restarted, "d").await.unwrap().version, 4);
    assert_eq!(publish(&restarted, "c").await.unwrap().version, 5);
}

#[actix_rt::test]
async fn a_log_without_seals_is_refused_with_its_format() {
    let (folder, _registry) = three().await;
    let text = fs::read(entry(folder.path(), 1)).unwrap();
    let sealed: serde_json::Value = serde_json::from_slice(&text).unwrap();
    let old = serde_json::json!({ "format": 1, "entry": sealed["value"]["entry"] });
    fs::write(entry(folder.path(), 1), old.to_string()).unwrap();
    let text = read(folder.path()).await;
    assert!(text.contains("its format is 1, this build reads 2; start with another"), "{text}");
}
