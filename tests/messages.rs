//! What messages tell people to change exists: keys of the configuration, flags of the command line.

#![allow(clippy::unwrap_used, reason = "the helpers of a test fail with it")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use gradmesh::config::Config;

fn sources() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders = vec![root.join("src"), root.join("actors/src")];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in folder.read_dir().unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false => files.push(path),
            }
        }
    }
    files
}

/// The string literals of a file, one behind the other; unit tests stand at its end and don't count.
fn literals(text: &str) -> String {
    let code = text.split("#[cfg(test)]").next().unwrap();
    let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
    let code = lines.collect::<Vec<_>>().join("\n").replace("'\"'", "' '");
    let (mut literals, mut inside, mut escaped) = (String::new(), false, false);
    for c in code.chars() {
        match c {
            '"' if !escaped => {
                inside = !inside;
                literals.push('\n');
            }
            _ if inside => literals.push(c),
            _ => {}
        }
        escaped = c == '\\' && !escaped;
    }
    literals
}

/// The words of all literals with their files.
fn words(is_part: fn(char) -> bool) -> Vec<(PathBuf, String)> {
    let in_file = |path: PathBuf| {
        let literals = literals(&fs::read_to_string(&path).unwrap());
        let words: Vec<_> = literals.split(|c| !is_part(c)).map(str::to_owned).collect();
        words.into_iter().map(move |word| (path.clone(), word))
    };
    sources().into_iter().flat_map(in_file).collect()
}

#[test]
fn keys_that_messages_name_exist() {
    // Names of files, which look like keys.
    const FILES: [&str; 3] = [".toml", ".json", ".rs"];
    let mut known: BTreeSet<&str> = BTreeSet::new();
    for key in Config::keys() {
        // And the tables that it is in.
        known.extend(key.path.match_indices('.').map(|(at, _)| &key.path[..at]));
        known.insert(key.path);
    }
    let tables: Vec<&str> = known.iter().filter(|path| !path.contains('.')).copied().collect();
    let words = words(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '.');
    let mut seen = 0;
    for (path, word) in &words {
        let word = word.trim_matches('.');
        let is_key = word.split_once('.').is_some_and(|(table, _)| tables.contains(&table));
        if is_key && !FILES.iter().any(|ending| word.ends_with(ending)) {
            seen += 1;
            assert!(known.contains(word), "{} names {word:?}, which is no key", path.display());
        }
    }
    assert!(seen > 100, "only {seen} keys were found; does this test still read the sources?");
}

#[test]
fn flags_that_messages_name_exist() {
    let node = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_node")).args(arguments).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let commands = [
        "run", "train", "up", "simulate", "chaos", "demo", "check", "status", "drain", "models",
        "predict", "bench",
    ];
    let models = ["list", "show", "alias", "route", "import", "delete"];
    let help: String = commands.iter().map(|command| node(&[command, "--help"])).collect();
    let of_models = models.map(|command| node(&["models", command, "--help"])).concat();
    let help = help + &of_models;
    // Hidden: only `up` gives it. Those of the command that repeats a failed test, and one of cargo's.
    let known: BTreeSet<&str> = help
        .split(|c: char| !c.is_ascii_lowercase() && c != '-')
        .chain(["--until-stdin-ends", "--exact", "--nocapture", "--features"])
        .collect();
    let mut seen = 0;
    for (path, word) in words(|c| c.is_ascii_lowercase() || c == '-') {
        if word.len() > 2 && word.starts_with("--") && !word.starts_with("---") {
            seen += 1;
            assert!(known.contains(&*word), "{} names {word:?}, no flag", path.display());
        }
    }
    assert!(seen > 10, "only {seen} flags were found; does this test still read the sources?");
}
