//! The type, the range and the default of each key.

use std::collections::BTreeSet;

use gradmesh::config::{Config, Fallback, Kind};

use crate::support::{parse, problem, problems, toml, toml_of_node};

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
    ("job.model.from", &["'digits'", "'digits/latest'", "'digits/0'", "3"]),
    (
        "job.model.settings",
        &["1", "'x'", "[1]", "{ a = nan }", "{ a = [inf] }", "{ a.b.c.d.e.f.g.h.i = 1 }"],
    ),
    ("job.data.format", &["1", "'parquet'"]),
    ("job.data.train", &["1", "''", "\"a\\u0000b\"", "['a', 'b']"]),
    ("job.data.train_labels", &["1", "\"a\\nb\""]),
    ("job.data.test", &["1", "\"a\\u001bb\""]),
    ("job.data.test_labels", &["1", "\"a\\u0000b\""]),
    ("job.data.test_fraction", &["1", "-0.1", "0.999999999999", "nan", "'0.2'"]),
    ("job.data.target", &["true", "1.5", "''"]),
    ("job.data.header", &["0", "'false'"]),
    ("job.data.text", &["true", "1.5"]),
    ("job.data.text_buckets", &["0", "4194305", "'2048'"]),
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
    ("servers.replicas", &["-1", "9", "'two'"]),
    ("workers.count", &["0", "4097", "'two'"]),
    ("workers.rebalance", &["1", "'yes'"]),
    ("checkpoint.store", &["1", "''", "\"a\\u0000b\""]),
    ("checkpoint.every_steps", &["0", "1000000001", "'often'"]),
    ("checkpoint.keep", &["0", "1001", "'all'"]),
    ("coordination.store", &["1", "''", "\"a\\u0000b\""]),
    ("coordination.lease_ms", &["99", "60001", "'1 s'"]),
    ("registry.store", &["1", "''", "\"a\\u0000b\""]),
    ("service.listen", &["8080", "'localhost:8080'", "'127.0.0.1'", "'127.0.0.1:65536'"]),
    ("service.grpc_listen", &["8001", "'localhost:8001'", "'127.0.0.1:65536'", "'127.0.0.1:8080'"]),
    ("service.batch_rows", &["0", "1048577", "'all'"]),
    ("service.batch_wait_ms", &["-1", "60001", "0.5"]),
    ("service.queue", &["0", "8193", "'long'"]),
    ("service.instances", &["0", "257", "'two'"]),
    ("service.memory_mb", &["0", "1073741825", "'1 GB'"]),
    ("service.follow", &["'training'", "true"]),
    ("service.keys", &["1", "\"a\\u0000b\""]),
    ("service.model_requests", &["-1", "65537", "'many'"]),
    ("service.model_control", &["1", "'yes'"]),
    ("service.registry_writes", &["1", "'yes'"]),
    ("registry.keep", &["-1", "1000001", "'all'"]),
    ("detector.heartbeat_ms", &["9", "60001", "'250 ms'"]),
    ("detector.dead_after_ms", &["29", "600001", "'1.5 s'"]),
    ("supervisor.restarts_max", &["-1", "1001", "'ten'"]),
    ("supervisor.window_seconds", &["0", "86401", "'minute'"]),
    ("supervisor.backoff_ms", &["0", "60001", "'50 ms'"]),
    ("nodes.name", &["1", "''", "'two words'"]),
    ("nodes.address", &["7100", "'main:7100'", "'127.0.0.1'", "'127.0.0.1:0'"]),
    ("nodes.listen", &["8080", "'localhost:8080'", "'127.0.0.1:80'"]),
    ("nodes.grpc_listen", &["8001", "'localhost:8001'", "'127.0.0.1:80'"]),
    ("nodes.roles", &["'worker'", "[]", "['boss']", "['worker', 'worker']", "[1]"]),
];

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
fn number_of_a_column_may_be_written_as_a_number() {
    assert_eq!(parse(&toml(&[("job.data.target", "-2")])).unwrap().job.data.target, "-2");
}

#[test]
fn kind_of_a_model_may_be_one_that_only_the_program_knows() {
    let text = toml(&[("job.model", "'gated-mlp'")]);
    assert_eq!(parse(&text).unwrap().job.model.kind, "gated-mlp");
}
