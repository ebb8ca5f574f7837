//! What the paths of the configuration name.

use gradmesh_actors::nearest::nearest;

use super::kind::Kind::Table;
use super::schema::{KEYS, Key};

/// Tables for which a string stands for the key that names their kind.
pub(super) const SHORTHANDS: &[(&str, &str)] = &[
    ("job.model", "job.model.kind"),
    ("job.data", "job.data.format"),
    ("job.optimizer", "job.optimizer.kind"),
    ("job.optimizer.schedule", "job.optimizer.schedule.kind"),
];

/// What a dotted path names.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Place {
    Key(&'static Key),
    /// A table, with the key that a string in its place means.
    Table(Option<&'static Key>),
    /// In the free table of a key.
    Setting,
    Nodes,
    Unknown,
}

pub(super) fn place(path: &str) -> Place {
    if let Some(key) = find(path) {
        return Place::Key(key);
    }
    if path == "nodes" {
        return Place::Nodes;
    }
    if is_setting(path) {
        return Place::Setting;
    }
    if tables().any(|table| table == path) {
        let shorthand = SHORTHANDS.iter().find(|(table, _)| *table == path);
        return Place::Table(shorthand.and_then(|(_, kind)| find(kind)));
    }
    Place::Unknown
}

/// Whether a path leads into a free table, by names that the merge of the sources takes as such.
fn is_setting(path: &str) -> bool {
    let is_part = |part: &str| {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        !part.is_empty() && part.chars().all(allowed)
    };
    KEYS.iter().filter(|key| key.kind == Table).any(|key| {
        let below = path.strip_prefix(key.path).and_then(|below| below.strip_prefix('.'));
        below.is_some_and(|below| below.split('.').all(is_part))
    })
}

pub(super) fn find(path: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.path == path)
}

pub(super) fn nearest_path(path: &str) -> Option<&'static str> {
    nearest(path, KEYS.iter().map(|key| key.path).chain(tables()).chain(["nodes"]))
}

/// Every table above a key, some more than once.
pub(super) fn tables() -> impl Iterator<Item = &'static str> {
    KEYS.iter().flat_map(|key| key.path.match_indices('.').map(|(at, _)| &key.path[..at]))
}
