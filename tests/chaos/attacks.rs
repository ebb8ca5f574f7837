//! `node chaos` against those who misuse or kill it.

use std::process::Output;

use nix::sys::signal::Signal;

use crate::support::{Place, answer, path, signal};

const DIGITS: &str = "examples/digits.toml";
const PAUSE: &str =
    "[[faults]]\nfault = \"pause\"\nnode = \"worker-0\"\nat_ms = 200\nfor_ms = 600000\n";

#[track_caller]
fn refused(place: &Place, arguments: &[&str], sentence: &str) -> Output {
    let output = place.chaos(DIGITS, arguments).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains(sentence), "{sentence:?} is missing in\n{said}");
    assert_eq!(place.processes(), [""; 0]);
    output
}

fn node_is_stopped(place: &Place) -> bool {
    let Ok(entries) = path("/proc").read_dir() else { return true };
    entries.flatten().any(|entry| {
        let read = |file| std::fs::read_to_string(entry.path().join(file)).unwrap_or_default();
        read("stat").contains(") T ")
            && place.processes().iter().any(|line| *line == read("cmdline").replace('\0', " "))
    })
}

#[test]
fn plans_that_are_none_are_refused_and_leave_nothing() {
    let place = Place::new();
    let kill =
        |node: &str, rest: &str| format!("[[faults]]\nfault = \"kill\"\nnode = \"{node}\"\n{rest}");
    for (name, text, sentence) in [
        ("garbage", "\u{0}\u{1}[[[", "fault plan"),
        ("unknown", &kill("ps-9", "at_ms = 1"), "no node is called \"ps-9\""),
        ("huge", &kill("ps-0", "at_ms = 9223372036854775807"), "more than a year"),
        ("negative", &kill("ps-0", "at_ms = -1"), "fault plan"),
    ] {
        let plan = place.file(name, text);
        refused(&place, &[&plan], sentence);
    }
    let plan = place.file("good", &kill("ps-0", "at_ms = 1"));
    refused(&place, &[&plan, "--for", "0s"], "raise --for");
    refused(&place, &["/nowhere/plan.toml"], "/nowhere/plan.toml");
    assert!(place.folders().is_empty());
}

#[test]
fn a_plan_that_begins_after_the_run_fails() {
    let place = Place::new();
    let plan = place
        .file("late", "[[faults]]\nfault = \"kill\"\nnode = \"*\"\nat_ms = 500000\nfor_ms = 1\n");
    let output = refused(&place, &[&plan, "--set", "job.epochs=2", "--json"], "nothing was tested");
    let answer = answer(&output);
    assert_eq!((&answer["verdict"], &answer["begun"]), (&"no-fault".into(), &0.into()));
    assert_eq!(place.folders().len(), 1, "logs are kept where something failed");
}

#[test]
fn a_calm_run_that_fails_is_said() {
    let place = Place::new();
    let plan = place.file("plan", PAUSE);
    let nothing = ["job.data.train=/nowhere.csv", "--set", "job.data.format=csv"];
    let arguments = [&[plan.as_str(), "--set"], nothing.as_slice()].concat();
    refused(&place, &arguments, "nothing to compare with");
}

#[test]
fn ctrl_c_leaves_neither_processes_nor_a_folder() {
    let place = Place::new();
    let plan = place.file("plan", PAUSE);
    for in_calm_run in [true, false] {
        let child = place.chaos(DIGITS, &[&plan, "--set", "job.epochs=200"]).spawn().unwrap();
        if in_calm_run {
            place.wait_until("calm run", |place| !place.processes().is_empty());
        } else {
            place.wait_until("stopped node", node_is_stopped);
        }
        signal(&child, Signal::SIGINT);
        assert_eq!(child.wait_with_output().unwrap().status.code(), Some(130));
        assert_eq!(place.processes(), [""; 0]);
        assert!(place.folders().is_empty(), "{:?}", place.folders());
    }
}

#[test]
fn a_chaos_that_is_killed_takes_its_nodes_along_even_one_that_is_stopped() {
    let place = Place::new();
    let plan = place.file("plan", PAUSE);
    let mut child = place.chaos(DIGITS, &[&plan, "--set", "job.epochs=200"]).spawn().unwrap();
    place.wait_until("stopped node", node_is_stopped);
    child.kill().unwrap();
    child.wait().unwrap();
    place.wait_until("end of its nodes", |place| place.processes().is_empty());
}

#[test]
fn the_table_tells_what_each_fault_did_on_a_cluster_with_nodes_of_its_own() {
    let place = Place::new();
    let plan = place.file(
        "plan",
        "[[faults]]\nfault = \"kill\"\nnode = \"ps-1\"\nat_ms = 700\nfor_ms = 300\n\
         [[faults]]\nfault = \"panic\"\nnode = \"worker-1\"\nat_ms = 1\n",
    );
    let sets = ["--set", "job.epochs=4", "--set", "job.batch_size=256"];
    let arguments = [&[plan.as_str()], sets.as_slice()].concat();
    let output = place.chaos("examples/three-nodes.toml", &arguments).output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}\n{said}");
    for part in ["SIGKILL to 1 process", "needs `node simulate`", "1 restarts", "passed"] {
        assert!(told.contains(part), "{part:?} is missing in\n{told}");
    }
    assert!(place.folders().is_empty(), "{:?}", place.folders());
}
