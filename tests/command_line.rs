//! What `node` does with the streams and signals of a script.

#![allow(clippy::unwrap_used, reason = "the helpers of a test fail with it")]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn node(arguments: &[&str]) -> Command {
    let mut node = Command::new(env!("CARGO_BIN_EXE_node"));
    node.current_dir(env!("CARGO_MANIFEST_DIR")).args(arguments);
    node
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn registry(folder: &Path) -> String {
    format!("registry.store={}", folder.display())
}

#[test]
fn an_answer_whose_reader_is_gone_is_no_failure() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = node(&["check", "--keys"]).stdout(writer).output().unwrap();
    assert!(output.status.success(), "{}", errors(&output));
}

#[test]
fn an_answer_that_a_full_disk_refuses_is_a_failure_in_words() {
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let output = node(&["check"]).stdout(Stdio::from(full)).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", errors(&output));
    assert!(errors(&output).contains("standard output can't be written"), "{}", errors(&output));
}

#[test]
fn the_list_of_an_unknown_model_is_a_failure() {
    let folder = tempfile::tempdir().unwrap();
    let store = registry(folder.path());
    let output = node(&["models", "list", "nosuch", "--set", &store]).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", errors(&output));
    assert!(errors(&output).contains("no model \"nosuch\""), "{}", errors(&output));
}

#[test]
fn a_new_key_is_printed_once_and_its_digest_stands_in_the_file() {
    use gradmesh::service::Keys;

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys.toml");
    let set = format!("service.keys={}", file.display());
    let add = |more: &[&str]| {
        let arguments = [&["--set", &set, "keys", "add"][..], more].concat();
        node(&arguments).output().unwrap()
    };
    let output = add(&["shop", "--model", "digits", "--model", "emoji-*", "--requests", "8"]);
    assert!(output.status.success(), "{}", errors(&output));
    let key = String::from_utf8(output.stdout).unwrap().trim().to_owned();
    assert_eq!((key.len(), &key[..3]), (67, "gm-"));
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(!text.contains(&key) && !errors(&add(&["lab"])).contains("gm-"), "{text}");
    let digest = blake3::hash(key.as_bytes()).to_hex();
    for line in ["name = \"shop\"", "models = [\"digits\", \"emoji-*\"]", "requests = 8", &digest] {
        assert!(text.contains(line), "{line}: {text}");
    }
    #[cfg(unix)]
    {
        let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&file).unwrap());
        assert_eq!(mode & 0o777, 0o600);
    }
    // What the service would refuse leaves the file as it was.
    let before = std::fs::read_to_string(&file).unwrap();
    let again = add(&["shop"]);
    assert_eq!(again.status.code(), Some(1));
    assert!(errors(&again).contains("two have this name"), "{}", errors(&again));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), before);
    assert!(Keys::read(&file).is_ok());
    let nowhere = node(&["keys", "add", "shop"]).output().unwrap();
    assert!(errors(&nowhere).contains("set service.keys to one"), "{}", errors(&nowhere));
}

/// A script that goes on with the model has to know that there is none.
#[test]
fn a_cluster_that_is_stopped_before_the_model_is_published_has_no_success() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("cluster.toml");
    let text = r#"
        [job.data]
        format = "csv"
        train = "rows.csv"
        [job]
        epochs = 1000000
        [[nodes]]
        name = "all"
        address = "127.0.0.1:1"
        roles = ["coordinator", "server", "worker", "registry", "service"]
    "#;
    std::fs::write(&config, text).unwrap();
    std::fs::write(folder.path().join("rows.csv"), "1,2,0\n2,1,1\n".repeat(20)).unwrap();
    let mut up = node(&["up", "--train", "--config"]);
    let mut up = up.arg(&config).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(up.stderr.take().unwrap()).lines();
    let started = lines.any(|line| line.unwrap().contains("started"));
    assert!(started, "the node was not started");
    let pid = nix::unistd::Pid::from_raw(i32::try_from(up.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    // Read to its end, so that nothing is written to a closed stream.
    lines.for_each(drop);
    assert_eq!(up.wait().unwrap().code(), Some(130));
}

/// The one JSON value of an answer.
#[track_caller]
fn json(output: &Output) -> serde_json::Value {
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text:?}"))
}

#[test]
fn a_failure_is_an_object_on_standard_output_where_json_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let store = registry(folder.path());
    for command in [
        &["models", "list", "nosuch"][..],
        &["models", "delete", "nosuch", "latest"],
        &["predict", "nosuch", "--input", "nosuch.csv"],
        &["status", "--config", "nosuch.toml"],
    ] {
        let output = node(command).args(["--json", "--set", &store]).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{command:?}: {}", errors(&output));
        let answer = json(&output);
        let said = answer["error"].as_str().unwrap();
        assert!(errors(&output).contains(said), "{command:?}: {said}");
    }
}

#[test]
fn all_keys_are_one_list_where_json_is_asked_for() {
    let keys = json(&node(&["check", "--keys", "--json"]).output().unwrap());
    let epochs = keys.as_array().unwrap().iter().find(|key| key["key"] == "job.epochs").unwrap();
    assert_eq!((&epochs["default"], &epochs["required"]), (&"10".into(), &false.into()));
}

#[test]
fn a_filter_of_logs_that_is_none_is_refused() {
    for filter in ["node=loud", "wran"] {
        let output = node(&["check", "--log", filter]).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{filter}: {}", errors(&output));
        assert!(errors(&output).contains("--log"), "{filter}: {}", errors(&output));
    }
}

#[test]
fn a_version_to_delete_is_named_by_its_number() {
    let folder = tempfile::tempdir().unwrap();
    let store = registry(folder.path());
    let output = node(&["models", "delete", "any", "latest", "--set", &store]).output().unwrap();
    assert!(errors(&output).contains("delete any by number"), "{}", errors(&output));
}

#[test]
fn a_node_that_no_restart_helps_has_an_exit_code_of_its_own() {
    for wrong in [&["--set", "job.epohcs=1"][..], &["--set", "job.data.train=nowhere.csv"]] {
        let folder = tempfile::tempdir().unwrap();
        let store = format!("checkpoint.store={}", folder.path().display());
        let output = node(&["run", "--set", &store]).args(wrong).output().unwrap();
        assert_eq!(output.status.code(), Some(78), "{wrong:?}: {}", errors(&output));
    }
}

/// Whether so few requests leave it flat says nothing; that the exit code says the same does.
#[cfg(target_os = "linux")]
#[test]
fn memory_of_a_service_is_told_at_a_tenth_a_half_and_the_end_of_its_requests() {
    let output = node(&["bench", "--serve", "--requests", "2000", "--json"]).output().unwrap();
    let told = json(&output);
    let counts = ["requests", "refused"].map(|name| told[name].as_u64());
    assert_eq!(counts, [Some(2000), Some(125)], "{told}");
    let resident = told["resident_bytes"].as_array().unwrap().iter();
    let resident: Vec<u64> = resident.map(|bytes| bytes.as_u64().unwrap()).collect();
    assert!(resident.len() == 3 && resident.iter().all(|bytes| *bytes > 1 << 20), "{told}");
    assert_eq!(output.status.success(), told["flat"] == true, "{told}");
}
