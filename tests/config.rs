//! What the configuration takes, what it refuses, and what it says about it.

#![allow(clippy::expect_used, reason = "clippy takes the helpers of tests for production code")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use config::{File, FileFormat, Source, Value, ValueKind};
use gradmesh::config::{Config, ConfigError, Fallback, Key, Kind, Problem, Role};

/// The least that a configuration must say.
const LEAST: &[(&str, &str)] =
    &[("job.data.format", "\"csv\""), ("job.data.train", "\"rows.csv\"")];

/// The least that a node must say, by key of the schema.
const NODE: &[(&str, &str)] = &[
    ("nodes.name", "\"all\""),
    ("nodes.address", "\"127.0.0.1:7100\""),
    ("nodes.roles", "[\"coordinator\", \"server\", \"worker\", \"registry\"]"),
];

/// For each key: values, as TOML writes them, that must be refused.
const REFUSED: &[(&str, &[&str])] = &[
    ("cluster.name", &["1", "''", "'two words'", "'..'", "'a/b'"]),
    ("job.seed", &["-1", "1.5", "'one'", "true"]),
    ("job.epochs", &["0", "1000001", "'ten'", "10.0"]),
    ("job.batch_size", &["0", "16777217", "'64'", "[64]"]),
    ("job.virtual_workers", &["0", "4097", "'8'"]),
    ("job.model.name", &["1", "''", "'.'", "'déjà'"]),
    ("job.model.kind", &["1", "''", "'two words'"]),
    ("job.model.hidden", &["64", "[0]", "[65537]", "[1.5]", "['wide']", "'64'"]),
    ("job.model.activation", &["1", "'gelu'", "'ReLU'"]),
    ("job.model.loss", &["1", "'hinge'"]),
    ("job.data.format", &["1", "'parquet'"]),
    ("job.data.train", &["1", "''", "\"a\\u0000b\"", "['a', 'b']"]),
    ("job.data.train_labels", &["1", "\"a\\nb\""]),
    ("job.data.test", &["1", "\"a\\u001bb\""]),
    ("job.data.test_labels", &["1", "\"a\\u0000b\""]),
    ("job.data.test_fraction", &["1", "-0.1", "0.999999999999", "nan", "'0.2'"]),
    ("job.data.target", &["true", "1.5", "''"]),
    ("job.data.header", &["0", "'false'"]),
    ("job.data.scale", &["255", "'minmax'"]),
    ("job.data.divide_by", &["0", "-1", "1e10", "1e-60", "inf", "'255'"]),
    ("job.optimizer.kind", &["1", "'adagrad'"]),
    ("job.optimizer.learning_rate", &["0", "-0.1", "1001", "nan", "'0.1'"]),
    ("job.optimizer.momentum", &["1", "-0.1", "0.999999999999", "'0.9'"]),
    ("job.optimizer.beta1", &["1", "-0.1", "true"]),
    ("job.optimizer.beta2", &["1", "-0.1", "true"]),
    ("job.optimizer.epsilon", &["0", "1.1", "'small'"]),
    ("job.optimizer.weight_decay", &["-0.1", "101", "'none'"]),
    ("job.optimizer.schedule.kind", &["1", "'linear'"]),
    ("job.optimizer.schedule.warmup_steps", &["-1", "1000000001", "0.5"]),
    ("job.optimizer.schedule.every_steps", &["0", "1000000001", "0.5"]),
    ("job.optimizer.schedule.factor", &["0", "1.1", "'half'"]),
    ("job.optimizer.schedule.floor", &["-0.1", "1.1", "'none'"]),
    ("job.gradient.clip_value", &["-1", "1e10", "inf", "'off'"]),
    ("job.gradient.clip_norm", &["-1", "1e10", "nan", "'off'"]),
    ("job.gradient.codec", &["16", "'fp8'"]),
    ("job.gradient.top_k", &["0", "1.1", "'1%'"]),
    ("servers.shards", &["0", "1025", "'two'"]),
    ("workers.count", &["0", "4097", "'two'"]),
    ("checkpoint.store", &["1", "''", "\"a\\u0000b\""]),
    ("checkpoint.every_steps", &["0", "1000000001", "'often'"]),
    ("checkpoint.keep", &["0", "1001", "'all'"]),
    ("registry.store", &["1", "''", "\"a\\u0000b\""]),
    ("service.listen", &["8080", "'localhost:8080'", "'127.0.0.1'", "'127.0.0.1:65536'"]),
    ("detector.heartbeat_ms", &["9", "60001", "'250 ms'"]),
    ("detector.dead_after_ms", &["29", "600001", "'1.5 s'"]),
    ("supervisor.restarts_max", &["-1", "1001", "'ten'"]),
    ("supervisor.window_seconds", &["0", "86401", "'minute'"]),
    ("supervisor.backoff_ms", &["0", "60001", "'50 ms'"]),
    ("nodes.name", &["1", "''", "'two words'"]),
    ("nodes.address", &["7100", "'main:7100'", "'127.0.0.1'", "'127.0.0.1:0'"]),
    ("nodes.roles", &["'worker'", "[]", "['boss']", "['worker', 'worker']", "[1]"]),
];

