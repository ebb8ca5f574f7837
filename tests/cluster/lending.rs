//! Two services, of which one is asked: the other one's instance takes a part of the runs.

use serde_json::{Value, json};

use crate::support::Job;

/// Large enough for runs to take longer than a millisecond.
const MODEL: &[&str] = &["job.epochs=1", "job.model.hidden=[1024,1024]"];

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder().http_status_as_error(false).build().into()
}

/// The outputs of 256 rows of halves.
fn infer(agent: &ureq::Agent, url: &str) -> Value {
    let request = json!({ "inputs": [{
        "name": "input", "datatype": "FP32", "shape": [256, 64], "data": vec![0.5; 256 * 64],
    }] });
    let mut answer = agent.post(url).send(request.to_string()).unwrap();
    let body: Value = answer.body_mut().read_json().unwrap();
    assert_eq!(answer.status(), 200, "{body}");
    body["outputs"].clone()
}

#[test]
fn a_service_whose_instance_is_busy_has_runs_done_by_one_that_is_idle() {
    let job = Job::two_registries(MODEL);
    let trainer = Job::embedded(MODEL);
    trainer.train();
    std::fs::create_dir_all(job.path("store")).unwrap();
    std::fs::rename(trainer.path("store/registry"), job.path("store/registry")).unwrap();
    let url = |name: &str, path: &str| {
        format!("http://127.0.0.1:{}{path}", job.port(&format!("http-{name}")))
    };
    let metric = |node: &str, name: &str| {
        let mut page = agent().get(url(node, "/metrics")).call().unwrap();
        let page = page.body_mut().read_to_string().unwrap();
        let line = page.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
        line.and_then(|value| value.parse::<f64>().ok()).unwrap_or_default()
    };
    let mut nodes: Vec<_> = ["a", "c"]
        .map(|name| {
            let mut node = job.start(&["run", "--name", name]);
            node.wait_for_line("serving on http://");
            node
        })
        .into();
    let asked = url("a", "/v2/models/digits/infer");
    let expected = infer(&agent(), &asked);
    let over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let agent = agent();
                while !over.load(std::sync::atomic::Ordering::Relaxed) {
                    assert_eq!(infer(&agent, &asked), expected);
                }
            });
        }
        let lent = || metric("a", "gradmesh_runs_lent_total") >= 5.0;
        // Whoever asks ends also where nothing is lent.
        let waited = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            nodes[0].wait_until("runs of the other node", || lent().then_some(()))
        }));
        // The other node dies in the middle of it, and nobody who asks hears of that.
        nodes.pop().unwrap().kill();
        for _ in 0..20 {
            assert_eq!(infer(&agent(), &asked), expected);
        }
        over.store(true, std::sync::atomic::Ordering::Relaxed);
        waited.unwrap();
    });
}
