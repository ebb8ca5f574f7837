//! `node keys`: keys of those who may ask the service.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, bail};
use gradmesh::config::Config;
use gradmesh::service::{KeyEntry, Keys};
use serde::Serialize;
use tracing::info;

use crate::answer;
use crate::args::KeysCommand;

/// Random bytes of a key.
const KEY_BYTES: usize = 32;

#[derive(Serialize)]
struct KeysFile<'a> {
    keys: [&'a KeyEntry; 1],
}

pub(crate) fn keys(config: &Config, command: KeysCommand, json: bool) -> anyhow::Result<ExitCode> {
    let KeysCommand::Add { name, models, requests, registry_writes, model_control } = command;
    let Some(path) = &config.service.keys else {
        bail!("no file holds the keys; set service.keys to one, such as \"keys.toml\"");
    };
    let path = config.path(path);
    let key = new_key()?;
    let blake3 = blake3::hash(key.as_bytes()).to_hex().to_string();
    let models = if models.is_empty() { vec!["*".to_owned()] } else { models };
    let entry = KeyEntry { name, blake3, models, requests, registry_writes, model_control };
    let text = toml::to_string(&KeysFile { keys: [&entry] })?;
    let named = || path.display().to_string();
    let mut file = open(&path).with_context(named)?;
    // Nobody else adds one meanwhile: taking this one out again could take theirs.
    file.lock().with_context(named)?;
    let before = file.metadata().with_context(named)?.len();
    // One write: a service that reads meanwhile finds all of it or nothing.
    file.write_all(format!("\n{text}").as_bytes()).with_context(named)?;
    file.sync_all().with_context(named)?;
    // What the service would say of the file; the entry goes again where it would refuse it.
    if let Err(error) = Keys::read(&path) {
        file.set_len(before).with_context(named)?;
        return Err(error.into());
    }
    info!(name = entry.name, path = %path.display(), "key added; it is shown this once");
    if json {
        answer::line(serde_json::json!({ "name": entry.name, "key": key }))?;
    } else {
        answer::line(key)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// `gm-` and 256 random bits in hexadecimal.
fn new_key() -> anyhow::Result<String> {
    let mut bytes = [0; KEY_BYTES];
    getrandom::fill(&mut bytes).context("the system gives no random bytes")?;
    let mut key = "gm-".to_owned();
    for byte in bytes {
        write!(key, "{byte:02x}")?;
    }
    Ok(key)
}

/// To write behind what there is. Only its owner may read a new one.
fn open(path: &Path) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    options.create(true).append(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}
