//! The examples do what their first lines say. `cargo test` builds them beside `node`.

#![allow(clippy::unwrap_used, reason = "the helpers of a test fail with it")]

// Its own tests run here: an example with `test = true` would be built as a test only.
#[path = "../examples/custom_model.rs"]
#[allow(dead_code, reason = "its main is run as a program of its own")]
mod custom_model;

use std::path::{Path, PathBuf};
use std::process::Command;

fn example(name: &str) -> PathBuf {
    let profile = Path::new(env!("CARGO_BIN_EXE_node")).parent().unwrap();
    let example = profile.join("examples").join(name);
    assert!(example.is_file(), "{} isn't built; run `cargo build --examples`", example.display());
    example
}

/// What an example that ends well prints.
fn lines(name: &str, arguments: &[&str]) -> Vec<String> {
    let output = Command::new(example(name)).args(arguments).output().unwrap();
    let (said, errors) = (String::from_utf8_lossy(&output.stdout), &output.stderr);
    let context = format!("{name}: {said}\n{}", String::from_utf8_lossy(errors));
    assert!(output.status.success(), "{context}");
    said.lines().map(str::to_owned).collect()
}

/// The first number in a text behind `after`.
fn number(text: &str, after: &str) -> f64 {
    let (_, rest) = text.split_once(after).unwrap_or_else(|| panic!("no {after:?} in {text:?}"));
    let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
    rest[..end].parse().unwrap()
}

#[test]
fn an_application_of_ones_own_trains_and_classifies() {
    let lines = lines("embed_in_actix_web", &["--once"]);
    let [before, after, digit, refused, ready] = &lines[..] else { panic!("{lines:?}") };
    assert!(before.ends_with("\"}") && before.contains("-> 200"), "{before}");
    assert!(after.ends_with(r#"-> 200 {"digits":"version 1, after 230 steps"}"#), "{after}");
    assert!(digit.contains(r#"-> 200 {"digit":1,"#), "{digit}");
    assert!(digit.ends_with(r#""version":"1"}"#), "{digit}");
    assert!(refused.contains("-> 400") && refused.contains("64 features"), "{refused}");
    assert!(ready.ends_with(r#"-> 200 {"name":"digits","ready":true}"#), "{ready}");
}

#[test]
fn a_model_of_ones_own_learns_and_serves_what_it_learnt() {
    let lines = lines("custom_model", &[]);
    let [trained, served] = &lines[..] else { panic!("{lines:?}") };
    let accuracy = number(trained, "test accuracy ");
    assert!(accuracy > 94.0, "{trained}");
    // The predictor, which scales raw rows itself, agrees with the workers that evaluated.
    let right = number(served, "serves: ");
    let rows = number(served, "of ");
    assert!((100.0 * right / rows - accuracy).abs() < 0.01, "{trained}, {served}");
}

#[test]
fn a_pipeline_of_pictures_and_texts_is_right_more_often_than_its_best_branch() {
    let lines = lines("two_modalities", &[]);
    let [image, text, published, served] = &lines[..] else { panic!("{lines:?}") };
    assert_eq!(published, "pipeline.toml is version 1 of emoji now");
    // The branches say through the service what they said to the workers that evaluated them.
    let rows = number(served, "right of ");
    for (trained, by) in [(image, "picture "), (text, "words ")] {
        let accuracy = number(trained, "test accuracy ");
        let right = number(served, by);
        assert!((100.0 * right / rows - accuracy).abs() < 0.01, "{trained}, {served}");
    }
    assert!(number(served, "both ") > number(served, "words "), "{served}");
}

#[test]
fn a_data_set_of_ones_own_is_trained_on() {
    let lines = lines("own_data", &[]);
    let [trained] = &lines[..] else { panic!("{lines:?}") };
    assert!(trained.starts_with("rings: 4000 rows, "), "{trained}");
    assert!(number(trained, "test accuracy ") > 94.0, "{trained}");
}

#[test]
fn a_killed_worker_changes_no_bit() {
    let lines = lines("three_nodes", &[]);
    let [calm, kill, killed, verdict] = &lines[..] else { panic!("{lines:?}") };
    assert!(kill.contains("kill -9") && kill.ends_with("(worker-1)"), "{kill}");
    assert_eq!(calm.strip_prefix("calm:   "), killed.strip_prefix("killed: "));
    assert!(number(calm, "test accuracy ") > 80.0, "{calm}");
    assert_eq!(verdict, "the same bits");
}

#[test]
fn a_model_that_is_not_pure_is_found_by_a_simulation() {
    let lines = lines("simulate_model", &[]);
    // Whether one fault is enough, or the right moment takes a second, is up to the timing.
    let [passed, found, fault, ..] = &lines[..] else { panic!("{lines:?}") };
    assert!(lines.len() <= 4, "{lines:?}");
    assert!(passed.starts_with("as promised: 40 seeds, "), "{passed}");
    let names_bits = [" has another digest, ", " has the same bits whenever it is made"];
    assert!(names_bits.iter().any(|named| found.contains(named)), "{found}");
    assert!(fault.contains(".at("), "{fault}");
}

#[test]
fn actors_of_ones_own_are_simulated() {
    let lines = lines("simulate_actors", &[]);
    let [by_hand, swarm] = &lines[..] else { panic!("{lines:?}") };
    assert_eq!(by_hand, "by hand: 20 additions acknowledged, 20 kept, 1 restart");
    assert_eq!(swarm, "50 seeds of a swarm: every addition counted once");
}
