//! A worker whose shard loses its newest version, which was not committed, with its primary.

#![allow(clippy::unwrap_used, reason = "the helpers of a test fail with it")]

mod support;

use std::collections::VecDeque;
use std::sync::Arc;

use actix::{Actor, Context, Handler, ResponseFuture};
use gradmesh_actors::checkpoint::SavedPart;
use gradmesh_actors::ids::{CoordinatorId, ServerId, Version, View, WorkerId};
use gradmesh_actors::job::CodecKind;
use gradmesh_actors::messages::checkpoint_store::{CheckpointError, LoadResiduals, SavePart};
use gradmesh_actors::messages::{
    LeaseSlots, Parameters, PullParameters, PushError, PushGradient, Pushed, ReportFailure,
    ReportPart, ReportSpeed,
};
use gradmesh_actors::reduction::Span;
use gradmesh_actors::worker::{Worker, WorkerLinks};
use support::{answers, offer, task};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

/// What the worker sent and saved.
#[derive(Debug)]
enum Seen {
    Push(PushGradient),
    Saved(Version),
    Failure(ReportFailure),
}

/// The one shard, the coordinator and the store.
struct Others {
    /// Versions that are pulled, and answers to pushes, in their order; then nobody answers.
    pulls: VecDeque<u64>,
    pushes: VecDeque<Result<u64, PushError>>,
    seen: UnboundedSender<Seen>,
}

impl Actor for Others {
    type Context = Context<Self>;
}

answers!(Others, ReportPart, Ok(()));
answers!(Others, ReportSpeed, Ok(()));
answers!(Others, LoadResiduals, Err(CheckpointError::Closed));

fn parameters(version: u64) -> Parameters {
    Parameters { version: Version(version), values: Arc::new(vec![0.0; 3]) }
}

impl Handler<PullParameters> for Others {
    type Result = <PullParameters as actix::Message>::Result;

    fn handle(&mut self, _: PullParameters, _: &mut Self::Context) -> Self::Result {
        Ok(parameters(self.pulls.pop_front().unwrap()))
    }
}

impl Handler<PushGradient> for Others {
    type Result = ResponseFuture<Result<Pushed, PushError>>;

    fn handle(&mut self, push: PushGradient, _: &mut Self::Context) -> Self::Result {
        self.seen.send(Seen::Push(push)).unwrap();
        let pushed = |version| {
            let Parameters { version, values } = parameters(version);
            Pushed { version, values }
        };
        match self.pushes.pop_front() {
            Some(answer) => Box::pin(std::future::ready(answer.map(pushed))),
            None => Box::pin(std::future::pending()),
        }
    }
}

impl Handler<SavePart> for Others {
    type Result = <SavePart as actix::Message>::Result;

    fn handle(&mut self, save: SavePart, _: &mut Self::Context) -> Self::Result {
        self.seen.send(Seen::Saved(save.version)).unwrap();
        let (path, digest) = (String::new(), String::new());
        Ok(SavedPart { content: save.content, path, bytes: 1, digest })
    }
}

impl Handler<ReportFailure> for Others {
    type Result = <ReportFailure as actix::Message>::Result;

    fn handle(&mut self, report: ReportFailure, _: &mut Self::Context) -> Self::Result {
        self.seen.send(Seen::Failure(report)).unwrap();
        Ok(())
    }
}

fn lease(view: u64) -> LeaseSlots {
    LeaseSlots {
        view: View(view),
        worker: WorkerId(0),
        slots: Span { first: 0, end: 2 },
        primaries: vec![ServerId(0)],
        leader: CoordinatorId(0),
        lineage: View(1),
        rolled_back_to: Version(0),
        checkpoint_every: 1,
    }
}

#[actix::test]
async fn the_same_gradients_are_sent_again_and_residuals_are_saved_with_their_version_only() {
    let (seen, mut told) = unbounded_channel();
    let lost = PushError::OutOfWindow { got: Version(2), version: Version(1) };
    let pushes = [Ok(1), Ok(2), Err(lost), Ok(2)].into();
    let others = Others { pulls: [0, 1].into(), pushes, seen }.start();
    let links = WorkerLinks {
        push: vec![vec![others.clone().recipient()]],
        pull: vec![vec![others.clone().recipient()]],
        report_part: vec![others.clone().recipient()],
        report_failure: vec![others.clone().recipient()],
        report_speed: vec![others.clone().recipient()],
        save: others.clone().recipient(),
        load_residuals: others.recipient(),
    };
    let mut offer = offer();
    offer.job.gradient.codec = CodecKind::TopK;
    let worker = Worker::new(WorkerId(0), task(offer), links).start();
    worker.send(lease(1)).await.unwrap().unwrap();
    let (mut pushed, mut saved) = (Vec::new(), Vec::new());
    while pushed.len() < 5 {
        match told.recv().await.unwrap() {
            Seen::Push(push) => pushed.push(push),
            Seen::Saved(version) => saved.push(version.0),
            Seen::Failure(failure) => panic!("{failure:?}"),
        }
    }
    let steps: Vec<u64> = pushed.iter().map(|push| push.step.0).collect();
    assert_eq!(steps, [0, 1, 2, 1, 2]);
    assert_eq!(pushed[3], pushed[1]);
    assert_eq!(pushed[4], pushed[2]);
    assert_eq!(saved, [1, 2]);
}
