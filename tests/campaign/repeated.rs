//! What a failed test prints repeats it: tests run as processes of their own.

use std::process::{Command, Output};

use gradmesh::sim::SEED_VARIABLE;

use super::{counter, swarm, twelve};

/// Runs one of the tests of this program that fail.
fn subject(name: &str, seed: Option<&str>) -> (bool, String) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([name, "--exact", "--ignored", "--nocapture"]).env_remove(SEED_VARIABLE);
    let command = match seed {
        Some(seed) => command.env(SEED_VARIABLE, seed),
        None => &mut command,
    };
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = String::from_utf8(stdout).unwrap() + &String::from_utf8(stderr).unwrap();
    (status.success(), text)
}

#[test]
#[ignore = "fails: subject of another test"]
fn bears_twelve_faults() {
    counter().faults(twelve()).seeds(40..50).check();
}

#[test]
#[ignore = "fails: subject of another test"]
fn bears_a_swarm() {
    counter().swarm(swarm()).seeds(0..500).check();
}

#[test]
fn the_printed_command_repeats_the_seed_alone_with_its_timeline() {
    let (passed, text) = subject("repeated::bears_a_swarm", None);
    assert!(!passed, "{text}");
    let command = text.lines().find(|line| line.contains(SEED_VARIABLE)).unwrap().trim();
    let (seed, rest) = command.split_once(' ').unwrap();
    assert_eq!(rest, "cargo test repeated::bears_a_swarm -- --exact --nocapture");
    let seed = seed.split_once('=').unwrap().1;

    let (passed, again) = subject("repeated::bears_a_swarm", Some(seed));
    assert!(!passed, "{again}");
    assert!(again.contains(&format!("seed {seed}: \"increments are kept\"")), "{again}");
    assert!(again.contains("0.000 s  ** counter starts"), "{again}");
    assert!(!again.contains("are enough"), "{again}");
}

#[test]
fn a_seed_beside_those_of_the_test_can_be_asked_for() {
    let (passed, text) = subject("repeated::bears_twelve_faults", Some("7"));
    assert!(!passed, "{text}");
    assert!(text.contains("GRADMESH_SIM_SEED=7"), "{text}");
}

#[test]
fn a_seed_that_is_no_number_is_refused() {
    let (passed, text) = subject("repeated::bears_twelve_faults", Some("seven"));
    assert!(!passed, "{text}");
    assert!(text.contains("GRADMESH_SIM_SEED=seven: invalid digit"), "{text}");
}

#[test]
fn the_text_of_a_regression_test_is_the_one_that_compiles() {
    let error = counter().faults(twelve()).seeds(3..9).run().unwrap_err();
    let text = super::failure(error).regression_test;
    assert_eq!(format!("use super::durable_counter as simulation;\n\n{text}"), PASTED);
    assert!(text.lines().count() <= 25);
}

const PASTED: &str = include_str!("pasted.rs");
