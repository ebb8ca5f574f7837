//! Worker from its mailbox: which lease it takes, and what it does with it.

#![allow(clippy::unwrap_used, reason = "the helpers of a test fail with it")]

mod support;

use std::sync::Arc;

use actix::{Actor, Addr, Context, Handler, ResponseFuture};
use gradmesh_actors::ids::{CoordinatorId, ServerId, Version, View, WorkerId};
use gradmesh_actors::messages::checkpoint_store::{CheckpointError, LoadResiduals, SavePart};
use gradmesh_actors::messages::{
    LeaseError, LeaseSlots, Parameters, PullParameters, PushError, PushGradient, Pushed,
    ReportFailure, ReportPart, ReportSpeed,
};
use gradmesh_actors::reduction::Span;
use gradmesh_actors::worker::{Worker, WorkerLinks};
use support::{answers, offer, task};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// The one shard, the coordinator and the store of a worker: what comes is told to the test.
struct Others {
    pulled: Parameters,
    /// How a push is answered; not at all if `None`.
    pushed: Option<Result<Pushed, PushError>>,
    pushes: UnboundedSender<PushGradient>,
    failures: UnboundedSender<ReportFailure>,
}

impl Actor for Others {
    type Context = Context<Self>;
}

answers!(Others, ReportPart, Ok(()));
answers!(Others, ReportSpeed, Ok(()));
answers!(Others, SavePart, Err(CheckpointError::Closed));
answers!(Others, LoadResiduals, Err(CheckpointError::Closed));

impl Handler<PullParameters> for Others {
    type Result = <PullParameters as actix::Message>::Result;

    fn handle(&mut self, _: PullParameters, _: &mut Self::Context) -> Self::Result {
        Ok(self.pulled.clone())
    }
}

impl Handler<PushGradient> for Others {
    type Result = ResponseFuture<Result<Pushed, PushError>>;

    fn handle(&mut self, push: PushGradient, _: &mut Self::Context) -> Self::Result {
        self.pushes.send(push).unwrap();
        match self.pushed.clone() {
            Some(answer) => Box::pin(std::future::ready(answer)),
            None => Box::pin(std::future::pending()),
        }
    }
}

impl Handler<ReportFailure> for Others {
    type Result = <ReportFailure as actix::Message>::Result;

    fn handle(&mut self, report: ReportFailure, _: &mut Self::Context) -> Self::Result {
        self.failures.send(report).unwrap();
        Ok(())
    }
}

/// A worker among [`Others`].
struct Bench {
    worker: Addr<Worker>,
    pushes: UnboundedReceiver<PushGradient>,
    failures: UnboundedReceiver<ReportFailure>,
}

impl Bench {
    fn new(pulled: Parameters, pushed: Option<Result<Pushed, PushError>>) -> Self {
        let (push_sender, pushes) = unbounded_channel();
        let (failure_sender, failures) = unbounded_channel();
        let others =
            Others { pulled, pushed, pushes: push_sender, failures: failure_sender }.start();
        let links = WorkerLinks {
            push: vec![vec![others.clone().recipient()]],
            pull: vec![vec![others.clone().recipient()]],
            report_part: vec![others.clone().recipient()],
            report_failure: vec![others.clone().recipient()],
            report_speed: vec![others.clone().recipient()],
            save: others.clone().recipient(),
            load_residuals: others.recipient(),
        };
        let worker = Worker::new(WorkerId(1), task(offer()), links).start();
        Self { worker, pushes, failures }
    }

    /// The shard is at `version`, and lets pushes wait.
    fn at(version: u64) -> Self {
        Self::new(Parameters { version: Version(version), values: Arc::new(vec![0.0; 3]) }, None)
    }

    async fn lease(&self, lease: LeaseSlots) -> Result<(), LeaseError> {
        self.worker.send(lease).await.unwrap()
    }
}

fn lease(view: u64, first: u32, end: u32) -> LeaseSlots {
    LeaseSlots {
        view: View(view),
        worker: WorkerId(1),
        slots: Span { first, end },
        primaries: vec![ServerId(0)],
        leader: CoordinatorId(0),
        lineage: View(1),
        rolled_back_to: Version(0),
        checkpoint_every: 100,
    }
}

fn spans(push: &PushGradient) -> Vec<Span> {
    push.parts.iter().map(|part| part.span).collect()
}

#[actix_rt::test]
async fn leased_slots_are_computed_on_the_newest_version() {
    let mut bench = Bench::at(3);
    bench.lease(lease(5, 0, 2)).await.unwrap();
    let push = bench.pushes.recv().await.unwrap();
    assert_eq!((push.view, push.worker, push.step), (View(5), WorkerId(1), Version(3)));
    assert_eq!(spans(&push), [Span { first: 0, end: 2 }]);
}

