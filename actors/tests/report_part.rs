//! A primary that has written a part of a checkpoint, and is a replica before anybody has heard of it.

#![allow(clippy::unwrap_used, reason = "the helpers of a test fail with it")]

mod support;

use actix::{Actor, Context, Handler};
use gradmesh_actors::checkpoint::SavedPart;
use gradmesh_actors::ids::{Version, View};
use gradmesh_actors::messages::checkpoint_store::{CheckpointError, LoadRange, SavePart};
use gradmesh_actors::messages::{
    AdoptView, Appointment, CombineNorm, Duty, FillShard, LinkError, NormError, Replicate,
    ReplicateError, ReportError, ReportFenced, ReportPart, ReportShard, RestoreShard,
};
use gradmesh_actors::parameter_server::ParameterServer;
use support::{COPY, answers, links, primary, push_first_step, restore};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

/// A coordinator that leads in view 2 only.
struct Others {
    told: UnboundedSender<ReportPart>,
}

impl Actor for Others {
    type Context = Context<Self>;
}

answers!(Others, ReportShard, Ok(()));
answers!(Others, ReportFenced, Ok(()));
answers!(Others, LoadRange, Err(CheckpointError::Closed));
answers!(Others, CombineNorm, Err(NormError::NotReady));
answers!(Others, Replicate, Err(ReplicateError::Link(LinkError::Closed)));
answers!(Others, FillShard, Err(ReplicateError::Link(LinkError::Closed)));

impl Handler<SavePart> for Others {
    type Result = <SavePart as actix::Message>::Result;

    fn handle(&mut self, save: SavePart, _: &mut Self::Context) -> Self::Result {
        let (path, digest) = (String::new(), String::new());
        Ok(SavedPart { content: save.content, path, bytes: 1, digest })
    }
}

impl Handler<ReportPart> for Others {
    type Result = Result<(), ReportError>;

    fn handle(&mut self, report: ReportPart, _: &mut Self::Context) -> Self::Result {
        let led = report.view == View(2);
        self.told.send(report).unwrap();
        if led { Ok(()) } else { Err(ReportError::NotLeading) }
    }
}

#[actix_rt::test]
async fn a_part_that_a_primary_has_written_is_reported_by_the_replica_that_it_became() {
    let (told, mut heard) = unbounded_channel();
    let server = ParameterServer::new(COPY, links(&Others { told }.start())).start();
    let restore = RestoreShard { checkpoint_every: 1, ..restore(1) };
    server.send(restore).await.unwrap().unwrap();
    push_first_step(&server);
    let first = heard.recv().await.unwrap();
    assert_eq!((first.view, first.version), (View(1), Version(1)));
    let appointment = Appointment { duty: Duty::Replica, ..primary(2) };
    server.send(AdoptView { appointment, lineage: View(1) }).await.unwrap().unwrap();
    let again = loop {
        let report = heard.recv().await.unwrap();
        if report.view == View(2) {
            break report;
        }
    };
    assert_eq!((again.version, again.part), (first.version, first.part));
}
