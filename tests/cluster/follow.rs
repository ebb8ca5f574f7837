//! A service that follows the training of its cluster: each answer is of one checkpoint, whole, and none
//! is missing from the first one on, whoever is killed meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use actix::Actor;
use gradmesh::store::{CheckpointStore, open_store};
use gradmesh_actors::ids::Version;
use gradmesh_actors::messages::checkpoint_store::{FindCheckpoint, FoundCheckpoint, LoadState};
use gradmesh_actors::model::ModelKinds;
use ndarray::Array2;
use nix::sys::signal::{Signal, kill};
use serde_json::{Value, json};

use crate::support::{Job, Running};

const MODEL: &str = "digits";
/// Some seconds of training, with a checkpoint every few milliseconds.
const JOB: &[&str] =
    &["service.follow=job", "job.epochs=120", "checkpoint.every_steps=20", "checkpoint.keep=1000"];

/// The version that answered, its digest, and what it said to the row of halves.
#[derive(Clone, Debug, PartialEq)]
struct Answer {
    version: String,
    digest: String,
    values: Vec<f32>,
}

impl Answer {
    /// After how many steps, where it is of a running training.
    fn step(&self) -> Option<u64> {
        self.version.strip_prefix("step-")?.parse().ok()
    }
}

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder().http_status_as_error(false).build().into()
}

fn get(url: &str) -> (u16, Value) {
    let mut answer = agent().get(url).call().unwrap();
    (answer.status().as_u16(), answer.body_mut().read_json().unwrap_or_default())
}

fn infer(agent: &ureq::Agent, url: &str) -> Result<Answer, String> {
    let row = json!({ "inputs": [{
        "name": "input", "datatype": "FP32", "shape": [1, 64], "data": vec![0.5; 64],
    }] });
    let mut answer = agent.post(url).send(row.to_string()).map_err(|error| error.to_string())?;
    let body: Value = answer.body_mut().read_json().map_err(|error| error.to_string())?;
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let (version, digest) = (text(&body["model_version"]), text(&body["parameters"]["digest"]));
    let values = body["outputs"][0]["data"].as_array();
    match (version, digest, values) {
        (Some(version), Some(digest), Some(values)) => {
            let values = values.iter().map(|value| value.as_f64().unwrap() as f32).collect();
            Ok(Answer { version, digest, values })
        }
        _ => Err(body.to_string()),
    }
}

/// What a client was told, without repetitions, and what went wrong after its first answer.
#[derive(Default)]
struct Heard {
    answers: Mutex<Vec<Answer>>,
    failed: Mutex<Vec<String>>,
    over: AtomicBool,
}

fn listen(url: String) -> (Arc<Heard>, std::thread::JoinHandle<()>) {
    let heard = Arc::new(Heard::default());
    let shared = Arc::clone(&heard);
    let thread = std::thread::spawn(move || {
        let agent = agent();
        while !shared.over.load(Ordering::Relaxed) {
            let answer = infer(&agent, &url);
            let mut answers = shared.answers.lock().unwrap();
            match answer {
                Ok(answer) if answers.last() != Some(&answer) => answers.push(answer),
                Ok(_) => {}
                Err(_) if answers.is_empty() => {}
                Err(error) => shared.failed.lock().unwrap().push(error),
            }
        }
    });
    (heard, thread)
}

/// Copies of checkpoints, beside a run that removes them in the end.
struct Copies {
    folder: PathBuf,
    over: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<()>,
}

/// Copies each checkpoint when it has come.
fn copy(job: &Job) -> Copies {
    let (from, folder) = (job.path("store/checkpoints"), job.path("copies"));
    let over = Arc::new(AtomicBool::new(false));
    let (to, ends) = (folder.clone(), over.clone());
    let thread = std::thread::spawn(move || {
        let mut done = BTreeSet::new();
        while !ends.load(Ordering::Relaxed) {
            for checkpoint in from.read_dir().into_iter().flatten().flatten() {
                let whole = checkpoint.path().join("manifest.json").is_file();
                let to = to.join(checkpoint.file_name());
                if whole && !done.contains(&to) && link(&checkpoint.path(), &to).is_ok() {
                    done.insert(to);
                }
            }
            std::thread::park_timeout(Duration::from_millis(2));
        }
    });
    Copies { folder, over, thread }
}

fn link(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for file in from.read_dir()? {
        let file = file?;
        // One that was linked before the folder was whole is the same file.
        let _ = std::fs::hard_link(file.path(), to.join(file.file_name()));
    }
    Ok(())
}

