//! Keys of callers, from the file of `service.keys`.
//!
//! ```toml
//! [[keys]]
//! name = "shop"
//! # BLAKE3 of the key, which nobody but the shop has
//! blake3 = "5b1d…"
//! # which models it may ask; "emoji-*" is all whose names begin so, and all where this is left out
//! models = ["digits", "emoji-*"]
//! # predictions at a time
//! requests = 64
//! # whether it may change the registry, and load and unload models
//! registry_writes = false
//! model_control = false
//! ```

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tracing::{info, warn};

/// Bytes of the file: some thousand keys.
const FILE_MAX: u64 = 1 << 20;

/// How often the file is looked at. What two looks in a row have shown counts, for an editor may have written
/// half of it: a key that is taken out is refused within twice so long.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Predictions at a time of a key whose entry names no number: as many as wait for a version of a model
/// by default.
const REQUESTS: usize = 512;

/// More than all queues together hold.
const REQUESTS_MAX: usize = 65_536;

/// Bytes of a name, which stands in refusals and logs.
const NAME_MAX: usize = 64;

/// One `[[keys]]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyEntry {
    /// Whose it is.
    pub name: String,
    /// Of the key, in hexadecimal.
    pub blake3: String,
    /// Names of models; one that ends with `*` is all that begin so.
    #[serde(default = "all")]
    pub models: Vec<String>,
    /// Predictions at a time, ≥ 1.
    #[serde(default = "requests")]
    pub requests: usize,
    #[serde(default)]
    pub registry_writes: bool,
    #[serde(default)]
    pub model_control: bool,
}

fn all() -> Vec<String> {
    vec!["*".to_owned()]
}

fn requests() -> usize {
    REQUESTS
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeysFile {
    #[serde(default)]
    keys: Vec<KeyEntry>,
}

/// A key, and how much of it is in use.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) entry: KeyEntry,
    /// One permit for each of its `requests`.
    pub(super) places: Arc<Semaphore>,
}

impl Key {
    pub(super) fn may_ask(&self, model: &str) -> bool {
        self.entry.models.iter().any(|pattern| match pattern.strip_suffix('*') {
            Some(begin) => model.starts_with(begin),
            None => pattern == model,
        })
    }
}

/// By the BLAKE3 of each key: whoever compares learns nothing of a key from how long that takes.
type Table = BTreeMap<[u8; 32], Arc<Key>>;

/// The keys that a service knows. Clones share them.
#[derive(Clone, Debug)]
pub struct Keys {
    path: PathBuf,
    /// What was read when the service was started.
    text: Arc<str>,
    table: Arc<RwLock<Table>>,
}

/// The file of keys can't be used.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    #[error("the keys in {path} can't be read: {source}; make the file, or change service.keys")]
    Read { path: PathBuf, source: io::Error },
    #[error("{path} is larger than {FILE_MAX} bytes; change service.keys")]
    TooLarge { path: PathBuf },
    #[error("{path} holds no keys: {cause}")]
    Form { path: PathBuf, cause: String },
    #[error("key {name:?} in {path}: {cause}")]
    Entry { path: PathBuf, name: String, cause: String },
}

impl Keys {
    /// Those of a file.
    ///
    /// # Errors
    /// It can't be read, or an entry is wrong.
    pub fn read(path: &Path) -> Result<Self, KeysError> {
        let text = text(path)?;
        let table = parse(path, &text, &Table::new())?;
        Ok(Self { path: path.to_owned(), text: text.into(), table: Arc::new(RwLock::new(table)) })
    }

    pub(super) fn find(&self, key: &str) -> Option<Arc<Key>> {
        let digest = blake3::hash(key.as_bytes());
        self.table().get(digest.as_bytes()).cloned()
    }

    /// Reads the file again whenever it has changed, for as long as it is awaited. One that can't be used
    /// changes nothing.
    pub async fn follow(self) {
        let mut known = Ok(self.text.to_string());
        let mut seen = known.clone();
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let path = self.path.clone();
            let read = actix_web::web::block(move || text(&path)).await;
            let Ok(read) = read else { return };
            let now = read.as_ref().map_err(ToString::to_string).cloned();
            let settled = std::mem::replace(&mut seen, now.clone()) == now;
            if !settled || std::mem::replace(&mut known, now.clone()) == now {
                continue;
            }
            match read.and_then(|text| self.reread(&text)) {
                Ok(keys) => info!(keys, path = %self.path.display(), "keys read again"),
                Err(error) => warn!(%error, "the keys stay what they were"),
            }
        }
    }

    /// How many there are now.
    fn reread(&self, text: &str) -> Result<usize, KeysError> {
        let table = parse(&self.path, text, &self.table())?;
        let keys = table.len();
        *self.table.write().unwrap_or_else(PoisonError::into_inner) = table;
        Ok(keys)
    }

    fn table(&self) -> std::sync::RwLockReadGuard<'_, Table> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }
}

