//! Deaths of processes at some instant of a run: the digest is the calm run's.
//!
//! Each test waits for a state of the run, a whole checkpoint mostly, before it kills; that the
//! death came in the midst of the run is asserted by what the run says of it afterwards.

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::OnceLock;

use nix::sys::signal::{Signal, kill};
use serde_json::Value;

use crate::support::{Job, Running};

/// Some seconds of one process, with a checkpoint every few milliseconds.
const EMBEDDED: &[&str] = &["job.epochs=120", "checkpoint.every_steps=20"];
/// Some seconds of five processes.
const DENSE: &[&str] = &["job.epochs=40", "checkpoint.every_steps=20"];
const SPARSE: &[&str] = &["job.epochs=40", "checkpoint.every_steps=20", "job.gradient.codec=top-k"];

/// Digest of a run that nobody disturbs, in one process: the digest knows no sizes.
fn calm(sets: &'static [&'static str]) -> &'static str {
    static CALM: [OnceLock<String>; 3] = [const { OnceLock::new() }; 3];
    let at = [EMBEDDED, DENSE, SPARSE].iter().position(|known| *known == sets).unwrap();
    CALM[at].get_or_init(|| Job::embedded(sets).train().digest)
}

/// A cluster of two workers and two servers, after its first checkpoint.
#[track_caller]
fn running_cluster(sets: &[&str]) -> (Job, Running) {
    let job = Job::processes(2, 2, sets);
    let mut up = job.start(&["up", "--train", "--json"]);
    up.wait_for_manifests(&job, 1);
    (job, up)
}

/// Kills a node's process while the others train; `up` has to start it again and finish.
#[track_caller]
fn survives_death_of(node: &str, sets: &'static [&'static str]) -> Value {
    let (_job, mut up) = running_cluster(sets);
    kill(up.node(node), Signal::SIGKILL).unwrap();
    up.wait_for_line(&format!("ended, starting it again node=\"{node}\""));
    up.wait_for_line(&format!("started node=\"{node}\""));
    let trained = up.end().trained();
    assert_eq!(trained.digest, calm(sets), "{}", trained.ended);
    trained.summary
}

/// Where a run went on, by its log.
fn resumed_at(stderr: &str) -> Option<u64> {
    let (_, rest) = stderr.rsplit_once("newest checkpoint version=Some(")?;
    rest.split_once(')')?.0.parse().ok()
}

#[test]
fn a_killed_process_that_starts_again_goes_on_to_the_calm_digest() {
    let job = Job::embedded(EMBEDDED);
    let mut train = job.start(&["train", "--json"]);
    train.wait_for_manifests(&job, 1);
    let killed = train.kill();
    assert_eq!(killed.status.code(), None, "it had ended: {killed}");

    let trained = job.train();
    let resumed = resumed_at(&trained.ended.stderr).unwrap();
    assert!((20..trained.number("steps")).contains(&resumed), "{}", trained.ended);
    assert_eq!(trained.digest, calm(EMBEDDED), "{}", trained.ended);
}

#[test]
fn a_process_killed_again_and_again_reaches_the_calm_digest() {
    let job = Job::embedded(EMBEDDED);
    for _ in 0..4 {
        let newest: Option<PathBuf> = job.manifests().pop();
        let mut train = job.start(&["train", "--json"]);
        let further = || job.manifests().pop().filter(|now| Some(now) != newest.as_ref());
        train.wait_until("a newer checkpoint", further);
        let killed = train.kill();
        assert_eq!(killed.status.code(), None, "it had ended: {killed}");
    }
    let trained = job.train();
    assert!(resumed_at(&trained.ended.stderr).unwrap() >= 80, "{}", trained.ended);
    assert_eq!(trained.digest, calm(EMBEDDED), "{}", trained.ended);
}

