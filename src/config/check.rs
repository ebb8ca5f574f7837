//! The gate: every value against its type and range, then values against each other.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use ::config::{Value, ValueKind};
use serde_json::Value as Json;

use super::error::Problem;
use super::layers::{DEFAULTS, Merged, shown};
use super::nodes::{self, Listens, NodeConfig};
use super::schema::{Fallback, KEYS, Key};
use crate::store::coordination::CoordinationPlace;

#[derive(Debug, Default)]
struct Checked<'a> {
    /// The values that passed, by path, each with its source.
    values: BTreeMap<&'static str, (Json, &'a str)>,
    /// Keys whose value did not pass: no relation says a second time that they lack one.
    refused: BTreeSet<&'static str>,
}

/// The tree that the typed configuration is read from. `file` is named where something is missing.
pub(super) fn check(merged: &Merged, file: &str) -> Result<Json, Vec<Problem>> {
    let mut problems = Vec::new();
    let mut checked = Checked::default();
    for key in KEYS {
        let given = merged.get(key.path);
        let source = given.and_then(Value::origin).unwrap_or(file);
        let given = given.map(|value| &value.kind).filter(|kind| !is_unset(key, kind));
        match given.and_then(|kind| key.kind.check(kind)) {
            Some(value) => drop(checked.values.insert(key.path, (value, source))),
            None if given.is_none() && key.default == Fallback::Unset => {}
            None => {
                checked.refused.insert(key.path);
                problems.push(refused(key, key.path, given, source));
            }
        }
    }
    let mut nodes = Json::Array(Vec::new());
    if let Some(value) = merged.get("nodes") {
        match nodes::read(value, file) {
            Ok(read) => nodes = read,
            Err(more) => problems.extend(more),
        }
    }
    problems.extend(detector_relation(&checked));
    problems.extend(store_relation(&checked, "registry.store", "checkpoint.store"));
    problems.extend(store_relation(&checked, "coordination.store", "checkpoint.store"));
    problems.extend(store_relation(&checked, "coordination.store", "registry.store"));
    problems.extend(coordination_place(&checked));
    problems.extend(data_relations(&checked, file));
    match serde_json::from_value::<Vec<NodeConfig>>(nodes.clone()) {
        Ok(typed) => {
            problems.extend(nodes::relations(&typed, file));
            if let Some(service) = checked.service() {
                problems.extend(service_addresses(&service, &checked));
                problems.extend(nodes::service_relations(&typed, &service, file));
                problems.extend(grpc_in_this_build(&typed, &checked, file));
            }
        }
        Err(error) => problems.push(unreadable(&error, file)),
    }
    if problems.is_empty() { Ok(checked.into_tree(nodes)) } else { Err(problems) }
}

/// A value that is missing, of another type or out of range.
pub(super) fn refused(key: &Key, path: &str, given: Option<&ValueKind>, source: &str) -> Problem {
    let problem = match given {
        Some(_) => format!("expected {}", key.kind),
        None => format!("is missing ({})", key.doc),
    };
    let what_to_do = match (given.and_then(|kind| key.kind.nearest_choice(kind)), key.default) {
        (Some(nearest), _) => format!("did you mean \"{nearest}\"? change {path}"),
        (None, Fallback::Default(default)) => format!("change {path} (default: {default})"),
        (None, _) if given.is_some() => format!("change {path}"),
        (None, _) => format!("set {path} to {}", key.kind),
    };
    let (path, source) = (path.to_owned(), source.to_owned());
    Problem { key: path, value: given.map(shown), problem, what_to_do, source }
}

/// The schema let a value through that the typed configuration refuses: a mistake of this program.
pub(super) fn unreadable(error: &serde_json::Error, file: &str) -> Problem {
    Problem {
        problem: format!("the schema and the types of this program disagree: {error}"),
        what_to_do: "report it with this file".to_owned(),
        source: file.to_owned(),
        ..Problem::default()
    }
}

/// An optional key can't be removed by `--set`, so empty text unsets it.
fn is_unset(key: &Key, kind: &ValueKind) -> bool {
    key.default == Fallback::Unset && matches!(kind, ValueKind::String(text) if text.is_empty())
}

impl<'a> Checked<'a> {
    fn integer(&self, path: &str) -> Option<u64> {
        self.values.get(path)?.0.as_u64()
    }

    fn text(&self, path: &str) -> Option<&str> {
        self.values.get(path)?.0.as_str()
    }

    fn service(&self) -> Option<Listens> {
        let address = |path| self.text(path).and_then(|address| address.parse().ok());
        let grpc = address("service.grpc_listen");
        Some(Listens { http: address("service.listen")?, grpc })
    }

    fn source(&self, path: &str) -> &'a str {
        self.values.get(path).map_or(DEFAULTS, |(_, source)| source)
    }

    fn into_tree(self, nodes: Json) -> Json {
        let mut tree = serde_json::json!({ "nodes": nodes });
        for (path, (value, _)) in self.values {
            let pointer = path.split('.').fold(&mut tree, |table, name| &mut table[name]);
            *pointer = value;
        }
        tree
    }
}