#[actix_rt::test]
async fn a_new_lease_takes_the_place_of_the_one_that_is_worked_on() {
    let mut bench = Bench::at(0);
    bench.lease(lease(1, 0, 2)).await.unwrap();
    assert_eq!(bench.pushes.recv().await.unwrap().view, View(1));
    bench.lease(lease(2, 1, 2)).await.unwrap();
    let push = bench.pushes.recv().await.unwrap();
    assert_eq!((push.view, spans(&push)), (View(2), vec![Span { first: 1, end: 2 }]));
}

#[actix_rt::test]
async fn a_worker_without_slots_stands_by_for_the_next_lease() {
    let mut bench = Bench::at(0);
    bench.lease(lease(1, 1, 1)).await.unwrap();
    bench.lease(lease(2, 0, 1)).await.unwrap();
    assert_eq!(bench.pushes.recv().await.unwrap().view, View(2));
}

#[actix_rt::test]
async fn a_lease_of_an_older_view_is_refused() {
    let bench = Bench::at(0);
    bench.lease(lease(4, 0, 2)).await.unwrap();
    let stale = LeaseError::StaleView { got: View(3), current: View(4) };
    assert_eq!(bench.lease(lease(3, 0, 2)).await, Err(stale));
    assert_eq!(bench.lease(lease(4, 0, 2)).await, Ok(()), "a repeated lease is the same one");
}

#[actix_rt::test]
async fn a_lease_of_another_worker_is_refused() {
    let refused = Bench::at(0).lease(LeaseSlots { worker: WorkerId(2), ..lease(1, 0, 2) }).await;
    let (expected, got) = (WorkerId(2), WorkerId(1));
    assert_eq!(refused, Err(LeaseError::WrongWorker { expected, got }));
}

#[actix_rt::test]
async fn a_lease_that_can_not_be_worked_on_leaves_the_view_to_a_right_one() {
    let mut bench = Bench::at(0);
    for (first, end) in [(0, 3), (2, 1), (0, u32::MAX), (u32::MAX, u32::MAX)] {
        let refused = bench.lease(lease(1, first, end)).await;
        let got = Span { first, end };
        assert_eq!(refused, Err(LeaseError::WrongSlots { got, slots: 2 }));
    }
    for got in [0, 2, 1000] {
        let primaries = vec![ServerId(0); got];
        let refused = bench.lease(LeaseSlots { primaries, ..lease(1, 0, 2) }).await;
        assert_eq!(refused, Err(LeaseError::WrongShards { expected: 1, got }));
    }
    let primaries = vec![ServerId(1)];
    let refused = bench.lease(LeaseSlots { primaries, ..lease(1, 0, 2) }).await;
    assert_eq!(refused, Err(LeaseError::NoSuchServer { servers: 1, got: ServerId(1) }));
    bench.lease(lease(1, 0, 2)).await.unwrap();
    assert_eq!(bench.pushes.recv().await.unwrap().view, View(1));
}

#[actix_rt::test]
async fn an_answered_push_is_followed_by_the_next_step() {
    let values = Arc::new(vec![0.0; 3]);
    let pulled = Parameters { version: Version(0), values: Arc::clone(&values) };
    let mut bench = Bench::new(pulled, Some(Ok(Pushed { version: Version(1), values })));
    bench.lease(lease(1, 0, 2)).await.unwrap();
    assert_eq!(bench.pushes.recv().await.unwrap().step, Version(0));
    assert_eq!(bench.pushes.recv().await.unwrap().step, Version(1));
}

#[actix_rt::test]
async fn a_step_that_overflows_is_reported_as_a_failure_with_its_cause() {
    let overflow = PushError::Overflow {
        shard: gradmesh_actors::ids::ShardId(0),
        step: Version(0),
        what: "new parameters".into(),
        tensor: "w".into(),
        index: 1,
    };
    let pulled = Parameters { version: Version(0), values: Arc::new(vec![0.0; 3]) };
    let mut bench = Bench::new(pulled, Some(Err(overflow.clone())));
    bench.lease(lease(6, 0, 2)).await.unwrap();
    let report = bench.failures.recv().await.unwrap();
    assert_eq!((report.view, report.worker), (View(6), WorkerId(1)));
    assert_eq!(report.cause, overflow.to_string());
}

#[actix_rt::test]
async fn parameters_that_are_not_the_plans_are_a_failure_and_no_panic() {
    for (version, len, words) in [
        (0, 2, "shard-0 answered with 2 values, it has 3"),
        (13, 3, "the shards are at version 13, the job ends at version 12"),
    ] {
        let pulled = Parameters { version: Version(version), values: Arc::new(vec![0.0; len]) };
        let mut bench = Bench::new(pulled, None);
        bench.lease(lease(1, 0, 2)).await.unwrap();
        assert_eq!(bench.failures.recv().await.unwrap().cause, words);
    }
}