#[test]
fn a_process_asked_to_end_ends_well_and_goes_on_at_its_next_start() {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let job = Job::embedded(EMBEDDED);
        let mut run = job.start(&["run"]);
        run.wait_for_manifests(&job, 1);
        run.signal(signal);
        let stopped = run.end();
        assert_eq!(stopped.status.code(), Some(0), "{signal}: {stopped}");
        assert!(!stopped.stderr.contains("version published"), "{signal}: {stopped}");

        let trained = job.train();
        assert!(resumed_at(&trained.ended.stderr).is_some(), "{signal}: {}", trained.ended);
        assert_eq!(trained.digest, calm(EMBEDDED), "{signal}: {}", trained.ended);
    }
}

#[test]
fn the_death_of_a_worker_moves_its_slots_and_no_bit() {
    let summary = survives_death_of("worker-0", DENSE);
    assert!(summary["new_leases"].as_u64() > Some(0), "{summary}");
}

#[test]
fn the_death_of_a_worker_with_residuals_rolls_back_and_moves_no_bit() {
    let summary = survives_death_of("worker-1", SPARSE);
    assert!(summary["rollbacks"].as_u64() > Some(0), "{summary}");
}

#[test]
fn the_replica_of_a_dead_server_takes_its_place_and_moves_no_bit() {
    let summary = survives_death_of("ps-1", DENSE);
    assert!(summary["promotions"].as_u64() > Some(0), "{summary}");
    assert_eq!(summary["rollbacks"], 0, "{summary}");
}

#[test]
fn the_death_of_the_server_that_combines_norms_moves_no_bit_with_residuals() {
    let summary = survives_death_of("ps-0", SPARSE);
    assert!(summary["promotions"].as_u64() > Some(0), "{summary}");
    assert_eq!(summary["rollbacks"], 0, "{summary}");
}

#[test]
fn the_death_of_the_coordinator_moves_no_bit() {
    for sets in [DENSE, SPARSE] {
        let (_job, mut up) = running_cluster(sets);
        kill(up.node("main"), Signal::SIGKILL).unwrap();
        up.wait_for_line("newest checkpoint version=Some(");
        let trained = up.end().trained();
        assert_eq!(trained.digest, calm(sets), "{}", trained.ended);
    }
}

#[test]
fn the_death_of_all_processes_at_once_moves_no_bit() {
    let (job, up) = running_cluster(SPARSE);
    let killed = up.kill_all();
    assert!(!killed.stderr.contains("version published"), "{killed}");

    let trained = job.up();
    let resumed = resumed_at(&trained.ended.stderr).unwrap();
    assert!((20..trained.number("steps")).contains(&resumed), "{}", trained.ended);
    assert_eq!(trained.digest, calm(SPARSE), "{}", trained.ended);
}

/// Nodes that went on without their `up` would hold the ports of the next one.
#[test]
fn the_nodes_of_a_killed_up_end_and_the_next_one_goes_on() {
    let (job, up) = running_cluster(DENSE);
    let killed = up.kill();
    assert!(!killed.stderr.contains("version published"), "{killed}");

    let trained = job.up();
    assert!(resumed_at(&trained.ended.stderr).is_some(), "{}", trained.ended);
    assert_eq!(trained.digest, calm(DENSE), "{}", trained.ended);
}

#[test]
fn a_process_whose_log_nobody_reads_trains_to_its_end() {
    let job = Job::embedded(DENSE);
    let mut train = job.command(&["train", "--json"]);
    let mut child = train.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stderr.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(summary["digest"], calm(DENSE), "{summary}");
}

#[test]
fn deaths_of_one_node_after_the_other_move_no_bit() {
    let (job, mut up) = running_cluster(SPARSE);
    for node in ["worker-0", "ps-0", "worker-1", "main", "ps-1"] {
        let newest = job.manifests().pop();
        kill(up.node(node), Signal::SIGKILL).unwrap();
        up.wait_for_line(&format!("started node=\"{node}\""));
        // The run goes on before the next one dies.
        let further = || job.manifests().pop().filter(|now| *now > newest.clone().unwrap());
        up.wait_until("a newer checkpoint", further);
    }
    let trained = up.end().trained();
    assert_eq!(trained.digest, calm(SPARSE), "{}", trained.ended);
}
