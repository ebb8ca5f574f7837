//! Folders of commands that start clusters of their own.

use std::path::{Path, PathBuf};

use anyhow::Context;
use gradmesh::node::{NodeContext, OperatingSystem};
use tracing::warn;

/// A new folder among the temporary ones.
pub(crate) fn make(command: &str) -> anyhow::Result<PathBuf> {
    // A number of a process comes again, a time does not.
    let (process, time) = (OperatingSystem.entropy(), OperatingSystem.unix_time().as_micros());
    let folder = std::env::temp_dir().join(format!("gradmesh-{command}-{process}-{time}"));
    std::fs::create_dir(&folder)
        .with_context(|| format!("folder {} can't be made; set TMPDIR", folder.display()))?;
    Ok(folder)
}

pub(crate) fn discard(folder: &Path) {
    if let Err(error) = std::fs::remove_dir_all(folder) {
        warn!(folder = %folder.display(), %error, "temporary folder not removed");
    }
}
