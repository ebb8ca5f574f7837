//! `node drain` while a cluster trains: who was drained can be stopped, and nobody is missed.

use nix::sys::signal::{Signal, kill};
use serde_json::{Value, json};

use crate::support::Job;

/// Some seconds of seven processes, with a checkpoint every few milliseconds.
const SETS: &[&str] = &["job.epochs=150", "checkpoint.every_steps=20"];

#[test]
fn a_server_and_a_worker_that_were_drained_are_stopped_and_nobody_is_missed() {
    let calm = Job::embedded(SETS).train().digest;
    let job = Job::processes(3, 3, SETS);
    let mut up = job.start(&["up", "--train", "--json"]);
    up.wait_for_manifests(&job, 1);

    let drained = job.run(&["drain", "ps-0", "--json"]);
    let answer: Value = serde_json::from_str(drained.stdout.trim()).expect(&drained.stderr);
    assert_eq!(answer["leaving"], json!([{ "who": { "server": 0 }, "holds": 0 }]), "{drained}");
    assert_eq!((&answer["node"], &answer["replicas"]), (&json!("ps-0"), &json!(1)), "{drained}");
    let drained = job.run(&["drain", "worker-1"]);
    let told = "worker-1 holds nothing and computes nothing: it can be stopped";
    assert_eq!(drained.stdout.lines().last(), Some(told), "{drained}");

    for node in ["ps-0", "worker-1"] {
        kill(up.node(node), Signal::SIGTERM).unwrap();
        up.wait_for_line(&format!("ended, starting it again node=\"{node}\""));
        up.wait_for_line(&format!("started node=\"{node}\""));
    }
    // `up` has started them again, and they stay out.
    let status = job.run(&["status"]);
    let told = "ps-0 has nothing, it can be stopped; worker-1 has nothing, it can be stopped";
    assert!(status.stdout.contains(told), "{status}");
    let status = job.run(&["status", "--json"]);
    let numbers: Value = serde_json::from_str(&status.stdout).expect(&status.stdout);
    assert!(numbers["handovers"].as_u64() > Some(0), "{status}");
    assert_eq!((&numbers["promotions"], &numbers["rollbacks"]), (&json!(0), &json!(0)), "{status}");
    let back = job.run(&["drain", "worker-1", "--back"]);
    let told = "worker-1 may hold shards and compute slots again";
    assert_eq!(back.stdout.lines().last(), Some(told), "{back}");

    let trained = up.end().trained();
    let numbers = ["promotions", "rollbacks"].map(|key| trained.number(key));
    assert_eq!(numbers, [0, 0], "{}", trained.ended);
    assert_eq!(trained.digest, calm, "{}", trained.ended);
}

#[test]
fn what_can_not_be_drained_is_said() {
    let job = Job::processes(1, 2, &["job.epochs=1000000", "checkpoint.every_steps=20"]);
    let nobody = job.run(&["drain", "ps-2"]);
    nobody.refused(&["no node is called \"ps-2\"; there are main, ps-0, ps-1, worker-0"]);
    job.run(&["drain", "main"]).refused(&["main has no server and no worker"]);
    let mut up = job.start(&["up", "--train"]);
    up.wait_for_manifests(&job, 1);
    job.run(&["drain", "worker-0"]).refused(&["no worker would stay that is alive: 1 of 1"]);
    let drained = job.run(&["drain", "ps-1"]);
    assert_eq!(drained.status.code(), Some(0), "{drained}");
    job.run(&["drain", "ps-0"]).refused(&["no server would stay that is alive: 2 of 2", "--back"]);
    // The same again is no refusal.
    assert_eq!(job.run(&["drain", "ps-1"]).status.code(), Some(0));
}