/// TOML of the least configuration with these keys set or changed.
fn toml(changes: &[(&str, &str)]) -> String {
    let kept = LEAST.iter().filter(|(key, _)| changes.iter().all(|(changed, _)| changed != key));
    kept.chain(changes).map(|(key, value)| format!("{key} = {value}\n")).collect()
}

/// TOML of the least configuration with one node, of which one key is changed.
fn toml_of_node(change: (&str, &str)) -> String {
    let pairs = NODE.iter().map(|(key, value)| if *key == change.0 { change.1 } else { value });
    let names = NODE.iter().map(|(key, _)| key.trim_start_matches("nodes."));
    let pairs: Vec<_> = names.zip(pairs).map(|(name, value)| format!("{name} = {value}")).collect();
    toml(&[("nodes", &format!("[{{ {} }}]", pairs.join(", ")))])
}

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::from_toml(text, Path::new("."))
}

fn problems(text: &str) -> Vec<Problem> {
    parse(text).map_or_else(|error| error.problems, |_| panic!("accepted:\n{text}"))
}

/// The one problem of a text.
fn problem(text: &str) -> Problem {
    let mut problems = problems(text);
    assert_eq!(problems.len(), 1, "{problems:#?}\n{text}");
    problems.remove(0)
}

/// Loads a text as a file would be, with the other two sources over it.
fn load(text: &str, env: &[(&str, &str)], sets: &[&str]) -> Result<Config, ConfigError> {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("cluster.toml");
    std::fs::write(&file, text).expect("the file is written");
    let sets: Vec<_> = sets.iter().map(|set| (*set).to_owned()).collect();
    let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Config::load(&file, &sets, env)
}

fn in_repository(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(file)
}

