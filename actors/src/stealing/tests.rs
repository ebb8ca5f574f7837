use super::*;

const MS: u64 = 1_000_000;

fn at(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// One second of steps, of which each worker computes `slots` slots in so many milliseconds each.
fn pace(slots: u32, slot_ms: u64, step_ms: u64) -> Pace {
    let steps = u32::try_from(1000 / step_ms).unwrap().max(1);
    Pace {
        steps,
        slots: steps * slots,
        computing_ns: u64::from(steps * slots) * slot_ms * MS,
        passed_ns: u64::from(steps) * step_ms * MS,
    }
}

fn workers(count: u32) -> Vec<WorkerId> {
    (0..count).map(WorkerId).collect()
}

fn sizes(leases: &BTreeMap<WorkerId, Span>) -> Vec<u32> {
    leases.values().map(|span| span.end - span.first).collect()
}

/// Four workers with 32 slots, the first four times as slow; a step takes what that one takes.
fn one_slow() -> (Speeds, BTreeMap<WorkerId, Span>) {
    let mut speeds = Speeds::default();
    speeds.measured(WorkerId(0), pace(8, 4, 32));
    (1..4).for_each(|worker| speeds.measured(WorkerId(worker), pace(8, 1, 32)));
    (speeds, lease(32, &workers(4)))
}

#[test]
fn slots_move_away_from_a_slow_worker_until_all_are_done_together() {
    let (mut speeds, held) = one_slow();
    assert_eq!(speeds.better(32, &workers(4), &held, at(1000)), None, "nothing is sure yet");
    assert_eq!(speeds.better(32, &workers(4), &held, at(3999)), None);
    let better = speeds.better(32, &workers(4), &held, at(4000)).unwrap();
    // 12 ms for the slow one, 10 ms for the others; the ideal is 32 / (1 / 4 + 3) = 9.8 ms.
    assert_eq!(sizes(&better.leases), [2, 10, 10, 10]);
    assert_eq!((better.slowest, better.percent), (WorkerId(0), 400));
    assert_eq!(speeds.better(32, &workers(4), &better.leases, at(9000)), None, "it is best now");
    assert_eq!(speeds.better(32, &workers(4), &held, at(6999)), None, "not so soon again");
}

#[test]
fn slots_come_back_to_a_worker_that_is_fast_again() {
    let (mut speeds, held) = one_slow();
    speeds.better(32, &workers(4), &held, at(0));
    let better = speeds.better(32, &workers(4), &held, at(4000)).unwrap();
    (0..8).for_each(|_| speeds.measured(WorkerId(0), pace(2, 1, 10)));
    (1..4).for_each(|worker| {
        (0..8).for_each(|_| speeds.measured(WorkerId(worker), pace(10, 1, 10)));
    });
    let back = speeds.leases(32, &workers(4), &better.leases);
    // A fifth is to be gained at most: not worth a view by itself.
    assert_eq!(back, better.leases);
    (0..8).for_each(|_| speeds.measured(WorkerId(0), pace(2, 1, 1)));
    let alone = speeds.leases(32, &workers(2), &better.leases);
    assert_eq!(sizes(&alone), [16, 16], "when others go it counts as what it is");
}

#[test]
fn a_small_gain_is_left_alone_and_so_is_one_beside_a_long_step() {
    let mut speeds = Speeds::default();
    speeds.measured(WorkerId(0), pace(16, 6, 100));
    speeds.measured(WorkerId(1), pace(16, 5, 100));
    let held = lease(32, &workers(2));
    assert_eq!(speeds.leases(32, &workers(2), &held), held);
    // Four times as slow, but computing is a tenth of the step.
    let mut speeds = Speeds::default();
    speeds.measured(WorkerId(0), pace(16, 4, 640));
    speeds.measured(WorkerId(1), pace(16, 1, 640));
    assert_eq!(speeds.leases(32, &workers(2), &held), held);
}

#[test]
fn a_newcomer_counts_as_the_mean_and_nobody_stays_without_slots() {
    let (speeds, held) = one_slow();
    let leases = speeds.leases(32, &workers(5), &held);
    let sizes = sizes(&leases);
    assert_eq!((sizes.len(), sizes.iter().sum::<u32>()), (5, 32));
    assert!(sizes[0] < sizes[4] && sizes[4] < sizes[1], "{sizes:?}");
    let (mut speeds, held) = one_slow();
    speeds.measured(WorkerId(0), Pace { computing_ns: u64::MAX, ..pace(8, 4, 32) });
    let leases = speeds.leases(32, &workers(4), &held);
    assert_eq!(leases[&WorkerId(0)], Span { first: 0, end: 1 });
}

#[test]
fn without_measurements_leases_are_even_and_with_too_few_slots_too() {
    let held = BTreeMap::new();
    let even = Speeds::default().leases(8, &workers(3), &held);
    assert_eq!(even, lease(8, &workers(3)));
    let (speeds, held) = one_slow();
    let few = speeds.leases(2, &workers(4), &held);
    assert_eq!(few.values().map(|span| span.end - span.first).collect::<Vec<_>>(), [1, 1]);
    assert!(speeds.leases(8, &[], &held).is_empty());
}

#[test]
fn whatever_peers_report_every_slot_has_one_worker() {
    // Numbers as a linear generator gives them: small, large and all between.
    let mut state = 7u64;
    let mut draw = move || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state >> (state >> 58)
    };
    for round in 0..500u32 {
        let (slots, count) = (1 + round % 64, 1 + round % 9);
        let mut speeds = Speeds::default();
        for _ in 0..draw() % 12 {
            let pace = Pace {
                steps: draw() as u32,
                slots: draw() as u32,
                computing_ns: draw(),
                passed_ns: draw(),
            };
            speeds.measured(WorkerId((draw() % 9) as u32), pace);
        }
        let held = lease(slots, &workers(count));
        let leases = speeds.leases(slots, &workers(count), &held);
        let spans: Vec<Span> = leases.values().copied().collect();
        assert_eq!((spans[0].first, spans.last().unwrap().end), (0, slots));
        assert!(spans.windows(2).all(|pair| pair[0].end == pair[1].first), "{spans:?}");
        assert!(spans.iter().all(|span| span.first < span.end), "{spans:?}");
        assert_eq!(leases.len(), slots.min(count) as usize);
        assert_eq!(speeds.leases(slots, &workers(count), &leases), leases, "settled at once");
    }
}

#[test]
fn a_worker_reports_each_second_what_it_measured_in_it() {
    let mut watch = Stopwatch::default();
    // Steps of 100 ms, of which 30 are computation of 3 slots.
    let step = |watch: &mut Stopwatch, n: u64| watch.computed(3, at(100 * n), at(100 * n + 30));
    for n in 5..15 {
        assert_eq!(step(&mut watch, n), None, "{n}");
    }
    let expected = Pace { steps: 10, slots: 30, computing_ns: 300 * MS, passed_ns: 1000 * MS };
    assert_eq!(step(&mut watch, 15), Some(expected));
    for n in 16..25 {
        assert_eq!(step(&mut watch, n), None, "{n}");
    }
    assert_eq!(step(&mut watch, 25), Some(expected));
}
