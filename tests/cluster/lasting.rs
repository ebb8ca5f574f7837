//! What no restart helps ends a cluster at once, and what another process has is left alone.

use std::io::Write;

use crate::support::{Ended, Job, Running};

/// Longer than any test, with a checkpoint every few milliseconds.
const ENDLESS: &[&str] = &["job.epochs=1000000", "checkpoint.every_steps=20"];

#[track_caller]
fn nothing_was_restarted(ended: &Ended) {
    assert!(!ended.stderr.contains("starting it again"), "{ended}");
}

#[track_caller]
fn goes_on(mut first: Running, job: &Job) {
    let newest = job.manifests().pop();
    first.wait_until("a newer checkpoint", || {
        job.manifests().pop().filter(|now| Some(now) > newest.as_ref())
    });
}

#[test]
fn a_cluster_without_its_data_ends_at_once_with_the_sentence_of_the_node() {
    let job = Job::processes(1, 1, &["job.data.train=nosuch.csv"]);
    let ended = job.run(&["up", "--train", "--json"]);
    nothing_was_restarted(&ended);
    let answer: serde_json::Value = serde_json::from_str(ended.stdout.trim()).unwrap();
    let said = answer["error"].as_str().unwrap();
    assert!(said.starts_with("node worker-0: "), "{said}");
    assert!(said.ends_with("nosuch.csv: no such file; change job.data.train"), "{said}");
    ended.refused(&[said]);
}

#[test]
fn a_cluster_whose_run_diverges_ends_at_once() {
    let job = Job::processes(2, 1, &["job.optimizer.learning_rate=1000", "job.epochs=40"]);
    for arguments in [&["up", "--train"][..], &["up"]] {
        let ended = job.run(arguments);
        nothing_was_restarted(&ended);
        ended.refused(&["training failed: "]);
    }
}

/// Else each worker would ask for its parameters again and again, and nobody say why.
#[test]
fn a_cluster_whose_shards_are_longer_than_a_message_ends_at_once_with_the_number_of_shards() {
    let wide = "job.model.hidden=[9000,9000]";
    Job::processes(1, 1, &[wide])
        .run(&["up", "--train"])
        .refused(&["the longest has 81684010 parameters", "raise servers.shards to 2 at least"]);
    Job::processes(
        2,
        2,
        &[wide, "servers.shards=2", "job.optimizer.kind=adam", "servers.replicas=1"],
    )
    .run(&["up", "--train"])
    .refused(&["raise servers.shards to 4 at least"]);
}

#[test]
fn a_second_cluster_on_the_same_addresses_is_refused_and_the_first_goes_on() {
    let job = Job::processes(1, 1, ENDLESS);
    let mut first = job.start(&["up", "--train"]);
    first.wait_for_manifests(&job, 1);
    let second = job.run(&["up", "--train", "--fresh"]);
    let address = format!("127.0.0.1:{} is in use", job.port("main"));
    second.refused(&[&address, "change nodes[0].address"]);
    goes_on(first, &job);
}

#[test]
fn a_port_of_the_service_that_somebody_has_is_found_before_a_node_is_started() {
    let job = Job::processes(1, 1, ENDLESS);
    let listen = ("127.0.0.1", job.port("service"));
    let _taken = std::net::TcpListener::bind(listen).unwrap();
    let refused = job.run(&["up", "--train"]);
    assert!(!refused.stderr.contains("started node"), "{refused}");
    refused.refused(&[&format!("127.0.0.1:{} is in use", listen.1), "change service.listen"]);
}

#[test]
fn a_second_run_over_the_same_checkpoints_is_refused_and_the_first_goes_on() {
    let job = Job::embedded(ENDLESS);
    let mut first = job.start(&["train"]);
    first.wait_for_manifests(&job, 1);
    let owner = format!("is used by a run of process {}", first.pid());
    for second in [&["train"][..], &["train", "--fresh"], &["run"]] {
        job.run(second).refused(&[&owner, "store/checkpoints", "change checkpoint.store"]);
    }
    // Reading the registry writes no checkpoint.
    let list = job.run(&["models", "list"]);
    assert!(list.status.success(), "{list}");
    goes_on(first, &job);
}

/// Each single process is called the same: it would take the lead for its own.
#[test]
fn another_job_over_the_same_coordination_store_is_refused_and_the_first_goes_on() {
    let job = Job::embedded(ENDLESS);
    let mut first = job.start(&["train"]);
    first.wait_for_manifests(&job, 1);
    let owner = format!("is used by a run of process {}", first.pid());
    let other = job.run(&["train", "--set", "checkpoint.store=store/others"]);
    other.refused(&["coordination.store: ", &owner, "store/coordination"]);
    goes_on(first, &job);
}

#[test]
fn a_damaged_newest_view_is_told_and_not_waited_over() {
    let job = Job::embedded(&["job.epochs=2"]);
    job.train();
    let views = std::fs::read_dir(job.path("store/coordination/views")).unwrap();
    let newest = views.map(|entry| entry.unwrap().path()).max().unwrap();
    std::fs::File::options().write(true).open(&newest).unwrap().set_len(50).unwrap();
    let name = newest.file_name().unwrap().to_string_lossy().into_owned();
    job.run(&["train"]).refused(&["training failed: ", &name, "is damaged"]);
    std::fs::remove_file(newest).unwrap();
    assert_eq!(job.train().number("version"), 2);
}

