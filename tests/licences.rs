//! Every crate that this build links is under a licence that lets anybody use it.

#![allow(clippy::unwrap_used, reason = "the helpers of a test fail with it")]

use std::process::Command;

/// Permissive licences; none of them asks more than a notice.
const ALLOWED: [&str; 12] = [
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "ISC",
    "MIT",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Whether an SPDX expression can be met with allowed licences alone. `/` is how old crates write
/// `OR`.
fn is_allowed(expression: &str) -> bool {
    let plain = expression.replace('/', " OR ");
    let padded = plain.replace('(', " ( ").replace(')', " ) ");
    let mut words = padded.split_whitespace().peekable();
    let allowed = any(&mut words);
    allowed && words.peek().is_none()
}

type Words<'a> = std::iter::Peekable<std::str::SplitWhitespace<'a>>;

fn any(words: &mut Words<'_>) -> bool {
    let mut allowed = all(words);
    while words.next_if_eq(&"OR").is_some() {
        allowed |= all(words);
    }
    allowed
}

fn all(words: &mut Words<'_>) -> bool {
    let mut allowed = one(words);
    while words.next_if_eq(&"AND").is_some() {
        allowed &= one(words);
    }
    allowed
}

fn one(words: &mut Words<'_>) -> bool {
    if words.next_if_eq(&"(").is_some() {
        let allowed = any(words);
        return words.next_if_eq(&")").is_some() && allowed;
    }
    let Some(name) = words.next() else { return false };
    if words.next_if_eq(&"WITH").is_some() {
        let exception = words.next().unwrap_or_default();
        return ALLOWED.contains(&format!("{name} WITH {exception}").as_str());
    }
    ALLOWED.contains(&name)
}

/// Crates of other platforms need not be downloaded here.
fn host() -> String {
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    let output = Command::new(rustc).arg("-vV").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().find_map(|line| line.strip_prefix("host: ")).unwrap().to_owned()
}

/// Names and licences of all crates in the tree of this platform.
fn crates() -> Vec<(String, Option<String>)> {
    let triple = host();
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--offline", "--filter-platform", &triple])
        // Crates that this build leaves out need not be downloaded either.
        .args(if cfg!(feature = "etcd") { &["--features", "etcd"][..] } else { &[] })
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let text = |value: &serde_json::Value| value.as_str().map(str::to_owned);
    packages.iter().map(|p| (text(&p["name"]).unwrap(), text(&p["license"]))).collect()
}

#[test]
fn every_crate_has_a_permissive_licence() {
    let crates = crates();
    assert!(crates.len() > 100, "{} crates", crates.len());
    let other: Vec<_> =
        crates.iter().filter(|(_, licence)| !licence.as_deref().is_some_and(is_allowed)).collect();
    assert!(other.is_empty(), "not permissive, or not known to be: {other:#?}");
}

#[test]
fn licences_that_ask_for_more_are_found() {
    for other in ["GPL-3.0", "MIT AND GPL-2.0", "(MIT OR ISC) AND MPL-2.0", "MIT WITH X", ""] {
        assert!(!is_allowed(other), "{other}");
    }
    for allowed in [
        "MIT/Apache-2.0",
        "LGPL-2.1 OR MIT",
        "(MIT OR GPL-2.0) AND Unicode-3.0",
        "Apache-2.0 WITH LLVM-exception OR GPL-3.0",
    ] {
        assert!(is_allowed(allowed), "{allowed}");
    }
}