fn load_from_repository(file: &str) -> Config {
    let loaded = Config::load(&in_repository(file), &[], std::iter::empty());
    loaded.unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn least_configuration_has_a_default_for_everything_else() {
    let config = parse(&toml(&[])).unwrap();
    assert_eq!(config.cluster.name, "gradmesh");
    assert_eq!((config.job.seed, config.job.epochs, config.job.batch_size), (1, 10, 64));
    assert_eq!(config.job.model.hidden, [64, 32]);
    assert_eq!(config.job.optimizer.epsilon, 1e-8);
    assert_eq!(config.job.data.target, "-1");
    assert_eq!(config.job.data.test, None);
    assert_eq!(config.service.listen, "127.0.0.1:8080".parse().unwrap());
    assert!(config.nodes.is_empty());
}

#[test]
fn every_key_refuses_wrong_types_and_values_out_of_range() {
    let tested: BTreeSet<_> = REFUSED.iter().map(|(key, _)| *key).collect();
    let known: BTreeSet<_> = Config::keys().map(|key| key.path).collect();
    assert_eq!(tested, known, "each key needs its rejections, and only keys have them");
    for (key, values) in REFUSED {
        assert!(!values.is_empty(), "{key} has no rejection");
        for value in *values {
            let (text, path) = match key.strip_prefix("nodes.") {
                Some(name) => (toml_of_node((key, value)), format!("nodes[0].{name}")),
                None => (toml(&[(key, value)]), (*key).to_owned()),
            };
            assert_eq!(problem(&text).key, path, "{text}");
        }
    }
}

#[test]
fn both_ends_of_every_range_of_whole_numbers_are_taken() {
    for key in Config::keys() {
        let Kind::Integer { min, max } = key.kind else { continue };
        for end in [min, max] {
            let end = end.to_string();
            let mut changes = vec![(key.path, end.as_str())];
            // The relation of these two is not what is tested here.
            match key.path {
                "detector.heartbeat_ms" => changes.push(("detector.dead_after_ms", "600000")),
                "detector.dead_after_ms" => changes.push(("detector.heartbeat_ms", "10")),
                _ => {}
            }
            assert_eq!(parse(&toml(&changes)).err(), None, "{} = {end}", key.path);
        }
    }
}

#[test]
fn every_choice_of_every_key_is_taken() {
    for key in Config::keys() {
        let Kind::Choice(choices) = key.kind else { continue };
        for choice in choices {
            let value = format!("{choice:?}");
            let changes = [(key.path, value.as_str()), ("job.data.train_labels", "'labels'")];
            let labels = usize::from(*choice == "idx");
            assert_eq!(parse(&toml(&changes[..=labels])).err(), None, "{} = {choice}", key.path);
        }
    }
}

#[test]
fn required_keys_are_reported_when_missing() {
    let missing: Vec<_> = problems("").into_iter().map(|problem| problem.key).collect();
    let required = Config::keys().filter(|key| key.default == Fallback::Required);
    let required: Vec<_> =
        required.map(|key| key.path).filter(|path| !path.starts_with("nodes.")).collect();
    assert_eq!(missing, required);
    let node: Vec<_> = problems(&toml(&[("nodes", "[{}]")])).into_iter().map(|p| p.key).collect();
    assert_eq!(node, ["nodes[0].name", "nodes[0].address", "nodes[0].roles"]);
}

#[test]
fn unknown_key_names_the_nearest() {
    for (wrong, nearest) in [
        ("job.optimzer", "job.optimizer"),
        ("job.optimizer.learning_rat", "job.optimizer.learning_rate"),
        ("batch_size", "job.batch_size"),
        ("worker.count", "workers"),
    ] {
        let problem = problem(&toml(&[(wrong, "1")]));
        assert_eq!(problem.what_to_do, format!("did you mean {nearest}?"), "{wrong}");
    }
    let error = load(&toml(&[]), &[], &["worker.count=1"]).unwrap_err();
    assert_eq!(error.problems[0].what_to_do, "did you mean workers.count?");
    let node = toml(&[("nodes", "[{ name = 'a', adress = '127.0.0.1:1', roles = ['worker'] }]")]);
    assert_eq!(problems(&node)[0].what_to_do, "did you mean nodes[0].address?");
}

#[test]
fn unknown_choice_names_the_nearest() {
    for (key, wrong, nearest) in [
        ("job.optimizer.kind", "\"adma\"", "adam"),
        ("job.gradient.codec", "\"topk\"", "top-k"),
        ("job.model.activation", "\"Relu\"", "relu"),
    ] {
        let what_to_do = problem(&toml(&[(key, wrong)])).what_to_do;
        assert_eq!(what_to_do, format!("did you mean \"{nearest}\"? change {key}"));
    }
}

#[test]
fn quoted_name_with_dots_is_not_a_path() {
    let problem = problem(&format!("{}\n\"job.seed\" = 1", toml(&[])));
    assert_eq!(problem.problem, "there is no such key");
}

#[test]
fn value_in_place_of_a_table_is_refused() {
    let problem = problem(&toml(&[("servers", "2")]));
    assert_eq!(problem.what_to_do, "set one of its keys, such as servers.shards");
}

#[test]
fn all_problems_of_all_sources_are_reported_at_once() {
    let text = toml(&[("job.epochs", "0"), ("job.colour", "1"), ("detector.heartbeat_ms", "1000")]);
    let env = [("GRADMESH__WORKERS__COUNT", "many")];
    let error = load(&text, &env, &["job.batch_size=-5", "servers"]).unwrap_err();
    let keys: Vec<_> = error.problems.iter().map(|problem| problem.key.as_str()).collect();
    let expected = [
        "job.colour",
        "servers",
        "job.epochs",
        "job.batch_size",
        "workers.count",
        "detector.dead_after_ms",
    ];
    assert_eq!(keys, expected);
    assert_eq!(error.to_string().lines().count(), expected.len(), "{error}");
}

#[test]
fn problem_is_one_line_with_source_value_range_and_what_to_change() {
    let error = load(&toml(&[]), &[], &["job.batch_size=many"]).unwrap_err();
    let line = "--set: job.batch_size = \"many\": expected a whole number from 1 to 16777216; \
                change job.batch_size (default: 64)";
    assert_eq!(error.to_string(), line);
}

#[test]
fn values_reach_the_terminal_short_and_without_control_characters() {
    let long = "x".repeat(100_000);
    for value in ["\"\\u001b[2J\\nsecond line\"", &format!("\"{long}\"")] {
        let error = parse(&toml(&[("job.optimizer.kind", value)])).unwrap_err().to_string();
        assert!(!error.chars().any(char::is_control), "{error}");
        assert!(error.len() < 400, "{} bytes", error.len());
    }
}

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
    assert_eq!(config.job.optimizer.kind, gradmesh_actors::job::OptimizerKind::Sgd);
}

