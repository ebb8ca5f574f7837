//! A primary that has been replaced, and finds it out by a copy that refuses its step.

#![allow(clippy::unwrap_used, reason = "the helpers of a test fail with it")]

mod support;

use actix::{Actor, Context, Handler};
use gradmesh_actors::ids::{ServerId, View};
use gradmesh_actors::messages::checkpoint_store::{CheckpointError, LoadRange, SavePart};
use gradmesh_actors::messages::{
    Appointment, CombineNorm, Duty, FillShard, LinkError, NormError, Replicate, ReplicateError,
    ReportError, ReportFenced, ReportPart, ReportShard, RestoreShard,
};
use gradmesh_actors::parameter_server::ParameterServer;
use support::{COPY, answers, links, primary, push_first_step, restore};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

/// A cluster that is in view 2. Its coordinator does not answer at first.
struct Newer {
    told: UnboundedSender<ReportFenced>,
    answers: bool,
}

impl Actor for Newer {
    type Context = Context<Self>;
}

answers!(Newer, ReportShard, Ok(()));
answers!(Newer, ReportPart, Ok(()));
answers!(Newer, SavePart, Err(CheckpointError::Closed));
answers!(Newer, LoadRange, Err(CheckpointError::Closed));
answers!(Newer, CombineNorm, Err(NormError::NotReady));
answers!(Newer, Replicate, Err(ReplicateError::StaleView { got: View(1), current: View(2) }));
answers!(Newer, FillShard, Err(ReplicateError::Link(LinkError::Closed)));

impl Handler<ReportFenced> for Newer {
    type Result = Result<(), ReportError>;

    fn handle(&mut self, report: ReportFenced, _: &mut Self::Context) -> Self::Result {
        self.told.send(report).unwrap();
        let first = !std::mem::replace(&mut self.answers, true);
        if first { Err(ReportError::Link(LinkError::Closed)) } else { Ok(()) }
    }
}

#[actix_rt::test]
async fn a_primary_that_is_refused_tells_so_until_it_is_heard() {
    let (told, mut heard) = unbounded_channel();
    let newer = Newer { told, answers: false }.start();
    let server = ParameterServer::new(COPY, links(&newer)).start();
    let duty = Duty::Primary { replicas: vec![ServerId(1)], learners: Vec::new() };
    let appointment = Appointment { duty, ..primary(1) };
    server.send(RestoreShard { appointment, ..restore(1) }).await.unwrap().unwrap();
    push_first_step(&server);
    let fenced = ReportFenced { copy: COPY, view: View(1), by: View(2) };
    assert_eq!(heard.recv().await, Some(fenced));
    assert_eq!(heard.recv().await, Some(fenced));
}
