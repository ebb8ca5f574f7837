//! Imports point downward only: each file is compared with the layers of `ARCHITECTURE.md`.

#![allow(clippy::unwrap_used, reason = "the helpers of a test fail with it")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A module of the crate (its path from `src`, without `.rs`), the crates and the own modules
/// that it names.
#[derive(Debug, Default)]
struct Source {
    module: String,
    own: BTreeSet<String>,
    foreign: BTreeSet<String>,
}

/// Files of each layer of `gradmesh-actors`; whatever is in none of them is a rule (L2).
const ACTORS: [&str; 7] = [
    "parameter_server",
    "worker",
    "coordinator",
    "model_registry",
    "predictor",
    "runner",
    "follower",
];
/// May not be known by a rule: it decides, others wait, send and log.
const RUNTIME: [&str; 5] = ["actix", "actix_rt", "futures_util", "tokio", "tracing"];
/// Modules beside the actors that know actix, with the reason.
const RUNTIME_ALLOWED: [(&str, &str); 12] = [
    ("messages", "a message is an `actix::Message`, and `ask` is how one is sent"),
    ("restart", "hands a fresh actor to `actix::Supervised`"),
    ("clock", "the time that actors give to their rules"),
    ("lazy_timer", "the timer of exchange's requests"),
    ("later", "an answer of ParameterServer to actix, after its handler has returned"),
    ("exchange", "the half of Worker that asks the shards"),
    ("saving", "the half of ParameterServer and Worker that writes to their store"),
    ("registry_log", "the half of ModelRegistry that talks to its store"),
    ("log_seen", "the channel from ModelRegistry to the predictors of its process"),
    ("in_memory", "the half of Predictor that those of a process share"),
    ("peers", "the half of Predictor that asks those of other nodes"),
    ("runners", "how Predictor and Follower share the threads of Runner"),
];
/// Messages carry values of these rules. They are plain types; no message calls a rule to decide.
const VALUES_IN_MESSAGES: [&str; 16] = [
    "ids",
    "catalog",
    "checkpoint",
    "datatype",
    "ledger",
    "model",
    "new_version",
    "plan",
    "reduction",
    "request_queue",
    "route",
    "serving",
    "tensor",
    "tensor_model",
    "training",
    "version",
];

/// Layer of each module of the root crate. `router` and `peer` are both sides of a connection.
const NODE_LAYERS: [(&str, u8); 18] = [
    ("wire", 4),
    ("transport", 4),
    ("peer", 5),
    ("router", 5),
    ("supervisor", 5),
    ("store", 5),
    ("data", 5),
    ("metrics", 5),
    ("bert", 5),
    ("onnx", 5),
    ("config", 6),
    ("node", 6),
    ("service", 6),
    ("curve", 6),
    ("progress", 6),
    // The world of whole nodes; for tests, like them.
    ("sim", 7),
    ("lib", 7),
    ("bin", 7),
];
/// The service and the curves get what they show by argument, so that they can be embedded.
const WITHOUT_CONFIG: [&str; 2] = ["service", "curve"];

/// What is wrong with a file of `gradmesh-actors`.
fn check_actors(source: &Source) -> Vec<String> {
    let top = top(&source.module);
    let mut wrong = Vec::new();
    if top == "lib" {
        return wrong;
    }
    let runtime = ACTORS.contains(&top) || RUNTIME_ALLOWED.iter().any(|(name, _)| *name == top);
    for own in &source.own {
        let bad = match top {
            "ids" => true,
            "messages" => own != "messages" && !VALUES_IN_MESSAGES.contains(&own.as_str()),
            // Time is an argument of a rule.
            _ if own == "clock" => !runtime,
            _ => ACTORS.contains(&own.as_str()) && own != top,
        };
        if bad {
            wrong.push(format!("{} imports crate::{own}", source.module));
        }
    }
    for foreign in source.foreign.iter().filter(|_| !runtime) {
        wrong.push(format!("{} names {foreign}, rules know no runtime", source.module));
    }
    wrong
}

/// What is wrong with a file of the root crate.
fn check_node(source: &Source) -> Vec<String> {
    let layer_of = |name: &str| NODE_LAYERS.iter().find(|(module, _)| *module == name);
    let top = top(&source.module);
    let Some((_, layer)) = layer_of(top) else {
        return vec![format!("{} is in no layer; name its layer in this test", source.module)];
    };
    let mut wrong = Vec::new();
    for own in source.own.iter().filter(|own| *own != top && top != "bin") {
        let upward = layer_of(own).is_none_or(|(_, other)| other > layer);
        let config = own == "config" && WITHOUT_CONFIG.contains(&top);
        if upward || config {
            wrong.push(format!("{} imports crate::{own}", source.module));
        }
    }
    wrong
}