#[test]
fn full_name_of_a_variable_holds_over_its_shorthand_in_any_order() {
    let mut env =
        [("GRADMESH__JOB__OPTIMIZER__KIND", "adam"), ("GRADMESH__JOB__OPTIMIZER", "nesterov")];
    for _ in 0..2 {
        let kind = load(&toml(&[]), &env, &[]).unwrap().job.optimizer.kind;
        assert_eq!(kind, gradmesh_actors::job::OptimizerKind::Adam);
        env.reverse();
    }
}

#[test]
fn problem_of_a_variable_names_it() {
    let error = load(&toml(&[]), &[("GRADMESH__JOB__EPOCHS", "ten")], &[]).unwrap_err();
    assert_eq!(error.problems[0].source, "GRADMESH__JOB__EPOCHS");
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
fn number_of_a_column_may_be_written_as_a_number() {
    assert_eq!(parse(&toml(&[("job.data.target", "-2")])).unwrap().job.data.target, "-2");
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
    assert_eq!(optimizer.kind, gradmesh_actors::job::OptimizerKind::Adam);
    assert_eq!(optimizer.learning_rate, 0.25);
}

#[test]
fn kind_of_a_model_may_be_one_that_only_the_program_knows() {
    let text = toml(&[("job.model", "'gated-mlp'")]);
    assert_eq!(parse(&text).unwrap().job.model.kind, "gated-mlp");
}

#[test]
fn nodes_are_not_set_outside_the_file() {
    let error = load(&toml(&[]), &[], &["nodes=[]"]).unwrap_err();
    assert_eq!(error.problems[0].what_to_do, "write [[nodes]] there");
}

#[test]
fn dead_after_is_at_least_three_heartbeats() {
    let detector = |dead_after: &str| {
        toml(&[("detector.heartbeat_ms", "500"), ("detector.dead_after_ms", dead_after)])
    };
    assert_eq!(parse(&detector("1500")).err(), None);
    let problem = problem(&detector("1499"));
    assert_eq!(problem.key, "detector.dead_after_ms");
    assert!(problem.what_to_do.contains("1500"), "{problem}");
}

#[test]
fn labels_go_with_idx_and_with_its_rows() {
    let idx = [("job.data.format", "'idx'"), ("job.data.train_labels", "'labels'")];
    assert_eq!(parse(&toml(&idx)).err(), None);
    for (changes, key) in [
        (&idx[..1], "job.data.train_labels"),
        (&[("job.data.train_labels", "'labels'")], "job.data.train_labels"),
        (&[idx[0], idx[1], ("job.data.test", "'test'")], "job.data.test_labels"),
        (&[idx[0], idx[1], ("job.data.test_labels", "'labels'")], "job.data.test_labels"),
        (&[("job.data.test_labels", "'labels'")], "job.data.test_labels"),
        // A value of the wrong type is not also reported as missing.
        (&[idx[0], ("job.data.train_labels", "1")], "job.data.train_labels"),
        (&[idx[0], idx[1], ("job.data.train", "1")], "job.data.train"),
        (
            &[idx[0], idx[1], ("job.data.test", "1"), ("job.data.test_labels", "'labels'")],
            "job.data.test",
        ),
    ] {
        assert_eq!(problem(&toml(changes)).key, key, "{changes:?}");
    }
}

#[test]
fn labels_file_beside_a_csv_file_leads_to_the_target_column() {
    for labels in ["job.data.train_labels", "job.data.test_labels"] {
        let problem = problem(&toml(&[(labels, "'labels'")]));
        assert!(problem.problem.ends_with("job.data.target"), "{problem}");
    }
}

#[test]
fn every_needed_role_that_no_node_has_is_named() {
    for (roles, missing) in [
        ("['server', 'worker', 'registry']", "coordinator"),
        ("['coordinator', 'worker', 'registry']", "server"),
        ("['coordinator', 'server', 'registry']", "worker"),
        ("['coordinator', 'server', 'worker', 'service']", "registry"),
    ] {
        let problem = problem(&toml_of_node(("nodes.roles", roles)));
        assert_eq!(problem.problem, format!("no node has the role {missing}"));
    }
}

#[test]
fn nodes_share_no_name_address_or_single_role() {
    let two = |name: &str, address: &str, roles: &str| {
        let one = "name = 'a', address = '127.0.0.1:1', roles = ['coordinator', 'server', \
                   'worker', 'registry']";
        let other =
            format!("name = '{name}', address = '127.0.0.1:{address}', roles = ['{roles}']");
        toml(&[("nodes", &format!("[{{ {one} }}, {{ {other} }}]"))])
    };
    assert_eq!(parse(&two("b", "2", "worker")).err(), None);
    assert_eq!(problem(&two("a", "2", "worker")).key, "nodes[1].name");
    assert_eq!(problem(&two("b", "1", "worker")).key, "nodes[1].address");
    for role in ["coordinator", "registry"] {
        let problem = problem(&two("b", "2", role)).problem;
        assert_eq!(problem, format!("2 nodes have the role {role}, of which there is one"));
    }
}

#[test]
fn nodes_as_one_table_are_refused() {
    let problem = problem(&toml(&[("nodes.name", "'a'")]));
    assert_eq!(problem.what_to_do, "write each node as [[nodes]]");
}

#[test]
fn file_that_is_not_there_leads_to_the_flag() {
    let error = Config::load(Path::new("no/such.toml"), &[], std::iter::empty()).unwrap_err();
    let line = "no/such.toml: there is no such file; name the configuration file with --config";
    assert_eq!(error.to_string(), line);
}

#[test]
fn syntax_error_has_line_and_column() {
    let error = parse("[job]\nseed = = 1\n").unwrap_err().to_string();
    assert!(error.starts_with("configuration: not valid TOML at line 2, column 8: "), "{error}");
    assert_eq!(error.lines().count(), 1, "{error}");
}

#[test]
fn paths_are_relative_to_the_folder_of_the_file() {
    let config = load_from_repository("examples/digits.toml");
    assert_eq!(
        config.path(&config.job.data.train),
        in_repository("examples/../data/digits/digits.csv.gz")
    );
    assert_eq!(config.path("/absolute"), Path::new("/absolute"));
}

#[test]
fn cluster_toml_is_the_fashion_job_with_all_other_values_at_their_defaults() {
    let config = load_from_repository("cluster.toml");
    let least = parse(&toml(&[])).unwrap();
    assert_eq!(config.job.model.name, "fashion");
    assert_eq!(config.job.data.train, "data/fashion/train-images-idx3-ubyte.gz");
    let mut expected = least.clone();
    expected.folder.clone_from(&config.folder);
    expected.job.data = config.job.data.clone();
    expected.job.model.name.clone_from(&config.job.model.name);
    assert_eq!(config, expected);
}

#[test]
fn cluster_toml_holds_every_key_with_its_meaning_and_range() {
    let text = std::fs::read_to_string(in_repository("cluster.toml")).unwrap();
    let root = File::from_str(&text, FileFormat::Toml).collect().unwrap();
    let root = Value::new(None, root);
    let has = |key: &Key| {
        let found = key.path.split('.').try_fold(&root, |value, name| match &value.kind {
            ValueKind::Table(table) => table.get(name),
            _ => None,
        });
        found.is_some()
    };
    for key in Config::keys().filter(|key| !key.path.starts_with("nodes.")) {
        assert!(has(key), "{} is not in cluster.toml", key.path);
        let name = key.path.rsplit('.').next().unwrap();
        let comment = format!("# {} ({})\n{name} = ", key.doc, key.kind);
        assert!(text.contains(&comment), "cluster.toml does not say:\n{comment}");
    }
}

#[test]
fn three_nodes_train_the_job_of_cluster_toml() {
    let mut config = load_from_repository("examples/three-nodes.toml");
    let names: Vec<_> = config.nodes.iter().map(|node| node.name.as_str()).collect();
    assert_eq!(names, ["main", "ps-0", "ps-1", "worker-0", "worker-1"]);
    assert_eq!(config.nodes[0].roles, [Role::Coordinator, Role::Registry, Role::Service]);
    assert_eq!(config.servers.shards, 2);
    let data = &mut config.job.data;
    for path in [
        Some(&mut data.train),
        data.train_labels.as_mut(),
        data.test.as_mut(),
        data.test_labels.as_mut(),
    ] {
        let path = path.expect("all four files");
        *path = path.strip_prefix("../").expect("examples/ is below the data").to_owned();
    }
    assert_eq!(config.job, load_from_repository("cluster.toml").job);
}

#[test]
fn digest_is_that_of_what_all_nodes_agree_on() {
    let digest = |changes: &[(&str, &str)]| parse(&toml(changes)).unwrap().digest();
    let same = digest(&[]);
    for change in [
        ("service.listen", "'0.0.0.0:80'"),
        ("checkpoint.store", "'elsewhere'"),
        ("checkpoint.keep", "9"),
        ("registry.store", "'elsewhere'"),
        ("detector.heartbeat_ms", "100"),
        ("supervisor.restarts_max", "1"),
    ] {
        assert_eq!(digest(&[change]), same, "{change:?}");
    }
    let node = parse(&toml_of_node(NODE[0])).unwrap().digest();
    assert_ne!(node, same);
    for change in [
        ("cluster.name", "'other'"),
        ("job.seed", "2"),
        ("job.optimizer.learning_rate", "0.2"),
        ("servers.shards", "2"),
        ("workers.count", "3"),
        ("checkpoint.every_steps", "100"),
    ] {
        assert_ne!(digest(&[change]), same, "{change:?}");
    }
}
