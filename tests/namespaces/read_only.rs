//! A registry whose file system goes read-only under it, as the system does after an error of a disk.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::network::hold;

const PROGRAM: &str = env!("CARGO_BIN_EXE_node");
const LIMIT: Duration = Duration::from_secs(60);

/// `$0` is mounted over itself, so that it can be read-only alone. Ends with its standard input.
const SET_UP: &str = r#"set -e; mount --bind "$0" "$0"; echo ready; exec cat"#;

/// A folder that can be made read-only for whoever has entered.
struct Mount {
    holder: Child,
    folder: PathBuf,
}

impl Mount {
    fn new(folder: &Path) -> Option<Self> {
        let holder = hold("mount", &["--mount"], &[SET_UP, folder.to_str().unwrap()])?;
        Some(Self { holder, folder: folder.to_owned() })
    }

    fn enter(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg("--target").arg(self.holder.id().to_string());
        command.args(["--user", "--preserve-credentials", "--mount", program]);
        command
    }

    #[track_caller]
    fn remount(&self, how: &str) {
        let options = format!("remount,bind,{how}");
        let output = self.enter("mount").args(["-o", &options]).arg(&self.folder).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// Ends with its test.
struct Serving(Child);

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

/// Two files of one job: one process that trains, and a node with the registry and the service.
fn configurations(folder: &Path, listen: u16) -> [PathBuf; 2] {
    let text = include_str!("../../examples/digits.toml")
        .replace("../gradmesh-data/digits", "store")
        .replace("../data", &format!("{}/data", env!("CARGO_MANIFEST_DIR")));
    let mut nodes = text.clone();
    for (name, roles, more) in [
        ("main", r#"["coordinator", "server", "worker"]"#, String::new()),
        ("a", r#"["registry", "service"]"#, format!("listen = \"127.0.0.1:{listen}\"\n")),
    ] {
        let address = format!("127.0.0.1:{}", free_port());
        let node = format!("name = \"{name}\"\naddress = \"{address}\"\nroles = {roles}\n{more}");
        write!(nodes, "\n[[nodes]]\n{node}").unwrap();
    }
    [("train.toml", text), ("cluster.toml", nodes)].map(|(name, text)| {
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        path
    })
}

fn node(mut command: Command, config: &Path) -> Command {
    command.arg("--config").arg(config).args(["--set", "job.epochs=1"]);
    command.env_remove("GRADMESH_LOG");
    command
}

fn serve(mount: &Mount, config: &Path) -> Serving {
    let mut command = node(mount.enter(PROGRAM), config);
    let mut child = command.args(["run", "--name", "a"]).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let serving = Serving(child);
    assert!(lines.any(|line| line.unwrap().contains("serving on http://")), "it does not serve");
    // Read to their end, so that nothing is written to a closed stream.
    std::thread::spawn(move || lines.for_each(drop));
    serving
}

/// Names a version through the registry of the node that serves.
fn to_production(config: &Path) -> Output {
    let mut command = node(Command::new(PROGRAM), config);
    command.args(["models", "alias", "digits", "production", "1", "--json"]).output().unwrap()
}

fn answers(listen: u16) -> (u16, Value) {
    let config = ureq::Agent::config_builder().http_status_as_error(false);
    let agent: ureq::Agent = config.timeout_global(Some(LIMIT)).build().into();
    let input =
        json!({ "name": "input", "datatype": "FP32", "shape": [1, 64], "data": vec![1.0; 64] });
    let url = format!("http://127.0.0.1:{listen}/v2/models/digits/infer");
    let mut answer =
        agent.post(url).send(json!({ "inputs": [input] }).to_string().as_bytes()).unwrap();
    (answer.status().as_u16(), answer.body_mut().read_json().unwrap())
}

#[test]
fn a_registry_on_a_file_system_that_goes_read_only_refuses_changes_in_words_and_its_node_serves() {
    let folder = tempfile::tempdir().unwrap();
    let (store, listen) = (folder.path().join("store/registry"), free_port());
    std::fs::create_dir_all(&store).unwrap();
    let Some(mount) = Mount::new(&store) else { return };
    let [trains, serves] = configurations(folder.path(), listen);
    let trained = node(Command::new(PROGRAM), &trains).arg("train").output().unwrap();
    assert!(trained.status.success(), "{trained:?}");
    let _serving = serve(&mount, &serves);
    let (status, before) = answers(listen);
    assert_eq!(status, 200, "{before}");

    mount.remount("ro");
    for _ in 0..3 {
        let refused = to_production(&serves);
        let told: Value = serde_json::from_slice(&refused.stdout).unwrap();
        let told = told["error"].as_str().unwrap();
        assert_eq!(refused.status.code(), Some(1), "{told}");
        assert!(told.contains("can't write log/00000000000000000002.json: "), "{told}");
        assert!(told.contains("Read-only file system"), "{told}");
        assert!(told.ends_with("; check the folder of registry.store"), "{told}");
        assert_eq!(answers(listen), (200, before.clone()));
    }

    mount.remount("rw");
    let named = to_production(&serves);
    assert!(named.status.success(), "{named:?}");
    assert_eq!(answers(listen), (200, before));
}
