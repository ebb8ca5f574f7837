//! What a step costs on the wire: messages and bytes, which no machine's noise changes.

use std::time::Duration;

use gradmesh::sim::{ANY, Report, Seed, delay};

use crate::digits;

/// Parameters of the perceptron 64-64-32-10 that the digits' job trains.
const MODEL_BYTES: f64 = ((64 + 1) * 64 + (64 + 1) * 32 + (32 + 1) * 10) as f64 * 4.0;
const WORKERS: f64 = 2.0;
const SHARDS: f64 = 2.0;
/// Beside the values: frame, typed part, and the reports of a worker's slots.
const AROUND_MAX: f64 = 300.0;
/// Without that of the coordinator.
const NODES: f64 = 4.0;
/// A frame that consists of its head and its checksum.
const BEAT_MAX: f64 = 32.0;
/// What comes now and then, spread over steps: reports of a worker's speed.
const SELDOM_MAX: f64 = 0.5;

/// Messages and bytes of a step, as what a longer run has more, so that neither start nor end
/// counts. Nobody is asked whether they live, and nothing is saved.
fn of_a_step(sets: &[&str]) -> (f64, f64) {
    let run = |epochs: &str| {
        let calm = [
            epochs,
            "detector.heartbeat_ms=60000",
            "detector.dead_after_ms=600000",
            "checkpoint.every_steps=1000000",
        ];
        digits(&[&calm, sets].concat()).must_pass(Seed(1))
    };
    let (short, long) = (run("job.epochs=4"), run("job.epochs=24"));
    let steps = (long.steps() - short.steps()) as f64;
    let more = |of: fn(&gradmesh::sim::Counts) -> u64| {
        (of(&long.counts) - of(&short.counts)) as f64 / steps
    };
    (more(|counts| counts.messages), more(|counts| counts.bytes))
}

#[track_caller]
fn assert_costs((messages, bytes): (f64, f64), expected_messages: f64, expected_values: f64) {
    let more = messages - expected_messages;
    assert!((0.0..=SELDOM_MAX).contains(&more), "{messages} messages, not {expected_messages}");
    let around = (bytes - expected_values) / messages;
    assert!((0.0..=AROUND_MAX).contains(&around), "{around} bytes around each of {messages}");
}

#[test]
fn a_step_is_one_push_and_one_answer_for_each_worker_and_shard() {
    let cost = of_a_step(&["servers.replicas=0"]);
    // Four slots of a worker are sent as one sum.
    assert_costs(cost, 2.0 * WORKERS * SHARDS, 2.0 * WORKERS * MODEL_BYTES);
}

#[test]
fn a_node_that_lives_costs_one_short_message_a_heartbeat() {
    let run = |heartbeat_ms: u64| {
        let heartbeat = format!("detector.heartbeat_ms={heartbeat_ms}");
        let sets = [heartbeat.as_str(), "detector.dead_after_ms=600000", "job.epochs=40"];
        let far = delay(ANY, ANY, 40).at("0s").for_("1000s");
        digits(&sets).faults([far]).limit(Duration::from_secs(1000)).must_pass(Seed(1))
    };
    let (seldom, often) = (run(60_000), run(50));
    let beats = often.took.as_secs_f64() / 0.05;
    let more = |of: fn(&gradmesh::sim::Counts) -> u64| {
        let each_second = |report: &Report| of(&report.counts) as f64 / report.took.as_secs_f64();
        (each_second(&often) - each_second(&seldom)) * often.took.as_secs_f64()
    };
    let messages = more(|counts| counts.messages) / beats;
    let bytes = more(|counts| counts.bytes) / beats;
    assert!((NODES - 0.1..NODES + 0.1).contains(&messages), "{messages} messages each heartbeat");
    assert!(bytes / messages <= BEAT_MAX, "{bytes} bytes in {messages} messages");
}

#[test]
fn a_replica_costs_one_update_and_its_answer_a_shard() {
    let cost = of_a_step(&["servers.replicas=1"]);
    let messages = 2.0 * WORKERS * SHARDS + 2.0 * SHARDS;
    assert_costs(cost, messages, (2.0 * WORKERS + 1.0) * MODEL_BYTES);
}

#[test]
fn a_codec_saves_what_it_promises_on_the_way_to_the_servers() {
    for (codec, bytes_a_value) in [("fp16", 2.0), ("int8", 1.0)] {
        let codec_key = format!("job.gradient.codec={codec}");
        let (messages, bytes) = of_a_step(&["servers.replicas=0", &codec_key]);
        // A slot's gradient is sent as it is: its sum with others would be rounded again.
        let pushed = 8.0 * MODEL_BYTES / 4.0 * bytes_a_value;
        let around = (bytes - pushed - WORKERS * MODEL_BYTES) / messages;
        assert!((0.0..=2.0 * AROUND_MAX).contains(&around), "{codec}: {around} bytes around each");
    }
}
