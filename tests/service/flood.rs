//! A hundred times what may wait, among callers that are slow, cut off or wrong: whoever sent a whole
//! request has an answer, and what was lent to them all is there again.

mod aftermath;
mod callers;
mod client;
mod gate;
#[cfg(feature = "grpc")]
mod over_grpc;

use std::collections::BTreeMap;
use std::time::Duration;

use actix::{Actor, Addr};
use futures_util::future::{join, join_all};
use futures_util::stream::{FuturesUnordered, StreamExt};
use gradmesh::service::ServiceLimits;
use gradmesh_actors::model_registry::ModelRegistry;
use gradmesh_actors::request_queue::Batching;
use gradmesh_actors::runner::Runner;
use gradmesh_actors::runners::{RunnerLink, Runners};

use crate::support::{Server, rows, sentence, state, until};
use aftermath::as_before;
use callers::{Slow, refused_as_wrong, wrong_or_cut};
use client::{Answer, Connection, post};
use gate::{GATED, Gate, HELD, PANICS, WEIGHT, gated_kinds, publication};

/// Requests that may wait for one version.
const QUEUE: usize = 3;
/// Two ends of each lie in this process: twice as many files, of 1,024 that a process has as a rule.
const FLOOD: usize = 100 * QUEUE;
/// The largest body, and the bodies that may be under way: those of the flood are a KiB each.
const BODY: usize = 64 << 10;
const BODIES: usize = 16 * BODY;
/// Whatever takes longer has failed.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// One predictor, whose model `gated` runs on a thread of its own.
fn start() -> (Server, Gate) {
    let gate = Gate::new();
    let kinds = gated_kinds(gate.clone());
    let server = Server::run(async move |registry: Addr<ModelRegistry>, _| {
        registry.send(publication()).await.unwrap().unwrap();
        let runner = Runner::start_in_arbiter(&actix_rt::Arbiter::new().handle(), |_| Runner {});
        let link = RunnerLink { run: runner.clone().recipient(), build: runner.recipient() };
        let limits =
            ServiceLimits { body_bytes_max: BODY, bodies_bytes_max: BODIES, infer: WAIT_MAX };
        state(registry, limits, |parts| {
            parts.kinds = kinds;
            parts.runners = Runners::new(vec![link]);
            parts.batching = Batching { rows_max: 64, wait: Duration::ZERO, queue: QUEUE };
        })
    });
    // Loaded before the only thread for what takes long is busy.
    server.still_answers();
    (server, gate)
}

fn run(talk: impl Future<Output = ()>) {
    let talk = async { tokio::time::timeout(2 * WAIT_MAX, talk).await.unwrap() };
    actix_rt::System::new().block_on(talk);
}

/// A request for `gated` with one row.
fn gated(first: f32) -> Vec<u8> {
    post(&format!("/v2/models/{GATED}/infer"), &rows(&[first, 0.5]).to_string())
}

#[track_caller]
fn assert_right(first: f32, answer: &Answer) {
    let body = answer.json();
    assert_eq!(answer.status, 200, "{body}");
    let expected = f64::from(WEIGHT * (first + 0.5));
    assert_eq!(body["outputs"][0]["data"][0].as_f64(), Some(expected), "{body}");
}

/// Told to come again: when, and what lets more wait.
#[track_caller]
fn assert_full(answer: &Answer) {
    let (body, after) = (answer.json(), answer.retry_after.as_deref());
    assert_eq!((answer.status, after), (429, Some("1")), "{body}");
    assert_eq!(sentence(&body), FULL);
}

const FULL: &str =
    "3 requests wait for gated already; try again, or raise service.queue or service.instances";

/// Whose request is in the model until the gate is opened.
async fn busy(server: &Server, gate: &Gate) -> Connection {
    let mut came = gate.came();
    let before = *came.borrow();
    let mut caller = Connection::open(server.address).await;
    caller.send(&gated(HELD)).await;
    let reached = tokio::time::timeout(WAIT_MAX, came.wait_for(|came| *came > before));
    reached.await.unwrap().unwrap();
    caller
}

/// All ask at once while the model is busy: as many as may wait are answered when it no longer is, and
/// all others have been told before.
async fn overflow(server: &Server, gate: &Gate, callers: &mut [Connection]) {
    let mut busy = busy(server, gate).await;
    overflow_while_busy(gate, callers).await;
    assert_right(HELD, &busy.answer().await);
}

async fn overflow_while_busy(gate: &Gate, callers: &mut [Connection]) {
    let refused = callers.len() - QUEUE;
    let asked = callers.iter_mut().enumerate().map(async |(at, caller)| {
        let first = 100.0 + at as f32;
        (first, caller.ask(&gated(first)).await)
    });
    let mut answers: FuturesUnordered<_> = asked.collect();
    for _ in 0..refused {
        let (_, answer) = answers.next().await.unwrap();
        assert_full(&answer);
    }
    gate.open();
    while let Some((first, answer)) = answers.next().await {
        assert_right(first, &answer);
    }
}

/// Their requests wait in the queue, and they are gone: half of them with a FIN, half with a reset.
async fn fill_and_go(server: &Server) {
    let before = server.given_up();
    for at in 0..QUEUE {
        let mut caller = Connection::open(server.address).await;
        caller.send(&gated(50.0)).await;
        caller.cut(at % 2 == 1);
    }
    let noticed = || server.given_up() == before + QUEUE;
    until("whoever is gone is noticed while the model is busy", noticed).await;
}

#[test]
fn while_the_model_is_busy_all_beyond_the_queue_are_told_at_once_and_who_is_gone_has_no_place() {
    let (server, gate) = start();
    run(async {
        let mut flood = Connection::open_many(server.address, FLOOD).await;
        let mut busy = busy(&server, &gate).await;
        fill_and_go(&server).await;
        refused_as_wrong(&server).await;
        overflow_while_busy(&gate, &mut flood).await;
        assert_right(HELD, &busy.answer().await);
        drop((flood, busy));
        as_before(&server, &gate).await;
    });
}

/// How often each status was answered, where each answer is right or says why there is none.
fn counted(answers: &[(f32, Answer)]) -> BTreeMap<u16, usize> {
    let mut counts = BTreeMap::new();
    for (first, answer) in answers {
        *counts.entry(answer.status).or_default() += 1;
        if answer.status == 429 {
            assert_full(answer);
        } else if *first == PANICS {
            let body = answer.json();
            let expected = (500, "version 1 of gated failed: it panicked: thirteen");
            assert_eq!((answer.status, sentence(&body)), expected);
        } else {
            assert_right(*first, answer);
        }
    }
    counts
}

#[test]
fn a_flood_among_slow_cut_and_wrong_callers_is_answered_or_told_why_and_leaves_nothing_behind() {
    let (server, gate) = start();
    run(async {
        let slow = Slow::begin(&server).await;
        let mut flood = Connection::open_many(server.address, FLOOD).await;
        for round in 0..3 {
            let asked = join_all(flood.iter_mut().enumerate().map(async |(at, caller)| {
                // The model panics at a tenth of them.
                let first = if at % 10 == 1 { PANICS } else { 100.0 + at as f32 };
                (first, caller.ask(&gated(first)).await)
            }));
            let beside = join_all((0..4).map(|_| wrong_or_cut(&server)));
            let (answers, _) = join(asked, beside).await;
            let counts = counted(&answers);
            assert!(counts[&200] + counts.get(&500).unwrap_or(&0) >= QUEUE, "{round}: {counts:?}");
        }
        slow.end().await;
        drop(flood);
        as_before(&server, &gate).await;
    });
}
