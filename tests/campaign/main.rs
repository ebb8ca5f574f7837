//! Many seeds of one simulation: what passes, what fails, and what a failure says.

#![allow(clippy::unwrap_used, reason = "the helpers of a test fail with it")]

mod pasted;
mod repeated;
mod trained;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use gradmesh::node::NodeContext;
use gradmesh::sim::{
    Broken, CampaignError, Failure, Fault, Progress, Seed, ShrinkBudget, Sim, Swarm, kill, pause,
};
use tokio::time::sleep;

/// A node that counts in its memory, five more that do nothing, and six seconds.
fn counter() -> Sim {
    let sim = Sim::new().node("counter", |node| async move {
        for count in 0.. {
            node.show("count", count);
            sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    });
    let sim = (0..5).fold(sim, |sim, i| {
        sim.node(&format!("idle-{i}"), |_| async {
            std::future::pending::<()>().await;
            Ok(())
        })
    });
    sim.for_(Duration::from_secs(6)).at_end("increments are kept", |world| {
        world.value("counter", "count").is_some_and(|count| count >= 50)
    })
}

/// The same, but it knows the count from what outlives it.
fn durable_counter() -> Sim {
    let sim = Sim::new().node("counter", |node| async move {
        loop {
            let tenths = node.unix_time().as_millis() / 100;
            node.show("count", i64::try_from(tenths).unwrap());
            sleep(Duration::from_millis(100)).await;
        }
    });
    sim.for_(Duration::from_secs(6)).at_end("increments are kept", |world| {
        world.value("counter", "count").is_some_and(|count| count >= 50)
    })
}

/// Of twelve, the seventh alone loses increments.
fn twelve() -> Vec<Fault> {
    let idle = |i: u64| {
        let (node, at) = (format!("idle-{}", i % 5), format!("{}ms", 211 + i * 333));
        let fault = if i.is_multiple_of(2) { kill(&node) } else { pause(&node) };
        fault.at(&at).for_("777ms")
    };
    let mut faults: Vec<Fault> = (0..11).map(idle).collect();
    faults.insert(6, kill("counter").at("2345ms").for_("678ms"));
    faults
}

fn swarm() -> Swarm {
    Swarm::default().until(Duration::from_secs(5))
}

fn failure(error: CampaignError) -> Failure {
    match error {
        CampaignError::Broken(failure) => *failure,
        other => panic!("{other}"),
    }
}

#[test]
fn a_campaign_that_passes_says_what_it_has_done() {
    let sim = durable_counter().faults([kill("counter").at("1s").for_("200ms")]);
    let sim = sim.sometimes("the counter is down", |world| !world.node("counter").unwrap().up);
    let summary = sim.seeds(5..25).check();
    assert_eq!((summary.seeds, summary.faults, summary.restarts), (20, 20, 20));
    assert_eq!(summary.simulated, Duration::from_secs(20 * 6));
    assert_eq!(summary.sometimes.get("the counter is down"), Some(&20));
}

#[test]
fn a_failure_says_all_that_is_needed_to_go_after_it() {
    let error = counter().faults(twelve()).seeds(3..9).run().unwrap_err();
    let text = error.to_string();
    for part in [
        "seed 3: \"increments are kept\" does not hold",
        "kill(\"counter\").at(\"2345ms\").for_(\"678ms\")",
        "12 faults, ",
        "GRADMESH_SIM_SEED=3 cargo test a_failure_says_all_that_is_needed_to_go_after_it -- --exact",
        "1 of 12 faults are enough",
        "kill(\"counter\").at(\"2s\").for_(\"10ms\")",
        "fn increments_are_kept_with_seed_3() {",
    ] {
        assert!(text.contains(part), "no {part} in:\n{text}");
    }
}

#[test]
fn a_failure_shows_the_last_events_of_each_node() {
    let sim = Sim::new().node("teller", |_| async {
        tracing::warn!("this is my last word");
        std::future::pending::<()>().await;
        Ok(())
    });
    let sim = sim.for_(Duration::from_secs(1)).at_end("more is said", |_| false);
    let text = sim.seeds(0..1).run().unwrap_err().to_string();
    assert!(text.contains("last events of teller:"), "{text}");
    assert!(text.contains("this is my last word"), "{text}");
}

#[test]
fn the_lowest_seed_that_fails_is_reported_whatever_the_number_of_threads() {
    let passes = |seed: &u64| counter().swarm(swarm()).run(Seed(*seed)).passed();
    let from = (0..).find(passes).unwrap();
    let first = |threads| {
        let campaign = counter().swarm(swarm()).seeds(from..500).threads(threads);
        let campaign = campaign.shrink(ShrinkBudget { runs: 0, ..ShrinkBudget::default() });
        failure(campaign.run().unwrap_err()).report
    };
    let alone = first(1);
    assert!(alone.seed > Seed(from), "{alone}");
    assert!((from..alone.seed.0).all(|seed| passes(&seed)));
    for threads in [2, 7] {
        let report = first(threads);
        assert_eq!((report.seed, report.trace_hash), (alone.seed, alone.trace_hash.clone()));
    }
}

#[test]
fn what_never_held_fails_although_every_seed_passed() {
    let sim = durable_counter().sometimes("the counter flies", |_| false);
    let error = sim.sometimes("it counts", |_| true).seeds(0..4).run().unwrap_err();
    let CampaignError::NeverHeld { summary } = &error else { panic!("{error}") };
    assert_eq!(summary.never_held().collect::<Vec<_>>(), ["the counter flies"]);
    assert!(error.to_string().contains("\"the counter flies\""), "{error}");
}

#[test]
fn faults_that_come_after_the_end_fail_the_test() {
    let sim = durable_counter().faults([kill("counter").at("7s").for_("1s")]);
    let error = sim.seeds(0..4).run().unwrap_err();
    assert!(error.to_string().contains("\"a fault begins\""), "{error}");
}

#[test]
fn a_check_that_panics_is_reported_with_the_seed() {
    let sim = counter().always("it can be looked at", |world| {
        let restarts = world.node("counter").unwrap().restarts;
        assert_eq!(restarts, 0, "restarted");
        true
    });
    let failure = failure(sim.faults(twelve()).seeds(8..10).run().unwrap_err());
    let Some(Broken::Panicked { check, message }) = &failure.report.broken else {
        panic!("{failure}")
    };
    assert_eq!(check, "it can be looked at");
    assert!(message.contains("restarted"), "{message}");
    assert!(failure.to_string().starts_with("seed 8: "), "{failure}");
    let shrunk = failure.shrunk.unwrap().report.plan;
    assert_eq!(shrunk.faults, [kill("counter").at("0s").for_("10ms")]);
}

#[test]
fn a_node_whose_code_panics_ends_like_one_that_fails_and_is_started_again() {
    let sim = Sim::new().node("shaky", |node| async move {
        let name = node.name().to_owned();
        assert_ne!(name, "shaky", "the panic that this test is about");
        Ok(())
    });
    let report = sim.for_(Duration::from_secs(1)).run(Seed(0));
    assert!(report.counts.restarts > 1, "{report}");
    assert!(report.timeline().contains("the panic that this test is about"), "{report}");
}

#[test]
fn an_end_that_panics_is_reported_with_the_seed() {
    let sim = counter().until(|world| {
        assert!(world.now() < Duration::from_secs(1), "too late");
        false
    });
    let error = sim.seeds(2..3).run().unwrap_err();
    assert!(error.to_string().starts_with("seed 2: \"until\" panicked: too late"), "{error}");
}

#[test]
fn a_run_that_hangs_is_shrunk_to_what_hangs_it() {
    let sim = durable_counter().until(|world| {
        world.now() > Duration::from_secs(3) && world.node("counter").unwrap().restarts == 0
    });
    let faults = [pause("counter").at("1s").for_("1s"), kill("counter").at("1234ms").for_("1s")];
    let sim = sim.limit(Duration::from_secs(10)).faults(faults);
    let failure = failure(sim.seeds(0..1).run().unwrap_err());
    assert_eq!(failure.report.broken, Some(Broken::Hung { limit: Duration::from_secs(10) }));
    let shrunk = failure.shrunk.unwrap().report.plan;
    assert_eq!(shrunk.faults, [kill("counter").at("0s").for_("10ms")]);
}

#[test]
fn shrinking_ends_with_its_budget_and_keeps_what_it_has() {
    let budget = ShrinkBudget { runs: 3, ..ShrinkBudget::default() };
    let failed = counter().faults(twelve()).run(Seed(0));
    let shrunk = counter().shrink(&failed, budget, |_, _| {});
    assert!(shrunk.cut_short);
    assert_eq!(shrunk.runs, 3);
    assert!(!shrunk.report.passed());
    assert!(shrunk.report.plan.faults.len() < 12, "{}", shrunk.report);
}

#[test]
fn progress_is_told_after_each_seed_and_each_run_of_a_shrink() {
    let heard = Arc::new(Mutex::new((Vec::new(), Vec::new())));
    let hears = Arc::clone(&heard);
    let sim = counter().swarm(swarm());
    let campaign = sim.seeds(0..500).threads(1).progress(move |progress| match progress {
        Progress::Seed { done, of } => hears.lock().unwrap().0.push((done.seeds, of)),
        Progress::Shrinking { seed, faults, .. } => hears.lock().unwrap().1.push((seed, faults)),
    });
    let failure = failure(campaign.run().unwrap_err());
    let (seeds, runs) = std::mem::take(&mut *heard.lock().unwrap());
    let expected: Vec<(u64, u64)> = (1..=failure.report.seed.0).map(|seed| (seed, 500)).collect();
    assert_eq!(seeds, expected);
    let shrunk = failure.shrunk.unwrap();
    assert_eq!(runs.len() as u64, shrunk.runs);
    assert_eq!(runs.last(), Some(&(failure.report.seed, shrunk.report.plan.faults.len())));
}

#[test]
#[should_panic(expected = "\"increments are kept\" does not hold")]
fn a_seed_that_must_pass_and_does_not_panics() {
    counter().faults(twelve()).must_pass(Seed(0));
}
