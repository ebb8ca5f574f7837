//! What comes from outside and is wrong: a sentence and exit code 1, or training that isn't disturbed.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;

use flate2::read::GzDecoder;
use nix::sys::signal::Signal;

use crate::support::{Ended, Job};

/// Some seconds of one process, with a checkpoint every few milliseconds.
const LONG: &[&str] = &["job.epochs=100", "checkpoint.every_steps=20"];
/// Some seconds of five processes.
const CLUSTER: &[&str] = &["job.epochs=40", "checkpoint.every_steps=20"];
const SHORT: &[&str] = &["job.epochs=2"];

/// A job that was killed after `checkpoints` of its checkpoints.
fn killed_job(checkpoints: usize) -> Job {
    let job = Job::embedded(LONG);
    let mut train = job.start(&["train"]);
    train.wait_for_manifests(&job, checkpoints);
    let killed = train.kill();
    assert_eq!(killed.status.code(), None, "it had ended: {killed}");
    job
}

fn calm(sets: &[&str]) -> String {
    Job::embedded(sets).train().digest
}

/// Turns over all bits of a byte in the middle of a file.
fn flip_a_byte(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] = !bytes[middle];
    std::fs::write(path, bytes).unwrap();
}

fn flip_a_byte_of_each_part(manifest: &Path) {
    for file in manifest.parent().unwrap().read_dir().unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "safetensors") {
            flip_a_byte(&path);
        }
    }
}

#[test]
fn a_misspelt_key_is_refused_with_the_nearest_one() {
    let job = Job::embedded(&["job.epohcs=3"]);
    job.run(&["train"]).refused(&["job.epohcs", "there is no such key", "job.epochs"]);
}

#[test]
fn a_data_file_that_is_not_there_is_refused_with_its_key() {
    let job = Job::embedded(&["job.data.train=nowhere.csv"]);
    job.run(&["train"]).refused(&["nowhere.csv: no such file; change job.data.train"]);
}

#[test]
fn a_value_that_is_no_number_is_refused_with_its_place() {
    let job = Job::embedded(&["job.data.train=rows.csv"]);
    std::fs::write(job.path("rows.csv"), "1,2,0\n1,NaN,1\n").unwrap();
    job.run(&["train"]).refused(&["rows.csv: line 2, column 1", "not finite"]);
}

#[test]
fn a_port_of_the_service_that_somebody_has_is_named_with_its_key() {
    let job = Job::embedded(SHORT);
    let port = job.port("service");
    let _taken = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
    let in_use = format!("127.0.0.1:{port} is in use");
    job.run(&["run"]).refused(&[&in_use, "change service.listen"]);
}

#[test]
fn a_port_of_a_node_that_somebody_has_is_named_with_its_key() {
    let job = Job::processes(1, 1, SHORT);
    let port = job.port("ps-0");
    let _taken = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
    let cant = format!("can't listen on 127.0.0.1:{port}");
    job.run(&["run", "--name", "ps-0"]).refused(&[&cant, "[[nodes]]"]);
}

#[test]
fn a_checkpoint_of_another_job_is_kept_until_fresh_drops_it() {
    let mut other = killed_job(1);
    other.set("job.seed=9");
    other.run(&["train"]).refused(&["another job", "checkpoint.store", "--fresh"]);
    assert!(!other.manifests().is_empty(), "the refused job dropped the other's checkpoints");

    let trained = other.run(&["train", "--fresh", "--json"]).trained();
    assert!(trained.ended.stderr.contains("newest checkpoint version=None"), "{}", trained.ended);
    assert_eq!(trained.digest, calm(&[LONG, &["job.seed=9"]].concat()));
}

#[test]
fn a_damaged_checkpoint_is_passed_over_for_the_one_before() {
    let job = killed_job(2);
    flip_a_byte_of_each_part(job.manifests().last().unwrap());
    resumes_calmly(&job, &["checkpoint passed over", "newest checkpoint version=Some("]);
}

#[test]
fn a_torn_manifest_is_passed_over_for_the_checkpoint_before() {
    let job = killed_job(2);
    let newest = job.manifests().pop().unwrap();
    let half = std::fs::metadata(&newest).unwrap().len() / 2;
    std::fs::OpenOptions::new().write(true).open(&newest).unwrap().set_len(half).unwrap();
    resumes_calmly(&job, &["checkpoint passed over", "newest checkpoint version=Some("]);
}

#[test]
fn a_run_with_no_whole_checkpoint_left_begins_anew() {
    let job = killed_job(2);
    job.manifests().iter().for_each(|manifest| flip_a_byte_of_each_part(manifest));
    resumes_calmly(&job, &["checkpoint passed over", "newest checkpoint version=None"]);
}

