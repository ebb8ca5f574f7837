//! `node demo`: a cluster that serves while its processes are killed.

use nix::sys::signal::Signal;

use crate::support::{Place, answer, signal};

const DIGITS: &str = "examples/digits.toml";

#[test]
fn no_prediction_fails_while_processes_of_all_roles_are_killed() {
    let place = Place::new();
    let arguments = ["--for", "6s", "--every", "1s", "--epochs", "200", "--seed", "3", "--json"];
    let output = place.node(DIGITS, "demo", &arguments).output().unwrap();
    let answer = answer(&output);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{answer}\n{said}");
    assert_eq!(answer["digest"], answer["calm_digest"], "{answer}");
    assert_eq!((&answer["unanswered"], &answer["wrong"]), (&0.into(), &0.into()), "{answer}");
    assert!(answer["answered"].as_u64() > Some(0), "{answer}");
    assert!(!answer["kills"].as_object().unwrap().is_empty(), "{answer}");
    assert!(place.folders().is_empty(), "{:?}", place.folders());
    assert_eq!(place.processes(), [""; 0]);
}

#[test]
fn ctrl_c_leaves_neither_processes_nor_a_folder_of_a_demonstration() {
    let place = Place::new();
    let child = place.node(DIGITS, "demo", &["--epochs", "500"]).spawn().unwrap();
    place.wait_until("cluster", |place| place.processes().len() == 11);
    signal(&child, Signal::SIGINT);
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(130));
    assert_eq!(place.processes(), [""; 0]);
    assert!(place.folders().is_empty(), "{:?}", place.folders());
}
