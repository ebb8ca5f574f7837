//! What is said about what is wrong.

use std::path::Path;

use gradmesh::config::Config;

use crate::support::{load, parse, problem, problems, toml};

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
fn problem_of_a_variable_names_it() {
    let error = load(&toml(&[]), &[("GRADMESH__JOB__EPOCHS", "ten")], &[]).unwrap_err();
    assert_eq!(error.problems[0].source, "GRADMESH__JOB__EPOCHS");
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
fn setting_whose_name_is_no_name_is_refused() {
    for wrong in ["job.model.settings.a b", "job.model.settings.", "job.model.settings.a[0]"] {
        let error = load(&toml(&[]), &[], &[&format!("{wrong}=1")]).unwrap_err();
        assert_eq!(error.problems[0].problem, "there is no such key", "{wrong}");
    }
}