#[test]
fn a_finished_job_is_trained_again_while_another_process_serves_it() {
    let job = Job::embedded(&["job.epochs=2"]);
    let mut serves = job.start(&["run"]);
    serves.wait_for_line("serves it, Ctrl-C ends");
    assert_eq!(job.train().number("version"), 2);
}

/// It would follow the other one meanwhile, and afterwards train again what is long over.
#[test]
fn who_serves_a_finished_job_has_no_part_in_another_one_that_is_trained_beside_it() {
    let job = Job::embedded(&["job.epochs=2"]);
    let mut serves = job.start(&["run"]);
    serves.wait_for_line("another process may lead");
    serves.wait_for_line("serves it, Ctrl-C ends");
    let other = job.run(&["train", "--json", "--set", "job.epochs=300"]);
    assert!(other.stdout.contains("\"version\":2"), "{other}");
    let status: serde_json::Value = job.run(&["status", "--json"]).stdout.parse().unwrap();
    assert_eq!(status["progress"]["phase"], "done", "{status}");
    assert_eq!(status["progress"]["version"], 1, "{status}");
}

/// What training takes: a byte order mark, gzip; and standard input beside.
#[test]
fn rows_to_predict_come_from_a_file_or_a_stream_plain_or_packed() {
    let job = Job::embedded(&["job.epochs=2"]);
    job.train();
    let rows = format!("\u{feff}{}\n", vec!["1"; 64].join(","));
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(rows.as_bytes()).unwrap();
    std::fs::write(job.path("rows"), packed.finish().unwrap()).unwrap();
    let file = job.path("rows").display().to_string();
    let from_file = job.run(&["predict", "digits", "--json", "--input", &file]);
    assert!(from_file.status.success(), "{from_file}");

    std::fs::write(job.path("plain"), &rows).unwrap();
    let mut from_stream = job.command(&["predict", "digits", "--json", "--input", "-"]);
    let stream = std::fs::File::open(job.path("plain")).unwrap();
    let from_stream = from_stream.stdin(stream).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&from_stream.stdout).trim(), from_file.stdout.trim());
}

#[test]
fn rows_to_predict_that_are_none_are_refused_with_what_to_give() {
    let job = Job::embedded(&[]);
    for (text, said) in [
        ("{\"inputs\": []}", "is a JSON object; give an array of rows"),
        ("1;2;3\n", "\"1;2;3\" is no number; separate values with commas"),
        ("\n", "has no rows"),
    ] {
        std::fs::write(job.path("rows"), text).unwrap();
        let file = job.path("rows").display().to_string();
        job.run(&["predict", "digits", "--input", &file]).refused(&[said]);
    }
}

#[test]
fn changes_of_the_registry_answer_in_json() {
    let job = Job::embedded(&["job.epochs=2"]);
    job.train();
    let alias = job.run(&["models", "alias", "digits", "best", "1", "--json"]);
    let expected = serde_json::json!({ "model": "digits", "alias": "best", "version": 1 });
    assert_eq!(alias.stdout.parse::<serde_json::Value>().unwrap(), expected, "{alias}");
    let remove = ["models", "alias", "digits", "best", "--remove", "--json"];
    job.run(&["models", "delete", "digits", "1"]).refused(&[&remove[..5].join(" ")]);
    job.train();
    let route = ["models", "route", "digits", "best=9", "2=1", "--shadow", "latest"];
    let told = job.run(&route);
    assert_eq!(told.stdout.trim(), "requests for digits go to best=9 2=1, shadow latest now");
    let list = job.run(&["models", "list"]);
    assert!(list.stdout.contains("best=9 2=1, shadow latest"), "{list}");
    job.run(&["models", "delete", "digits", "2"]).refused(&["is in its route"]);
    job.run(&["models", "route", "digits", "best"]).refused(&["no VERSION=WEIGHT"]);
    job.run(&["models", "route", "digits", "7=1"]).refused(&["no version 7"]);
    let clear = job.run(&["models", "route", "digits", "--json"]);
    let expected = serde_json::json!({ "model": "digits", "route": null });
    assert_eq!(clear.stdout.parse::<serde_json::Value>().unwrap(), expected, "{clear}");
    for _ in ["", "and again, as who has lost the answer asks"] {
        let removed = job.run(&remove);
        let expected = serde_json::json!({ "model": "digits", "removed": "best" });
        assert_eq!(removed.stdout.parse::<serde_json::Value>().unwrap(), expected, "{removed}");
    }
    let delete = job.run(&["models", "delete", "digits", "2", "--json"]);
    let expected = serde_json::json!({ "model": "digits", "deleted": 2 });
    assert_eq!(delete.stdout.parse::<serde_json::Value>().unwrap(), expected, "{delete}");
}
