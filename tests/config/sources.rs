//! File, environment and `--set` over each other.

use gradmesh_actors::job::OptimizerKind;
use serde_json::{Value, json};

use crate::support::{load, parse, toml};

#[test]
fn environment_holds_over_the_file_and_set_over_both() {
    let text = toml(&[("job.seed", "1"), ("job.epochs", "1"), ("job.batch_size", "1")]);
    let env = [
        ("GRADMESH__JOB__EPOCHS", "2"),
        ("GRADMESH__JOB__BATCH_SIZE", "2"),
        ("GRADMESH_JOB__SEED", "9"),
        ("PATH", "/bin"),
    ];
    let job = load(&text, &env, &["job.batch_size=3"]).unwrap().job;
    assert_eq!((job.seed, job.epochs, job.batch_size), (1, 2, 3));
}

#[test]
fn last_set_of_one_key_holds() {
    let config = load(&toml(&[]), &[], &["job.optimizer=adam", "job.optimizer.kind=sgd"]).unwrap();
    assert_eq!(config.job.optimizer.kind, OptimizerKind::Sgd);
}

#[test]
fn full_name_of_a_variable_holds_over_its_shorthand_in_any_order() {
    let mut env =
        [("GRADMESH__JOB__OPTIMIZER__KIND", "adam"), ("GRADMESH__JOB__OPTIMIZER", "nesterov")];
    for _ in 0..2 {
        let kind = load(&toml(&[]), &env, &[]).unwrap().job.optimizer.kind;
        assert_eq!(kind, OptimizerKind::Adam);
        env.reverse();
    }
}

#[test]
fn text_of_set_is_read_by_the_type_of_its_key() {
    let sets = [
        "job.model.name=7",
        "job.model.hidden=[128,64]",
        "job.data.header=true",
        "job.data.target=-2",
        "job.optimizer.learning_rate=1",
        "job.optimizer.epsilon=1e-6",
        "job.data.train=a=b.csv",
    ];
    let job = load(&toml(&[]), &[], &sets).unwrap().job;
    assert_eq!(job.model.name, "7");
    assert_eq!(job.model.hidden, [128, 64]);
    assert!(job.data.header);
    assert_eq!(job.data.target, "-2");
    assert_eq!((job.optimizer.learning_rate, job.optimizer.epsilon), (1.0, 1e-6));
    assert_eq!(job.data.train, "a=b.csv");
}

#[test]
fn list_may_come_without_brackets_or_empty() {
    let hidden = |set| load(&toml(&[]), &[], &[set]).unwrap().job.model.hidden;
    assert_eq!(hidden("job.model.hidden=128,64"), [128, 64]);
    assert_eq!(hidden("job.model.hidden=[]"), [0; 0]);
}

#[test]
fn empty_text_unsets_an_optional_key() {
    let text = toml(&[("job.data.test", "'test.csv'")]);
    assert_eq!(load(&text, &[], &["job.data.test="]).unwrap().job.data.test, None);
}

#[test]
fn string_in_place_of_a_table_is_its_kind() {
    let text = "job.data.train = 'rows.csv'\njob.model = 'linear'\njob.optimizer = 'adam'";
    let job = load(text, &[], &["job.data=csv", "job.optimizer.schedule=cosine"]).unwrap().job;
    let long = toml(&[
        ("job.model.kind", "'linear'"),
        ("job.optimizer.kind", "'adam'"),
        ("job.optimizer.schedule.kind", "'cosine'"),
    ]);
    assert_eq!(job, parse(&long).unwrap().job);
}

#[test]
fn shorthand_of_set_keeps_the_other_keys_of_the_table() {
    let text = toml(&[("job.optimizer.learning_rate", "0.25")]);
    let optimizer = load(&text, &[], &["job.optimizer=adam"]).unwrap().job.optimizer;
    assert_eq!(optimizer.kind, OptimizerKind::Adam);
    assert_eq!(optimizer.learning_rate, 0.25);
}

#[test]
fn nodes_are_not_set_outside_the_file() {
    let error = load(&toml(&[]), &[], &["nodes=[]"]).unwrap_err();
    assert_eq!(error.problems[0].what_to_do, "write [[nodes]] there");
}

#[test]
fn settings_of_a_kind_are_merged_by_key_from_all_sources() {
    let own = "{ gamma = 1, name = 'x', deep = { a = 1, b = 2 } }";
    let text = toml(&[("job.model.settings", own)]);
    let env = [("GRADMESH__JOB__MODEL__SETTINGS__GAMMA", "2.5")];
    let sets = ["job.model.settings.deep.b=[3, 4]", "job.model.settings.name=two words"];
    let settings = load(&text, &env, &sets).unwrap().job.model.settings;
    let expected = json!({ "gamma": 2.5, "name": "two words", "deep": { "a": 1, "b": [3, 4] } });
    assert_eq!(Value::Object(settings), expected);
}

#[test]
fn settings_of_a_kind_may_be_set_as_one_table() {
    let set = "job.model.settings={ gamma = 2, on = true }";
    let settings = load(&toml(&[]), &[], &[set]).unwrap().job.model.settings;
    assert_eq!(Value::Object(settings), json!({ "gamma": 2, "on": true }));
}

/// A process of its own, since the environment belongs to all tests of this one.
#[test]
#[cfg(unix)]
fn variable_that_is_no_text_is_nobodys_business() {
    use std::os::unix::ffi::OsStrExt;

    let mut node = std::process::Command::new(env!("CARGO_BIN_EXE_node"));
    node.current_dir(env!("CARGO_MANIFEST_DIR")).args(["check", "--config", "cluster.toml"]);
    let output = node.env("OTHER", std::ffi::OsStr::from_bytes(b"\xff")).output();
    let output = output.expect("node starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
