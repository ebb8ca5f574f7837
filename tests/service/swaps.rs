//! Versions that change while they answer: nobody waits for it, and no answer is of two versions.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, RwLock};

use gradmesh_actors::messages::SetAlias;
use gradmesh_actors::request_queue::Batching;
use serde_json::Value;

use crate::support::{Server, rows, sum};
use crate::turns::start;

const SWAPS: u64 = 100;
const CLIENTS: u64 = 4;

/// What the versions of `sum` are called while they are asked.
struct Names {
    /// The newest one whose publication was acknowledged.
    newest: AtomicU64,
    /// What `production` was told to be, oldest first.
    told: RwLock<Vec<u64>>,
    /// How many of them were acknowledged.
    heard: AtomicUsize,
}

impl Names {
    /// Asks for the newest version: it is none that was older when the request was sent.
    fn ask_newest(&self, server: &Server, agent: &ureq::Agent, client: u64) {
        let before = self.newest.load(Ordering::SeqCst);
        let version = checked(server, agent, "/v2/models/sum/infer", client);
        assert!(version >= before, "version {version} answers, {before} was published before");
    }

    /// Asks for `production`: it is one that the name meant between the request and the answer.
    fn ask_production(&self, server: &Server, agent: &ureq::Agent, client: u64) {
        let from = self.heard.load(Ordering::SeqCst) - 1;
        let path = "/v2/models/sum/versions/production/infer";
        let version = checked(server, agent, path, client);
        let meant = self.told.read().unwrap()[from..].to_vec();
        assert!(meant.contains(&version), "version {version} answers, {meant:?} were meant");
    }
}

/// Which version answered, after its answer was computed again: version n answers n times the sum.
fn checked(server: &Server, agent: &ureq::Agent, path: &str, client: u64) -> u64 {
    let row = [client as f32, 0.5];
    let body = rows(&row).to_string();
    let mut answer = agent.post(server.url(path)).send(&body).unwrap();
    let body: Value = answer.body_mut().read_json().unwrap();
    assert_eq!(answer.status(), 200, "{body}");
    let version: u64 = body["model_version"].as_str().unwrap().parse().unwrap();
    let expected = (version as f32) * (row[0] + row[1]);
    assert_eq!(body["outputs"][0]["data"][0].as_f64(), Some(expected.into()), "{body}");
    let run = match version {
        1 => "a".to_owned(),
        2 => "b".to_owned(),
        swap => format!("swap {swap}"),
    };
    assert_eq!(body["parameters"]["digest"], format!("state of {run}"), "{body}");
    version
}

/// Publishes versions, and lets `production` go forward and back among them.
fn swap(server: &Server, names: &Names) {
    let registry = server.registry.clone();
    actix_rt::System::new().block_on(async {
        for version in 3..3 + SWAPS {
            let publish = sum(&format!("swap {version}"), version as f32);
            registry.send(publish).await.unwrap().unwrap();
            names.newest.store(version, Ordering::SeqCst);
            for production in [version, version - 1] {
                names.told.write().unwrap().push(production);
                let (model, alias) = ("sum".into(), "production".into());
                let version = production.to_string().parse().unwrap();
                let set = SetAlias { model, alias, version };
                registry.send(set).await.unwrap().unwrap();
                names.heard.fetch_add(1, Ordering::SeqCst);
            }
        }
    });
}

#[test]
fn versions_that_are_published_and_taken_back_under_load_fail_no_request_and_mix_no_answer() {
    let server = start(Batching::default(), true);
    let names =
        Names { newest: AtomicU64::new(2), told: RwLock::new(vec![1]), heard: AtomicUsize::new(1) };
    let (over, answers) = (AtomicBool::new(false), Mutex::new(0u64));
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (server, names, over, answers) = (&server, &names, &over, &answers);
            scope.spawn(move || {
                let agent = server.agent();
                let mut own = 0;
                while !over.load(Ordering::SeqCst) {
                    names.ask_newest(server, &agent, client);
                    names.ask_production(server, &agent, client);
                    own += 2;
                }
                *answers.lock().unwrap() += own;
            });
        }
        // Whoever asks ends also where the swaps fail.
        let swapped =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| swap(&server, &names)));
        over.store(true, Ordering::SeqCst);
        swapped.unwrap();
    });
    let answers = *answers.lock().unwrap();
    assert!(answers >= SWAPS, "{answers} answers are too few to have met {SWAPS} swaps");
}
