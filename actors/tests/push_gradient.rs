//! ParameterServer from its mailbox: who waits for a step, and how the wait ends.

#![allow(clippy::unwrap_used, reason = "the helpers of a test fail with it")]

mod support;

use std::sync::Arc;

use actix::{Addr, MailboxError};
use gradmesh_actors::ids::{ShardId, Slot, Version, View, WorkerId};
use gradmesh_actors::ledger::SlotReport;
use gradmesh_actors::messages::{
    AdoptView, LinkError, PartHeader, Payload, PullParameters, PushError, PushGradient, Pushed,
};
use gradmesh_actors::parameter_server::ParameterServer;
use gradmesh_actors::reduction::Span;
use support::{primary, restore, server};

/// Worker `slot` pushes its one slot of step `step`: five times one, of five rows.
fn push(view: u64, step: u64, slot: u32) -> PushGradient {
    PushGradient {
        view: View(view),
        worker: WorkerId(slot),
        shard: ShardId(0),
        step: Version(step),
        parts: vec![PartHeader { span: Span::one(Slot(slot)), rows: 5 }],
        reports: vec![SlotReport { slot: Slot(slot), rows: 5, loss: 1.0, score: None }],
        payload: vec![Payload::Dense(Arc::new(vec![5.0; 3]))],
    }
}

async fn restored() -> Addr<ParameterServer> {
    let server = server();
    server.send(restore(1)).await.unwrap().unwrap();
    server
}

type Answer = Result<Result<Pushed, PushError>, MailboxError>;

/// Puts a push in the mailbox before this returns; what follows comes after it.
fn send(server: &Addr<ParameterServer>, push: PushGradient) -> actix_rt::task::JoinHandle<Answer> {
    actix_rt::spawn(server.send(push))
}

fn first_step() -> Pushed {
    Pushed { version: Version(1), values: Arc::new(vec![-1.0; 3]) }
}

#[actix_rt::test]
async fn whoever_waits_for_a_step_is_answered_when_it_is_applied() {
    let server = restored().await;
    let waiting = server.send(push(1, 0, 0));
    let completing = server.send(push(1, 0, 1));
    let (waiting, completing) = futures_util::future::join(waiting, completing).await;
    assert_eq!(waiting.unwrap(), Ok(first_step()));
    assert_eq!(completing.unwrap(), Ok(first_step()));
}

#[actix_rt::test]
async fn a_push_that_is_repeated_after_its_step_is_answered_at_once() {
    let server = restored().await;
    let both = futures_util::future::join(server.send(push(1, 0, 0)), server.send(push(1, 0, 1)));
    both.await.0.unwrap().unwrap();
    assert_eq!(server.send(push(1, 0, 0)).await.unwrap(), Ok(first_step()));
}

#[actix_rt::test]
async fn a_later_push_of_the_same_worker_takes_the_place_of_the_waiting_one() {
    let server = restored().await;
    let (earlier, later) = (server.send(push(1, 0, 0)), server.send(push(1, 0, 0)));
    let later = actix_rt::spawn(later);
    assert_eq!(earlier.await.unwrap(), Err(PushError::Superseded));
    server.send(push(1, 0, 1)).await.unwrap().unwrap();
    assert_eq!(later.await.unwrap().unwrap(), Ok(first_step()));
}

#[actix_rt::test]
async fn a_server_without_a_shard_says_so() {
    let server = server();
    let early = server.send(push(1, 0, 0)).await.unwrap();
    assert_eq!(early, Err(PushError::NotReady(ShardId(0))));
}

#[actix_rt::test]
async fn a_restoration_ends_the_wait_for_abandoned_steps() {
    let server = restored().await;
    let waiting = server.send(push(1, 0, 0));
    server.send(restore(2)).await.unwrap().unwrap();
    assert_eq!(waiting.await.unwrap(), Err(PushError::Link(LinkError::Closed)));
    let stale = server.send(push(1, 0, 1)).await.unwrap();
    assert_eq!(stale, Err(PushError::StaleView { got: View(1), current: View(2) }));
}

#[actix_rt::test]
async fn a_restoration_forgets_the_parts_of_abandoned_steps() {
    let server = restored().await;
    let _abandoned = send(&server, push(1, 0, 0));
    server.send(restore(2)).await.unwrap().unwrap();
    let waiting = send(&server, push(2, 0, 1));
    let answers = futures_util::future::join(waiting, server.send(push(2, 0, 0))).await;
    assert_eq!(answers.1.unwrap(), Ok(first_step()));
}

#[actix_rt::test]
async fn new_leases_keep_the_wait_and_the_parts() {
    let server = restored().await;
    let waiting = server.send(push(1, 0, 0));
    let adopt = AdoptView { appointment: primary(2), lineage: View(1) };
    server.send(adopt).await.unwrap().unwrap();
    let completing = server.send(push(2, 0, 1)).await.unwrap();
    assert_eq!(completing, Ok(first_step()));
    assert_eq!(waiting.await.unwrap(), Ok(first_step()));
}

/// Nobody is left waiting, and what can be pulled is what was there before.
#[actix_rt::test]
async fn a_sum_that_overflows_is_refused_to_everyone_who_waits() {
    let server = restored().await;
    let huge = |slot| PushGradient {
        payload: vec![Payload::Dense(Arc::new(vec![f32::MAX; 3]))],
        ..push(1, 0, slot)
    };
    let waiting = server.send(huge(0));
    let (waiting, completing) = futures_util::future::join(waiting, server.send(huge(1))).await;
    let overflow = completing.unwrap().unwrap_err();
    assert!(matches!(overflow, PushError::Overflow { index: 0, .. }), "{overflow}");
    assert_eq!(waiting.unwrap(), Err(overflow.clone()));
    // A worker that comes late hears the same.
    assert_eq!(server.send(push(1, 0, 0)).await.unwrap(), Err(overflow));
    let pull = PullParameters { view: View(1), shard: ShardId(0), version: None };
    let newest = server.send(pull).await.unwrap().unwrap();
    assert_eq!((newest.version, &*newest.values), (Version(0), &vec![0.0; 3]));
}

/// A peer may make up workers; who waits is bounded, and those who do wait keep their places.
#[actix_rt::test]
async fn more_workers_than_a_job_can_have_are_not_kept_waiting() {
    let server = restored().await;
    for worker in 0..8192 {
        server.do_send(PushGradient { worker: WorkerId(worker), ..push(1, 0, 0) });
    }
    let one_more = PushGradient { worker: WorkerId(8192), ..push(1, 0, 1) };
    assert_eq!(server.send(one_more).await.unwrap(), Err(PushError::Busy { waiting: 8192 }));
    assert_eq!(server.send(push(1, 0, 1)).await.unwrap(), Ok(first_step()));
}
