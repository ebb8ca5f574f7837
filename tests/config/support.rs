//! Configurations that say the least, with changes, and the problems that come of them.

use std::path::Path;

use gradmesh::config::{Config, ConfigError, Problem};

/// The least that a configuration must say.
pub(crate) const LEAST: &[(&str, &str)] =
    &[("job.data.format", "\"csv\""), ("job.data.train", "\"rows.csv\"")];

/// The least that a node must say, by key of the schema.
pub(crate) const NODE: &[(&str, &str)] = &[
    ("nodes.name", "\"all\""),
    ("nodes.address", "\"127.0.0.1:7100\""),
    ("nodes.roles", "[\"coordinator\", \"server\", \"worker\", \"registry\"]"),
];

/// TOML of the least configuration with these keys set or changed.
pub(crate) fn toml(changes: &[(&str, &str)]) -> String {
    let kept = LEAST.iter().filter(|(key, _)| changes.iter().all(|(changed, _)| changed != key));
    kept.chain(changes).map(|(key, value)| format!("{key} = {value}\n")).collect()
}

/// TOML of the least configuration with one node, of which one key is changed.
pub(crate) fn toml_of_node(change: (&str, &str)) -> String {
    let pairs = NODE.iter().map(|(key, value)| if *key == change.0 { change.1 } else { value });
    let more = NODE.iter().all(|(key, _)| *key != change.0).then_some(change);
    let pairs = pairs.chain(more.map(|(_, value)| value));
    let names = NODE.iter().copied().chain(more);
    let names = names.map(|(key, _)| key.trim_start_matches("nodes."));
    let pairs: Vec<_> = names.zip(pairs).map(|(name, value)| format!("{name} = {value}")).collect();
    toml(&[("nodes", &format!("[{{ {} }}]", pairs.join(", ")))])
}

pub(crate) fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::from_toml(text, Path::new("."))
}

pub(crate) fn problems(text: &str) -> Vec<Problem> {
    parse(text).map_or_else(|error| error.problems, |_| panic!("accepted:\n{text}"))
}

/// The one problem of a text.
pub(crate) fn problem(text: &str) -> Problem {
    let mut problems = problems(text);
    assert_eq!(problems.len(), 1, "{problems:#?}\n{text}");
    problems.remove(0)
}

/// Loads a text as a file would be, with the other two sources over it.
pub(crate) fn load(text: &str, env: &[(&str, &str)], sets: &[&str]) -> Result<Config, ConfigError> {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("cluster.toml");
    std::fs::write(&file, text).expect("the file is written");
    let sets: Vec<_> = sets.iter().map(|set| (*set).to_owned()).collect();
    let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Config::load(&file, &sets, env)
}
