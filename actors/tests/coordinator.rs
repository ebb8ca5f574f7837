//! Coordinator from its mailbox: from the first heartbeat to leases, and what it believes.

#![allow(clippy::unwrap_used, reason = "the helpers of a test fail with it")]

mod support;

use std::time::Duration;

use actix::{Actor, Addr, Context, Handler};
use gradmesh_actors::coordinator::{Candidate, Coordinator, CoordinatorLinks};
use gradmesh_actors::ids::{CoordinatorId, Incarnation, Version, View, WorkerId};
use gradmesh_actors::messages::checkpoint_store::{
    CheckpointError, CommitCheckpoint, ConcludeRun, LoadState, OpenCheckpoints, Opened,
};
use gradmesh_actors::messages::coordination::{
    AppendView, Appended, Entry, Observe, Observed, RenewLease, Resign,
};
use gradmesh_actors::messages::{
    AdoptView, BytesMoved, ChangeError, FailureKind, FindError, FindModel, GetStatus, Heartbeat,
    HeartbeatError, LeaseSlots, LinkError, Member, PublishModel, ReportError, ReportFailure,
    ReportShard, RestoreShard,
};
use gradmesh_actors::plan::JobOffer;
use gradmesh_actors::presence::{Presence, WordId};
use gradmesh_actors::reduction::Span;
use gradmesh_actors::training::{Progress, Training, TrainingConfig, TrainingStatus};
use support::{COPY, answers, job, offer};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::watch;
use tokio::time::Instant;

/// One server, one worker, a registry and an empty checkpoint store; leases are told to the test.
struct Others {
    /// The log of views.
    entries: Vec<Entry>,
    leases: UnboundedSender<LeaseSlots>,
}

impl Actor for Others {
    type Context = Context<Self>;
}

answers!(Others, RestoreShard, Ok(()));
answers!(Others, RenewLease, Ok(()));
answers!(Others, Resign, Ok(()));
answers!(Others, AdoptView, Ok(()));
answers!(Others, PublishModel, Err(ChangeError::Link(LinkError::Closed)));
answers!(Others, OpenCheckpoints, Ok(Opened { manifest: None, finished: None }));
answers!(Others, CommitCheckpoint, Ok(()));
answers!(Others, LoadState, Err(CheckpointError::Closed));
answers!(Others, ConcludeRun, Ok(()));
answers!(Others, FindModel, Err(FindError::Link(LinkError::Closed)));

impl Handler<Observe> for Others {
    type Result = <Observe as actix::Message>::Result;

    fn handle(&mut self, _: Observe, _: &mut Self::Context) -> Self::Result {
        Ok(Observed { newest: self.entries.last().cloned(), beat: None })
    }
}

impl Handler<AppendView> for Others {
    type Result = <AppendView as actix::Message>::Result;

    fn handle(&mut self, append: AppendView, _: &mut Self::Context) -> Self::Result {
        let next = self.entries.last().map_or(View(1), |entry| entry.view.next().unwrap());
        if append.entry.view == next {
            self.entries.push(append.entry);
            return Ok(Appended::Won);
        }
        Ok(Appended::Taken(self.entries.last().unwrap().clone()))
    }
}

impl Handler<LeaseSlots> for Others {
    type Result = <LeaseSlots as actix::Message>::Result;

    fn handle(&mut self, lease: LeaseSlots, _: &mut Self::Context) -> Self::Result {
        self.leases.send(lease).unwrap();
        Ok(())
    }
}

struct Bench {
    coordinator: Addr<Coordinator>,
    leases: UnboundedReceiver<LeaseSlots>,
    presence: Presence<Instant>,
}

impl Bench {
    /// It leads in view 1, and everything else comes after.
    async fn new() -> Self {
        let (sender, leases) = unbounded_channel();
        let others = Others { entries: Vec::new(), leases: sender }.start();
        let links = CoordinatorLinks {
            restore: vec![vec![others.clone().recipient()]],
            adopt: vec![vec![others.clone().recipient()]],
            lease: vec![others.clone().recipient()],
            publish: others.clone().recipient(),
            open: others.clone().recipient(),
            observe: others.clone().recipient(),
            append: others.clone().recipient(),
            renew: others.clone().recipient(),
            resign: others.clone().recipient(),
            commit: others.clone().recipient(),
            load_state: others.clone().recipient(),
            conclude: others.clone().recipient(),
            find: others.recipient(),
            presence: Presence::default(),
        };
        let presence = links.presence.clone();
        // Nobody dies here, however slow the machine is.
        let config = TrainingConfig {
            shards: 1,
            servers: 1,
            replicas: 0,
            workers: 1,
            rebalance: true,
            checkpoint_every: 100,
            patience: gradmesh_actors::membership::Patience {
                dead_after: Duration::from_secs(3600),
                refused_after: Duration::from_secs(3600),
                gone_after: Duration::from_secs(3600),
            },
            gather_for: Duration::from_secs(3600),
            gather_again_for: Duration::from_secs(3600),
        };
        let (status, mut shown) =
            watch::channel(Training::new(job(), config.clone(), "r".into()).followed(None));
        let own = Candidate {
            id: CoordinatorId(0),
            name: "main".into(),
            rivals: 0,
            lease: Duration::from_secs(1),
            has_namesakes: false,
            life: "first".into(),
            run: "run".into(),
            started_unix_ms: 0,
        };
        let coordinator = Coordinator::new(own, job(), config, links, status).start();
        let leads = |status: &TrainingStatus| status.progress == Progress::Gathering;
        shown.wait_for(leads).await.unwrap();
        Self { coordinator, leases, presence }
    }

