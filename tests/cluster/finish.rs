//! After the end: a job that is published is not trained again by accident.

use nix::sys::signal::{Signal, kill};

use crate::support::{Job, Running};

const SHORT: &[&str] = &["job.epochs=2"];

/// Versions of the model that the registry has.
fn versions(job: &Job) -> usize {
    let list = job.run(&["models", "list", "--json"]);
    let list: serde_json::Value = serde_json::from_str(list.stdout.trim()).unwrap();
    list[0]["versions"].as_array().unwrap_or_else(|| panic!("no versions in {list}")).len()
}

/// Runs until it serves, then asks it to end.
#[track_caller]
fn run(job: &Job, arguments: &[&str]) -> String {
    let mut run: Running = job.start(arguments);
    run.wait_for_line("serves it, Ctrl-C ends");
    run.signal(Signal::SIGTERM);
    run.end().stderr
}

#[test]
fn a_node_that_starts_again_serves_what_it_has_trained() {
    let job = Job::embedded(SHORT);
    run(&job, &["run"]);
    let again = run(&job, &["run"]);
    assert!(again.contains("this job is finished; --fresh trains it again"), "{again}");
    assert!(!again.contains("version published"), "{again}");
    assert_eq!(versions(&job), 1);

    let fresh = run(&job, &["run", "--fresh"]);
    assert!(fresh.contains("version published"), "{fresh}");
    assert_eq!(versions(&job), 2);
}

#[test]
fn the_command_to_train_trains_a_finished_job_again_to_the_same_digest() {
    let job = Job::embedded(SHORT);
    let (first, second) = (job.train(), job.train());
    assert_eq!((first.number("version"), second.number("version")), (1, 2));
    assert_eq!(first.digest, second.digest);
    assert_eq!(second.number("resumed_from"), 0);
}

#[test]
fn a_coordinator_killed_after_the_end_trains_nothing_again() {
    let job = Job::processes(2, 2, SHORT);
    let mut up = job.start(&["up"]);
    up.wait_for_line("serves it, Ctrl-C ends");
    kill(up.node("main"), Signal::SIGKILL).unwrap();
    up.wait_for_line("this job is finished; --fresh trains it again");
    up.wait_for_line("serves it, Ctrl-C ends");
    up.signal(Signal::SIGTERM);
    up.end();
    assert_eq!(versions(&job), 1);
}
