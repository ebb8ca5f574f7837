//! A plan's verdict is the same, whoever runs it.

use std::fmt::Write as _;

use gradmesh::config::Config;
use gradmesh::sim::{Broken, FaultPlan, Report, Seed, Sim, read_plan};
use serde_json::Value;

use crate::support::{JOB, Place, answer, path};

/// Of one kind each; they run in every `cargo test`.
const FEW: [&str; 5] = [
    "all-at-once",
    "drain-server-and-worker",
    "fails-servers-stay-dead",
    "power-loss-server",
    "pause-coordinator",
];

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    SameDigest,
    NotTrained,
    Other(String),
}

fn simulation(plan: FaultPlan, limit: &str) -> Sim {
    let sets = JOB.map(str::to_owned);
    let config = Config::load(&path("examples/digits.toml"), &sets, std::iter::empty()).unwrap();
    let gradmesh::sim::Time(limit) = limit.parse().unwrap();
    Sim::cluster(config).unwrap().limit(std::time::Duration::from_millis(limit)).plan(plan)
}

fn simulated(report: &Report, calm: &str) -> Verdict {
    match &report.broken {
        None if report.digest() == Some(calm) => Verdict::SameDigest,
        Some(Broken::Hung { .. }) => Verdict::NotTrained,
        other => Verdict::Other(format!("{other:?} {:?}", report.digest())),
    }
}

fn real(answer: &Value) -> Verdict {
    match answer["verdict"].as_str() {
        Some("same") => Verdict::SameDigest,
        Some("not-trained") => Verdict::NotTrained,
        _ => Verdict::Other(answer.to_string()),
    }
}

/// The row of the table; the verdicts are compared, and each fault must have begun in both.
fn run(name: &str, calm: &str) -> String {
    let file = path(&format!("examples/plans/{name}.toml"));
    let plan = read_plan(&file).unwrap();
    let faults = plan.faults.len();
    let (expected, limit) = if name.starts_with("fails-") {
        (Verdict::NotTrained, "8s")
    } else {
        (Verdict::SameDigest, "40s")
    };
    let report = simulation(plan, limit).run(Seed(0));
    assert_eq!(simulated(&report, calm), expected, "{name}, simulated: {report}");
    assert_eq!(report.counts.faults_begun, faults as u64, "{name}, simulated: {report}");
    let place = Place::new();
    let arguments = [file.to_str().unwrap(), "--for", limit, "--json"];
    let output = place.chaos("examples/digits.toml", &arguments).output().unwrap();
    let answer = answer(&output);
    assert_eq!(real(&answer), expected, "{name}, real: {answer}");
    assert_eq!(answer["begun"], faults, "{name}, real: {answer}");
    assert_eq!(answer["calm_digest"], calm, "{name}: {answer}");
    assert_eq!(output.status.success(), expected == Verdict::SameDigest);
    assert_eq!(place.processes(), [""; 0]);
    let training = report.training.as_ref();
    format!(
        "| {name} | {expected:?} | {} | {} | {:.1} | {:?} | {} | {} | {:.1} |\n",
        training.map_or(0, |training| training.rollbacks),
        report.counts.restarts,
        report.took.as_secs_f64(),
        real(&answer),
        answer["rollbacks"],
        answer["restarts"],
        answer["seconds"].as_f64().unwrap()
    )
}

#[test]
fn plans_give_the_same_verdict_simulated_and_real() {
    let mut names: Vec<String> = path("examples/plans")
        .read_dir()
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    names.sort();
    assert_eq!(names.len(), 21);
    if std::env::var("GRADMESH_PLANS").as_deref() != Ok("all") {
        names.retain(|name| FEW.contains(&name.as_str()));
        assert_eq!(names.len(), FEW.len());
    }
    let calm = simulation(FaultPlan::default(), "40s").run(Seed(0));
    let calm = calm.digest().unwrap();
    let mut table = "| plan | simulated | rollbacks | restarts | s | real | rollbacks | restarts | s |\n|---|---|---|---|---|---|---|---|---|\n".to_owned();
    for name in names {
        write!(table, "{}", run(&name, calm)).unwrap();
    }
    println!("{table}");
}
