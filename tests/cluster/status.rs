//! `node status` and the metrics page of one process that trains and serves.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};

use serde_json::Value;

use crate::support::{Job, Running};

const SHORT: &[&str] = &["job.epochs=2"];

/// `node run`, when it has trained.
fn trained(job: &Job) -> Running {
    let mut run = job.start(&["run"]);
    run.wait_for_line("serves it, Ctrl-C ends");
    run
}

/// Answers each connection with these bytes, as long as the test runs.
fn impostor(port: u16, answer: &'static [u8]) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(answer);
        }
    });
}

#[test]
fn one_process_tells_how_far_its_run_is() {
    let job = Job::embedded(SHORT);
    let _run = trained(&job);
    let asked = job.run(&["status", "--json"]);
    assert_eq!(asked.status.code(), Some(0), "{asked}");
    let status: Value = serde_json::from_str(&asked.stdout).unwrap();
    assert_eq!(status["progress"]["phase"], "done");
    assert_eq!(status["version"], status["last_version"]);
    let asked = job.run(&["status"]);
    assert!(asked.stdout.contains("done: version 1"), "{asked}");
}

#[test]
fn the_run_is_on_the_metrics_page_of_the_process_that_coordinates_it() {
    let job = Job::embedded(SHORT);
    let _run = trained(&job);
    let url = format!("http://127.0.0.1:{}/metrics", job.port("service"));
    let page = ureq::get(url).call().unwrap().body_mut().read_to_string().unwrap();
    for line in [
        "\ngradmesh_training_epoch 2\n",
        "\ngradmesh_training_phase{phase=\"done\"} 1\n",
        "\n# TYPE gradmesh_training_pushed_bytes_total counter\n",
    ] {
        assert!(page.contains(line), "{line} is not in\n{page}");
    }
}

#[test]
fn status_of_a_process_that_is_not_there_names_the_address_and_its_key() {
    let job = Job::embedded(SHORT);
    let address = format!("nothing listens on 127.0.0.1:{}", job.port("service"));
    job.run(&["status"]).refused(&[&address, "service.listen"]);
}

#[test]
fn status_of_something_else_is_refused_as_such() {
    for answer in [&b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"[..], b"SSH-2.0-OpenSSH\r\n"] {
        let job = Job::embedded(SHORT);
        impostor(job.port("service"), answer);
        let sentence = format!(
            "what listens on 127.0.0.1:{} is not gradmesh; correct service.listen",
            job.port("service")
        );
        job.run(&["status"]).refused(&[&sentence]);
    }
}

#[test]
fn status_of_another_cluster_names_both() {
    let mut job = Job::embedded(SHORT);
    let _run = trained(&job);
    job.set("cluster.name=other");
    job.run(&["status"]).refused(&["is of cluster \"digits\", not \"other\"", "service.listen"]);
}

#[test]
fn status_where_the_port_is_chosen_at_the_start_asks_for_one() {
    let mut job = Job::embedded(SHORT);
    job.set("service.listen=127.0.0.1:0");
    job.run(&["status"]).refused(&["service.listen has port 0"]);
}