#[track_caller]
fn resumes_calmly(job: &Job, log: &[&str]) {
    let trained = job.train();
    for line in log {
        assert!(trained.ended.stderr.contains(line), "{line:?} is missing in {}", trained.ended);
    }
    assert_eq!(trained.digest, calm(LONG), "{}", trained.ended);
}

#[test]
fn a_damaged_model_of_the_registry_is_not_served() {
    let job = Job::embedded(SHORT);
    job.train();
    std::fs::write(job.path("rows.csv"), vec!["1"; 64].join(",")).unwrap();
    let rows = job.path("rows.csv").display().to_string();
    let predict = || job.run(&["predict", "digits", "--input", &rows, "--json"]);
    let fine: Ended = predict();
    assert_eq!(fine.status.code(), Some(0), "{fine}");

    flip_a_byte(&job.path("store/registry/models/digits/1/model.safetensors"));
    predict().refused(&["digits", "model.safetensors"]);
}

#[test]
fn bytes_of_strangers_on_a_nodes_port_do_not_disturb_training() {
    let job = Job::processes(2, 2, CLUSTER);
    let mut up = job.start(&["up", "--train", "--json"]);
    up.wait_for_manifests(&job, 1);
    let nodes = job.ports.iter().filter(|(name, _)| name != "service");
    for (_, port) in nodes {
        for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 65_536], &[0; 7]] {
            let mut stranger = TcpStream::connect((Ipv4Addr::LOCALHOST, *port)).unwrap();
            // The node may close before it has all of it.
            let _ = stranger.write_all(bytes);
        }
    }
    let trained = up.end().trained();
    assert!(trained.ended.stderr.contains("caller refused"), "{}", trained.ended);
    assert_eq!(trained.digest, calm(CLUSTER), "{}", trained.ended);
}

#[test]
fn a_bad_request_to_the_service_is_no_error_in_the_log() {
    let job = Job::embedded(SHORT);
    let mut run = job.start(&["run"]);
    run.wait_for_line("serves it, Ctrl-C ends");
    let mut stranger = TcpStream::connect((Ipv4Addr::LOCALHOST, job.port("service"))).unwrap();
    stranger.write_all(b"\x16\x03\x01 garbage\r\n\r\n").unwrap();
    let mut answer = String::new();
    stranger.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    run.signal(Signal::SIGTERM);
    let ended = run.end();
    assert!(!ended.stderr.contains("ERROR"), "{ended}");
    // The model is published: a restart has nothing to go on with.
    assert!(!ended.stderr.contains("goes on from the last checkpoint"), "{ended}");
}

#[test]
fn a_node_with_other_data_is_refused_tells_it_once_and_training_goes_on_without_it() {
    let job = Job::processes(2, 1, CLUSTER);
    let whole = concat!(env!("CARGO_MANIFEST_DIR"), "/data/digits/digits.csv.gz");
    let mut rows = String::new();
    GzDecoder::new(std::fs::File::open(whole).unwrap()).read_to_string(&mut rows).unwrap();
    let changed = rows.replacen(",0,", ",1,", 1);
    assert_ne!(changed, rows);
    std::fs::write(job.path("other.csv"), changed).unwrap();
    let other = format!("job.data.train={}", job.path("other.csv").display());
    let mut main = job.start(&["run", "--name", "main", "--json"]);
    let others = ["ps-0", "worker-0"].map(|name| job.start(&["run", "--name", name]));
    // Who says first what it trains is believed.
    main.wait_for_manifests(&job, 1);
    let mut stranger = job.start(&["--set", &other, "run", "--name", "worker-1"]);
    let told = stranger.wait_for_line("the coordinator refuses this node");
    assert!(told.contains("would train something else: data is"), "{told}");
    let summary = main.wait_for_line("\"digest\":");
    assert!(summary.contains(&calm(CLUSTER)), "{summary}\n{main}");
    stranger.signal(Signal::SIGTERM);
    let ended = stranger.end();
    assert_eq!(ended.stderr.matches("refuses this node").count(), 1, "{ended}");
    for node in others.into_iter().chain([main]) {
        node.signal(Signal::SIGTERM);
        assert!(node.end().status.success());
    }
}

#[test]
fn a_node_of_another_configuration_is_refused_and_training_goes_on_without_it() {
    let job = Job::processes(2, 1, CLUSTER);
    let mut main = job.start(&["run", "--name", "main", "--json"]);
    let others = ["ps-0", "worker-0"].map(|name| job.start(&["run", "--name", name]));
    let mut stranger = job.start(&["run", "--name", "worker-1", "--set", "job.seed=9"]);
    stranger.wait_for_line("has another configuration");
    let summary = main.wait_for_line("\"digest\":");
    assert!(summary.contains(&calm(CLUSTER)), "{summary}\n{main}");
    for node in others.into_iter().chain([main, stranger]) {
        node.signal(Signal::SIGTERM);
        assert!(node.end().status.success());
    }
}