fn detector_relation(checked: &Checked<'_>) -> Option<Problem> {
    let heartbeat_ms = checked.integer("detector.heartbeat_ms")?;
    let dead_after_ms = checked.integer("detector.dead_after_ms")?;
    let least_ms = 3 * heartbeat_ms;
    (dead_after_ms < least_ms).then(|| Problem {
        key: "detector.dead_after_ms".to_owned(),
        value: Some(dead_after_ms.to_string()),
        problem: format!(
            "less than 3 times detector.heartbeat_ms ({heartbeat_ms}), so a live node with a late \
             heartbeat would count as dead"
        ),
        what_to_do: format!(
            "raise detector.dead_after_ms to {least_ms} or lower detector.heartbeat_ms"
        ),
        source: checked.source("detector.dead_after_ms").to_owned(),
    })
}

/// Checkpoints come and go, versions stay: nobody who removes the ones may reach the others.
fn store_relation(checked: &Checked<'_>, key: &str, other: &str) -> Option<Problem> {
    let folder = checked.text(key)?;
    (plain(folder) == plain(checked.text(other)?)).then(|| Problem {
        key: key.to_owned(),
        value: Some(format!("{folder:?}")),
        problem: format!("the same folder as {other}"),
        what_to_do: format!("give {key} a folder of its own"),
        source: checked.source(key).to_owned(),
    })
}

/// Etcd's form, and whether this build has it.
fn coordination_place(checked: &Checked<'_>) -> Option<Problem> {
    let place = checked.text("coordination.store")?;
    let error = CoordinationPlace::read(place).and_then(|read| read.known(place)).err()?;
    Some(Problem {
        key: "coordination.store".to_owned(),
        value: Some(format!("{place:?}")),
        problem: error.problem(),
        what_to_do: error.what_to_do().to_owned(),
        source: checked.source("coordination.store").to_owned(),
    })
}

/// One process can't answer both protocols in one place.
fn service_addresses(service: &Listens, checked: &Checked<'_>) -> Option<Problem> {
    let grpc_listen = service.grpc.filter(|&grpc| nodes::collide(grpc, service.http))?;
    Some(Problem {
        key: "service.grpc_listen".to_owned(),
        value: Some(format!("\"{grpc_listen}\"")),
        problem: "the same address as service.listen".to_owned(),
        what_to_do: "give service.grpc_listen a port of its own".to_owned(),
        source: checked.source("service.grpc_listen").to_owned(),
    })
}

/// Whether this build has gRPC, where anybody is to answer it.
fn grpc_in_this_build(nodes: &[NodeConfig], checked: &Checked<'_>, file: &str) -> Vec<Problem> {
    if cfg!(feature = "grpc") {
        return Vec::new();
    }
    let service = checked.text("service.grpc_listen").map(str::to_owned);
    let service = service.map(|address| ("service.grpc_listen".to_owned(), address));
    let nodes = nodes.iter().enumerate();
    let nodes = nodes.filter_map(|(at, node)| {
        Some((format!("nodes[{at}].grpc_listen"), node.grpc_listen?.to_string()))
    });
    let problem = |(key, address): (String, String)| Problem {
        what_to_do: format!("build it with cargo's feature grpc, or remove {key}"),
        value: Some(format!("\"{address}\"")),
        problem: "this program was built without gRPC".to_owned(),
        source: if key.starts_with("nodes") { file } else { checked.source("service.grpc_listen") }
            .to_owned(),
        key,
    };
    service.into_iter().chain(nodes).map(problem).collect()
}

/// A path without what doesn't change where it leads.
fn plain(path: &str) -> PathBuf {
    let path = Path::new(path.strip_prefix("file://").unwrap_or(path));
    path.components().filter(|part| *part != Component::CurDir).collect()
}

/// IDX keeps labels in files of their own; CSV has them in a column.
fn data_relations(checked: &Checked<'_>, file: &str) -> Vec<Problem> {
    let mut problems = Vec::new();
    let Some(format) = checked.text("job.data.format") else { return problems };
    for (rows, labels) in
        [("job.data.train", "job.data.train_labels"), ("job.data.test", "job.data.test_labels")]
    {
        if checked.refused.contains(rows) || checked.refused.contains(labels) {
            continue;
        }
        let given = checked.text(labels);
        let expected = format == "idx" && checked.text(rows).is_some();
        let (problem, what_to_do) = match given {
            None if expected => (
                format!("is missing: with job.data.format = \"idx\", {rows} holds no labels"),
                format!("set {labels}"),
            ),
            Some(_) if format == "csv" => (
                "a CSV file has its labels in a column, job.data.target".to_owned(),
                format!("remove {labels} or set it to \"\""),
            ),
            Some(_) if !expected => (
                format!("there are no rows for these labels: {rows} is not set"),
                format!("set {rows}"),
            ),
            _ => continue,
        };
        problems.push(Problem {
            key: labels.to_owned(),
            value: given.map(|text| format!("{text:?}")),
            problem,
            what_to_do,
            source: given.map_or(file, |_| checked.source(labels)).to_owned(),
        });
    }
    problems
}
