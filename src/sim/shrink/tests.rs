use super::simpler::size;
use super::*;
use crate::sim::fault::{Fault, FaultKind, delay, kill, lose, pause, skew};

/// Candidates asked for, and where it ends.
fn shrink(plan: FaultPlan, mut fails: impl FnMut(&FaultPlan) -> bool) -> (usize, FaultPlan) {
    let (mut shrinker, mut runs) = (Shrinker::new(plan), 0);
    while let Some(candidate) = shrinker.candidate() {
        runs += 1;
        assert!(runs < 1000, "it does not end: {candidate}");
        shrinker.verdict(fails(&candidate));
    }
    (runs, shrinker.best().clone())
}

fn twelve() -> FaultPlan {
    FaultPlan::new((0..12).map(|i| {
        let node = format!("node-{i}");
        Fault { at_ms: 1337 + i * 1111, for_ms: 873, ..kill(&node) }
    }))
}

fn names(plan: &FaultPlan) -> Vec<&str> {
    plan.faults.iter().flat_map(Fault::nodes).collect()
}

fn has(plan: &FaultPlan, node: &str) -> bool {
    names(plan).contains(&node)
}

#[test]
fn the_one_of_twelve_faults_that_matters_is_left_at_a_round_time() {
    for i in 0..12 {
        let node = format!("node-{i}");
        let (runs, left) = shrink(twelve(), |plan| has(plan, &node));
        assert_eq!(left, FaultPlan::new([kill(&node).at("0s").for_("10ms")]));
        assert!(runs <= 20, "{runs} runs");
    }
}

#[test]
fn the_two_of_twelve_faults_that_matter_are_left() {
    for (one, other) in [(0, 11), (3, 4), (2, 9), (5, 6)] {
        let (one, other) = (format!("node-{one}"), format!("node-{other}"));
        let (runs, left) = shrink(twelve(), |plan| has(plan, &one) && has(plan, &other));
        assert_eq!(names(&left), [&one, &other]);
        assert!(runs <= 80, "{runs} runs");
    }
}

#[test]
fn a_failure_without_any_fault_is_seen_at_once() {
    assert_eq!(shrink(twelve(), |_| true), (1, FaultPlan::default()));
}

#[test]
fn what_fails_only_as_a_whole_is_left_as_it_is() {
    let whole = twelve();
    assert_eq!(shrink(whole.clone(), |plan| *plan == whole).1, whole);
}

#[test]
fn with_verdicts_that_are_not_monotone_the_rest_has_failed_as_it_is() {
    let fails = |plan: &FaultPlan| has(plan, "node-7") && plan.faults.len() % 2 == 1;
    let (_, left) =
        shrink(FaultPlan::new(twelve().faults.into_iter().take(11)), |plan| fails(plan));
    assert!(fails(&left), "{left}");
    assert_eq!(left.faults.len(), 1);
}

#[test]
fn with_verdicts_by_chance_it_ends_with_a_plan_that_failed_once() {
    for seed in 1..200u64 {
        let (mut state, mut failed) = (seed, vec![twelve()]);
        let (_, left) = shrink(twelve(), |plan| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let fails = state >> 62 == 0;
            if fails {
                failed.push(plan.clone());
            }
            fails
        });
        assert_eq!(failed.last(), Some(&left));
    }
}

#[test]
fn times_are_as_short_and_round_as_still_fails() {
    let plan = FaultPlan::new([pause("ps-0").at("4321ms").for_("2718ms")]);
    let long_enough = |plan: &FaultPlan| {
        plan.faults.first().is_some_and(|fault| fault.for_ms >= 300 && fault.at_ms >= 3950)
    };
    let (_, left) = shrink(plan, long_enough);
    assert_eq!(left, FaultPlan::new([pause("ps-0").at("4s").for_("500ms")]));
}

#[test]
fn a_time_that_cannot_be_shorter_is_rounded() {
    let plan = FaultPlan::new([pause("ps-0").at("4s").for_("1873ms")]);
    let fails = |plan: &FaultPlan| plan.faults.first().is_some_and(|fault| fault.for_ms >= 1800);
    let (_, left) = shrink(plan, fails);
    assert_eq!(left, FaultPlan::new([pause("ps-0").at("0s").for_("2s")]));
}

#[test]
fn rates_delays_and_skews_are_made_weaker() {
    let plan = FaultPlan::new([
        lose("a", "b", 137).at("1s").for_("1s"),
        delay("a", "b", 444).at("1s").for_("1s"),
        skew("a", -51_234).at("1s").for_("1s"),
    ]);
    let (_, left) = shrink(plan, |plan| match plan.faults.as_slice() {
        [one, two, three] => {
            size(&one.kind) >= 15 && size(&two.kind) >= 100 && size(&three.kind) >= 7000
        }
        _ => false,
    });
    let kinds: Vec<FaultKind> = left.faults.into_iter().map(|fault| fault.kind).collect();
    let weaker = [lose("a", "b", 20), delay("a", "b", 100), skew("a", -10_000)];
    assert_eq!(kinds, weaker.map(|fault| fault.kind));
}

#[test]
fn no_plan_is_asked_about_twice() {
    let mut asked = Vec::new();
    shrink(twelve(), |plan| {
        assert!(!asked.contains(plan), "{plan}");
        asked.push(plan.clone());
        has(plan, "node-3") && has(plan, "node-8")
    });
}