    /// A run in view 2, slots leased.
    async fn running() -> Self {
        let mut bench = Self::new().await;
        bench.coordinator.send(heartbeat(Some(offer()))).await.unwrap().unwrap();
        bench.leases.recv().await.unwrap();
        bench
    }

    async fn status(&self) -> TrainingStatus {
        self.coordinator.send(GetStatus {}).await.unwrap().unwrap()
    }
}

/// Of a node that runs the shard and the worker.
fn heartbeat(offer: Option<JobOffer>) -> Heartbeat {
    let life = Incarnation(1);
    Heartbeat {
        node: "n".into(),
        life,
        members: vec![(Member::Copy(COPY), life), (Member::Worker(WorkerId(0)), life)],
        number: 1,
        offer: offer.map(Box::new),
    }
}

fn report(view: u64, version: u64) -> ReportShard {
    ReportShard {
        view: View(view),
        copy: COPY,
        synced: Vec::new(),
        version: Version(version),
        ledger: None,
        bytes: BytesMoved::default(),
    }
}

#[actix_rt::test]
async fn a_node_is_asked_what_it_trains_and_then_gets_slots() {
    let mut bench = Bench::new().await;
    assert_eq!(bench.status().await.progress, Progress::Gathering);
    let asked = bench.coordinator.send(heartbeat(None)).await.unwrap().unwrap();
    assert!(asked.offer_wanted);
    let told = bench.coordinator.send(heartbeat(Some(offer()))).await.unwrap().unwrap();
    assert!(!told.offer_wanted);
    let lease = bench.leases.recv().await.unwrap();
    assert_eq!((lease.view, lease.worker), (View(2), WorkerId(0)));
    assert_eq!(lease.slots, Span { first: 0, end: 2 });
    let status = bench.status().await;
    assert_eq!((status.progress, status.view), (Progress::Running, View(2)));
}

#[actix_rt::test]
async fn a_node_that_is_known_is_not_asked_again() {
    let bench = Bench::running().await;
    let answer = bench.coordinator.send(heartbeat(None)).await.unwrap().unwrap();
    assert_eq!((answer.view, answer.offer_wanted), (View(2), false));
}

/// Else its beats would keep alive those that a later process of its name has, after that one is dead.
#[actix_rt::test]
async fn beats_stand_for_a_word_that_is_believed_and_for_none_of_an_earlier_life() {
    let bench = Bench::running().await;
    let said = |life: u64| {
        let mut word = heartbeat(Some(offer()));
        (word.life, word.number) = (Incarnation(life), 7);
        word.members.iter_mut().for_each(|(_, of)| *of = Incarnation(life));
        bench.coordinator.send(word)
    };
    let is_asked = |life: u64| {
        let word = WordId { life: Incarnation(life), number: 7 };
        bench.presence.beat("n", word, Instant::now())
    };
    assert!(is_asked(1), "its word had another number");
    said(1).await.unwrap().unwrap();
    assert!(!is_asked(1));
    said(2).await.unwrap().unwrap();
    assert!(is_asked(1) && !is_asked(2));
    said(1).await.unwrap().unwrap();
    assert!(is_asked(1) && is_asked(2));
}

#[actix_rt::test]
async fn a_node_that_would_train_something_else_is_refused() {
    let bench = Bench::running().await;
    let mut other = offer();
    other.data.digest = "other".into();
    let refused = bench.coordinator.send(heartbeat(Some(other))).await.unwrap();
    assert!(matches!(refused, Err(HeartbeatError::OtherJob { .. })), "{refused:?}");
}

#[actix_rt::test]
async fn a_shard_report_of_this_view_is_shown_and_of_any_other_refused() {
    let bench = Bench::running().await;
    bench.coordinator.send(report(2, 3)).await.unwrap().unwrap();
    for view in [0, 1, 3] {
        let refused = bench.coordinator.send(report(view, 7)).await.unwrap();
        let (got, current) = (View(view), View(2));
        assert_eq!(refused, Err(ReportError::StaleView { got, current }));
    }
    assert_eq!(bench.status().await.version, Version(3));
}

#[actix_rt::test]
async fn a_reported_failure_ends_the_run_with_its_cause() {
    let bench = Bench::running().await;
    let failure = |view| ReportFailure {
        view: View(view),
        worker: WorkerId(0),
        kind: FailureKind::Lasting,
        cause: "it overflows".into(),
    };
    let stale = bench.coordinator.send(failure(0)).await.unwrap();
    assert!(matches!(stale, Err(ReportError::StaleView { .. })), "{stale:?}");
    assert_eq!(bench.status().await.progress, Progress::Running);
    bench.coordinator.send(failure(2)).await.unwrap().unwrap();
    let cause = "it overflows".to_owned();
    assert_eq!(bench.status().await.progress, Progress::Failed { cause });
}