fn text(path: &Path) -> Result<String, KeysError> {
    let failed = |source: io::Error| KeysError::Read { path: path.to_owned(), source };
    let file = std::fs::File::open(path).map_err(failed)?;
    let mut text = String::new();
    file.take(FILE_MAX + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > FILE_MAX {
        return Err(KeysError::TooLarge { path: path.to_owned() });
    }
    Ok(text)
}

/// A key that was there before keeps its places: what is under way goes on counting.
fn parse(path: &Path, text: &str, before: &Table) -> Result<Table, KeysError> {
    let file: KeysFile = toml::from_str(text).map_err(|error| {
        let (path, cause) = (path.to_owned(), error.to_string().trim_end().to_owned());
        KeysError::Form { path, cause }
    })?;
    let mut table = Table::new();
    for entry in file.keys {
        let name = entry.name.clone();
        let wrong =
            |cause: String| KeysError::Entry { path: path.to_owned(), name: name.clone(), cause };
        let digest = check(&entry).map_err(wrong)?;
        let same = before.get(&digest).filter(|old| old.entry.requests == entry.requests);
        let places = match same {
            Some(old) => old.places.clone(),
            None => Arc::new(Semaphore::new(entry.requests)),
        };
        if table.values().any(|other: &Arc<Key>| other.entry.name == entry.name) {
            return Err(wrong("two have this name".to_owned()));
        }
        if let Some(other) = table.insert(digest, Arc::new(Key { entry, places })) {
            return Err(wrong(format!("it is the key of {:?} too", other.entry.name)));
        }
    }
    Ok(table)
}

fn check(entry: &KeyEntry) -> Result<[u8; 32], String> {
    if !(1..=NAME_MAX).contains(&entry.name.len()) {
        return Err(format!("its name has {} bytes; use 1 to {NAME_MAX}", entry.name.len()));
    }
    if !(1..=REQUESTS_MAX).contains(&entry.requests) {
        return Err(format!("requests is {}; use 1 to {REQUESTS_MAX}", entry.requests));
    }
    if let Some(pattern) = entry.models.iter().find(|one| one.trim_end_matches('*').contains('*')) {
        return Err(format!("{pattern:?} has a * that is not its end"));
    }
    let digest = blake3::Hash::from_hex(&entry.blake3);
    let digest = digest.map_err(|error| format!("its blake3 is no digest: {error}"))?;
    Ok(*digest.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, key: &str, more: &str) -> String {
        let digest = blake3::hash(key.as_bytes());
        format!("[[keys]]\nname = \"{name}\"\nblake3 = \"{digest}\"\n{more}\n")
    }

    fn table(text: &str) -> Result<Table, String> {
        parse(Path::new("keys.toml"), text, &Table::new()).map_err(|error| error.to_string())
    }

    fn keys(text: &str) -> Keys {
        let table = Arc::new(RwLock::new(table(text).unwrap()));
        Keys { path: "keys.toml".into(), text: text.into(), table }
    }

    #[test]
    fn a_key_is_found_by_its_digest_and_no_other() {
        let keys = keys(&(entry("shop", "secret", "") + &entry("lab", "other", "requests = 2")));
        assert_eq!(keys.find("secret").unwrap().entry.name, "shop");
        let lab = keys.find("other").unwrap();
        assert_eq!((lab.entry.requests, lab.places.available_permits()), (2, 2));
        assert!(keys.find("Secret").is_none() && keys.find("").is_none());
        assert!(!lab.entry.registry_writes && !lab.entry.model_control && lab.may_ask("any"));
    }

    #[test]
    fn a_key_may_ask_the_models_of_its_entry() {
        let keys = keys(&entry("shop", "secret", "models = [\"digits\", \"emoji-*\"]"));
        let key = keys.find("secret").unwrap();
        for (model, may) in [
            ("digits", true),
            ("digits2", false),
            ("emoji-words", true),
            ("emoji-", true),
            ("emoji", false),
            ("*", false),
        ] {
            assert_eq!(key.may_ask(model), may, "{model}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_file_is_told_with_the_key() {
        for (text, said) in [
            ("[[key]]\n", "holds no keys"),
            ("[[keys]]\nname = \"a\"\n", "missing field `blake3`"),
            ("[[keys]]\nname = \"a\"\nblake3 = \"12\"\n", "key \"a\" in keys.toml: its blake3"),
            (&entry("", "k", ""), "its name has 0 bytes"),
            (&entry("a", "k", "requests = 0"), "requests is 0; use 1 to"),
            (&entry("a", "k", "models = [\"*-x\"]"), "\"*-x\" has a *"),
            (&entry("a", "k", "may = 1"), "unknown field `may`"),
            (&(entry("a", "k", "") + &entry("b", "k", "")), "it is the key of \"a\" too"),
            (&(entry("a", "k", "") + &entry("a", "l", "")), "two have this name"),
        ] {
            let error = table(text).unwrap_err();
            assert!(error.contains(said), "{said}: {error}");
        }
        assert!(table("").unwrap().is_empty());
    }

    #[test]
    fn a_file_that_is_no_good_changes_nothing() {
        let keys = keys(&entry("shop", "secret", ""));
        assert!(keys.reread("[[keys]]\nname = 1").is_err());
        assert!(keys.find("secret").is_some());
        assert_eq!(keys.reread(&entry("lab", "other", "")).unwrap(), 1);
        assert!(keys.find("secret").is_none() && keys.find("other").is_some());
    }

    #[test]
    fn requests_under_way_go_on_counting_when_the_file_changes() {
        let before = table(&entry("a", "k", "requests = 2")).unwrap();
        let places = before.values().next().unwrap().places.clone();
        let _one = places.try_acquire_owned().unwrap();
        let free = |text: &str| {
            let table = parse(Path::new(""), text, &before).unwrap();
            table.values().next().unwrap().places.available_permits()
        };
        assert_eq!(free(&entry("renamed", "k", "requests = 2")), 1);
        assert_eq!(free(&entry("a", "k", "requests = 3")), 3);
        assert_eq!(free(&entry("a", "another", "requests = 2")), 2);
    }
}