/// What the model of each copied checkpoint says to the row of halves, and its digest.
fn computed(folder: &Path, steps: &BTreeSet<u64>) -> BTreeMap<u64, (String, Vec<f32>)> {
    actix_rt::System::new().block_on(async {
        let store = open_store(&folder.display().to_string(), Path::new("/")).unwrap();
        let store = CheckpointStore::new(store, "copies", 1000).start();
        let newest = store.send(FindCheckpoint { known: None }).await.unwrap().unwrap();
        let FoundCheckpoint::Other(manifest) = newest else { panic!("no copies") };
        let offer = manifest.offer;
        let model = ModelKinds::builtin().build(&offer.architecture).unwrap();
        let mut inputs = Array2::from_elem((1, 64), 0.5);
        offer.scaling.apply(&mut inputs);
        let mut computed = BTreeMap::new();
        for step in steps {
            let Ok(state) = store.send(LoadState { version: Version(*step) }).await.unwrap() else {
                continue;
            };
            let values = model.predict(&state.parameters, inputs.view());
            computed.insert(*step, (state.digest(), values.into_raw_vec_and_offset().0));
        }
        computed
    })
}

/// Until another state of the training answers.
fn further(up: &mut Running, heard: &Heard) {
    let count = || heard.answers.lock().unwrap().len();
    let before = count();
    up.wait_until("another state that answers", || (count() > before).then_some(()));
}

#[test]
fn a_service_that_follows_the_job_answers_with_its_checkpoints_whoever_is_killed() {
    let job = Job::processes(2, 1, JOB);
    let url = |path: &str| format!("http://127.0.0.1:{}/v2/models{path}", job.port("service"));
    let copies = copy(&job);
    let mut up = job.start(&["up"]);
    let (heard, client) = listen(url("/digits/infer"));
    further(&mut up, &heard);

    // The model is in no registry yet.
    let (status, models) = get(&url(""));
    assert_eq!((status, &models["models"]), (200, &json!([MODEL])), "{models}");
    assert_eq!(get(&url("/digits/ready")).0, 200);
    let (_, metadata) = get(&url("/digits"));
    let version = metadata["properties"]["version"].as_str().unwrap();
    assert!(version.starts_with("step-"), "{metadata}");
    assert_eq!(metadata["versions"], json!([]));
    assert_eq!(get(&url("/digits/versions/1/ready")).0, 404);
    let index = format!("http://127.0.0.1:{}/v2/repository/index", job.port("service"));
    let index = agent().post(&index).send("{}").unwrap().body_mut().read_to_string().unwrap();
    let index: Value = serde_json::from_str(&index).unwrap();
    assert_eq!((&index[0]["name"], &index[0]["state"]), (&json!("digits"), &json!("READY")));
    assert!(index[0]["version"].as_str().unwrap().starts_with("step-"), "{index}");

    for victim in ["worker-1", "ps-0"] {
        kill(up.node(victim), Signal::SIGKILL).unwrap();
        further(&mut up, &heard);
    }
    up.wait_until("the published version", || {
        heard.answers.lock().unwrap().last().filter(|last| last.version == "1").map(|_| ())
    });
    let (_, statistics) = get(&url("/digits/stats"));
    heard.over.store(true, Ordering::Relaxed);
    client.join().unwrap();
    copies.over.store(true, Ordering::Relaxed);
    copies.thread.join().unwrap();

    assert_eq!(*heard.failed.lock().unwrap(), Vec::<String>::new());
    let answers = heard.answers.lock().unwrap().clone();
    let (last, followed) = answers.split_last().unwrap();
    let steps: Vec<u64> = followed.iter().map(|answer| answer.step().unwrap()).collect();
    assert!(steps.len() >= 4 && steps.is_sorted(), "{steps:?}");
    let computed = computed(&copies.folder, &steps.iter().copied().collect());
    // The run may end before its last checkpoint was copied; its digest is the version's.
    assert!(computed.len() + 1 >= steps.len(), "{steps:?}, {:?}", computed.keys());
    for answer in followed {
        let step = answer.step().unwrap();
        match computed.get(&step) {
            Some((digest, values)) => {
                assert_eq!((&answer.digest, &answer.values), (digest, values), "step {step}");
            }
            None => assert_eq!((&answer.digest, &answer.values), (&last.digest, &last.values)),
        }
    }
    // All states are counted together, or each would be a counter of its own for good.
    let counted = statistics["model_stats"].as_array().unwrap();
    let versions: Vec<_> = counted.iter().map(|one| one["version"].as_str().unwrap()).collect();
    assert_eq!(versions, ["training", "1"], "{statistics}");
}