fn top(module: &str) -> &str {
    module.split('/').next().unwrap_or(module)
}

/// The names after `crate::`, and the runtime crates, that code names. Comments don't count, nor
/// do unit tests, which stand at the end of a file or in `tests.rs`.
fn read(module: &str, text: &str) -> Source {
    let mut source = Source { module: module.to_owned(), ..Source::default() };
    let code = text.split("#[cfg(test)]").next().unwrap_or(text);
    let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
    let code = lines.collect::<Vec<_>>().join("\n");
    for (at, _) in code.match_indices("crate::") {
        source.own.extend(names(&code[at + "crate::".len()..]));
    }
    for (at, _) in code.match_indices("gradmesh_actors::") {
        source.foreign.extend(names(&code[at + "gradmesh_actors::".len()..]));
    }
    for name in RUNTIME {
        let path = format!("{name}::");
        let whole = |at: usize| !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
        if code.match_indices(&path).any(|(at, _)| whole(at)) {
            source.foreign.insert(name.to_owned());
        }
    }
    source
}

/// The first name of a path; all first names where braces follow.
fn names(path: &str) -> Vec<String> {
    let first = |path: &str| -> String {
        path.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
    };
    let Some(group) = path.strip_prefix('{') else { return vec![first(path)] };
    let (mut depth, mut found, mut start) = (0, Vec::new(), 0);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                found.push(first(&group[start..at]));
                start = at + 1;
                if c == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    found.retain(|name| !name.is_empty());
    found
}

fn sources(crate_folder: &str) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(crate_folder).join("src");
    let mut files = Vec::new();
    rust_files(&root, &mut files);
    let module = |file: &Path| {
        let path = file.strip_prefix(&root).unwrap().with_extension("");
        path.to_str().unwrap().replace('\\', "/")
    };
    let files = files.iter().filter(|file| !file.ends_with("tests.rs"));
    files.map(|file| read(&module(file), &fs::read_to_string(file).unwrap())).collect()
}

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn actors_messages_and_rules_import_downward_only() {
    let sources = sources("actors");
    assert!(sources.len() > 40, "found {} files", sources.len());
    let runtime: Vec<Source> = sources
        .into_iter()
        .map(|mut source| {
            source.foreign.retain(|name| RUNTIME.contains(&name.as_str()));
            source
        })
        .collect();
    let wrong: Vec<String> = runtime.iter().flat_map(check_actors).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_node_imports_downward_only() {
    let sources = sources(".");
    assert!(sources.len() > 40, "found {} files", sources.len());
    let wrong: Vec<String> = sources.iter().flat_map(check_node).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The composition root alone knows which actors there are; the rest of the node knows messages.
#[test]
fn only_the_composition_root_names_actors() {
    let naming: BTreeSet<String> = sources(".")
        .iter()
        .filter(|source| source.foreign.iter().any(|name| ACTORS.contains(&name.as_str())))
        .map(|source| source.module.clone())
        .collect();
    let root = ["node/roles", "node/roles/coordinating", "node/roles/links", "node/roles/serving"]
        .map(str::to_owned);
    assert_eq!(naming, BTreeSet::from(root));
}

#[test]
fn made_up_upward_imports_are_caught() {
    let actors = [
        ("shard", "use crate::worker::Worker;"),
        ("shard", "use crate::{ids::{ShardId, View}, parameter_server};"),
        ("worker", "fn f(server: crate::parameter_server::ParameterServer) {}"),
        ("messages/lease_slots", "use crate::shard::Shard;"),
        ("ids", "use crate::layout::Layout;"),
        ("training/recovery", "use tokio::time::Instant;"),
        ("ledger", "fn f() { tracing::info!(\"counted\"); }"),
        ("stealing", "use crate::clock;"),
    ];
    for (module, text) in actors {
        assert_ne!(check_actors(&read(module, text)), Vec::<String>::new(), "{module}: {text}");
    }
    let node = [
        ("wire/frame", "use crate::peer::Proxy;"),
        ("store/tensors", "use crate::{config::Config, transport};"),
        ("service/routes", "use crate::config::Config;"),
        ("dashboard", "use crate::metrics::Metrics;"),
    ];
    for (module, text) in node {
        assert_ne!(check_node(&read(module, text)), Vec::<String>::new(), "{module}: {text}");
    }
}

#[test]
fn downward_imports_comments_and_unit_tests_are_no_upward_imports() {
    for (module, text) in [
        ("worker", "use crate::slot_work::SlotWork;\nuse tokio::time::sleep;"),
        ("shard", "//! Used by `crate::worker::Worker`."),
        ("shard", "#[cfg(test)]\nmod tests { use crate::worker::Worker; }"),
    ] {
        assert_eq!(check_actors(&read(module, text)), Vec::<String>::new(), "{module}: {text}");
    }
}
