//! Training that begins with a published version.

use nix::sys::signal::{Signal, kill};
use serde_json::Value;

use crate::support::Job;

const FROM: &str = "job.model.from=digits/1";
/// Some seconds of five processes, without a checkpoint before the end.
const LONG: &[&str] = &["job.epochs=40", "checkpoint.every_steps=1000000"];

fn show(job: &Job, version: &str) -> Value {
    let shown = job.run(&["models", "show", "digits", version, "--json"]);
    serde_json::from_str(shown.stdout.trim()).unwrap_or_else(|error| panic!("{error}: {shown}"))
}

/// How far the run is, once its coordinator says so.
fn step(job: &Job) -> Option<u64> {
    let url = format!("http://127.0.0.1:{}/gradmesh/status", job.port("service"));
    let status: Value = ureq::get(url).call().ok()?.body_mut().read_json().ok()?;
    status["training"]["version"].as_u64()
}

#[test]
fn a_training_goes_on_where_a_version_ended_with_the_same_bits_for_each_cluster_and_each_failure() {
    let mut first = Job::embedded(&["job.epochs=2"]);
    let parent = first.train().digest;
    for set in LONG.iter().chain([&FROM]) {
        first.set(set);
    }
    let calm = first.train();
    assert_ne!(calm.digest, parent);
    let (before, after) = (show(&first, "1"), show(&first, "2"));
    assert_eq!(before["parent"], Value::Null);
    let expected = serde_json::json!({ "model": "digits", "version": 1, "digest": parent });
    assert_eq!(after["parent"], expected, "{after}");
    let loss = |shown: &Value| shown["metrics"]["train_loss"].as_f64().unwrap();
    assert!(loss(&after) < loss(&before));

    let mut anew = Job::embedded(LONG);
    assert_ne!(anew.train().digest, calm.digest, "it does not matter where it begins");
    anew.set("job.model.from=digits/9");
    anew.run(&["train"]).refused(&["digits has no version 9", "change job.model.from"]);
    anew.set("job.model.hidden=[7]");
    anew.set("job.model.from=digits/1");
    anew.run(&["train"]).refused(&["digits/1 has other tensors than the model of this job"]);

    let job = Job::processes(2, 2, LONG);
    std::fs::create_dir_all(job.path("store")).unwrap();
    std::fs::rename(first.path("store/registry"), job.path("store/registry")).unwrap();
    let mut job = job;
    job.set(FROM);
    job.set("servers.replicas=0");
    let mut up = job.start(&["up", "--train", "--json"]);
    up.wait_until("some steps", || step(&job).filter(|step| *step > 10));
    // Nothing is left of its shard but the version that it began with.
    kill(up.node("ps-0"), Signal::SIGKILL).unwrap();
    let trained = up.end().trained();
    assert!(trained.number("rollbacks") > 0, "{}", trained.summary);
    assert_eq!(trained.digest, calm.digest, "{}", trained.ended);
    assert_eq!(show(&job, "3")["parent"], expected);
}
