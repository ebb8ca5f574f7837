//! A job of two slots and three parameters, and a server in a cluster that answers nothing.

#![allow(dead_code, reason = "each test program needs a part of it")]
#![allow(clippy::unwrap_used, reason = "the helpers of a test fail with it")]

mod task;

use std::sync::Arc;

use actix::{Actor, Addr, Context, Handler};
use gradmesh_actors::dataset::{DatasetShape, Scaling};
use gradmesh_actors::ids::{
    CoordinatorId, ServerId, ShardCopy, ShardId, Slot, Version, View, WorkerId,
};
use gradmesh_actors::job::JobSpec;
use gradmesh_actors::layout::{Init, TensorSpec};
use gradmesh_actors::ledger::SlotReport;
use gradmesh_actors::messages::checkpoint_store::{CheckpointError, LoadRange, SavePart};
use gradmesh_actors::messages::{
    Appointment, CombineNorm, Duty, FetchModel, FillShard, FindError, FindModel, LinkError,
    NormError, PartHeader, Payload, PushGradient, Replicate, ReplicateError, ReportFenced,
    ReportPart, ReportShard, RestoreShard,
};
use gradmesh_actors::model::ModelDescription;
use gradmesh_actors::parameter_server::{ParameterServer, ServerLinks};
use gradmesh_actors::plan::JobOffer;
use gradmesh_actors::reduction::Span;

/// Has an actor answer a message always in the same way.
macro_rules! answers {
    ($actor:ty, $message:ty, $answer:expr) => {
        impl actix::Handler<$message> for $actor {
            type Result = <$message as actix::Message>::Result;

            fn handle(&mut self, _: $message, _: &mut Self::Context) -> Self::Result {
                $answer
            }
        }
    };
}
#[allow(unused_imports, reason = "as above")]
pub(crate) use answers;
#[allow(unused_imports, reason = "as above")]
pub(crate) use task::task;

/// Coordinator and store of a server that saves nothing here.
pub(crate) struct Others;

impl Actor for Others {
    type Context = Context<Self>;
}

answers!(Others, ReportShard, Ok(()));
answers!(Others, ReportPart, Ok(()));
answers!(Others, ReportFenced, Ok(()));
answers!(Others, SavePart, Err(CheckpointError::Closed));
answers!(Others, LoadRange, Err(CheckpointError::Closed));
answers!(Others, CombineNorm, Err(NormError::NotReady));
answers!(Others, Replicate, Err(ReplicateError::Link(LinkError::Closed)));
answers!(Others, FillShard, Err(ReplicateError::Link(LinkError::Closed)));

/// A registry that is away.
pub(crate) struct NoRegistry;

impl Actor for NoRegistry {
    type Context = Context<Self>;
}

answers!(NoRegistry, FindModel, Err(FindError::Link(LinkError::Closed)));
answers!(NoRegistry, FetchModel, Err(FindError::Link(LinkError::Closed)));

pub(crate) const COPY: ShardCopy = ShardCopy { shard: ShardId(0), server: ServerId(0) };

/// The primary of a view, with nobody to follow it.
pub(crate) fn primary(view: u64) -> Appointment {
    let duty = Duty::Primary { replicas: Vec::new(), learners: Vec::new() };
    Appointment { view: View(view), copy: COPY, duty, first: ServerId(0), leader: CoordinatorId(0) }
}

pub(crate) fn job() -> JobSpec {
    let job = serde_json::json!({
        "seed": 1, "epochs": 3, "batch_size": 10, "virtual_workers": 2,
        "model": {"name": "toy", "kind": "linear", "hidden": [], "activation": "relu",
                  "loss": "squared"},
        "data": {"format": "csv", "train": "toy.csv", "train_labels": null, "test": null,
                 "test_labels": null, "test_fraction": 0.0, "target": "-1", "header": false, "text": null, "text_buckets": 2048,
                 "scale": "none", "divide_by": 1.0},
        "optimizer": {"kind": "sgd", "learning_rate": 1.0, "momentum": 0.0, "beta1": 0.9,
                      "beta2": 0.9, "epsilon": 1e-8, "weight_decay": 0.0,
                      "schedule": {"kind": "constant", "warmup_steps": 0, "every_steps": 1,
                                   "factor": 0.5, "floor": 0.0}},
        "gradient": {"clip_value": 0.0, "clip_norm": 0.0, "codec": "none", "top_k": 0.1}
    });
    serde_json::from_value(job).unwrap()
}

/// 3 parameters that start at zero, 2 slots, steps of 10 of 40 rows.
pub(crate) fn offer() -> JobOffer {
    let data = DatasetShape {
        train_rows: 40,
        test_rows: 0,
        features: 2,
        classes: None,
        target_width: 1,
        digest: "d".into(),
    };
    let settings = serde_json::Value::Null;
    JobOffer {
        job: job(),
        data,
        scaling: Scaling::None,
        architecture: ModelDescription { kind: "linear".into(), settings },
        tensors: vec![TensorSpec::new("w", vec![3], Init::Zeros)],
        outputs: 1,
    }
}

pub(crate) fn restore(view: u64) -> RestoreShard {
    RestoreShard {
        appointment: primary(view),
        version: Version(0),
        offer: offer(),
        shards: 1,
        checkpoint_every: 100,
    }
}

pub(crate) fn server() -> Addr<ParameterServer> {
    ParameterServer::new(COPY, links(&Others.start())).start()
}

/// Pushes of both slots for the first step of view 1, each by a worker of its own; nobody waits for an answer.
pub(crate) fn push_first_step(server: &Addr<ParameterServer>) {
    for slot in 0..2 {
        server.do_send(PushGradient {
            view: View(1),
            worker: WorkerId(slot),
            shard: ShardId(0),
            step: Version(0),
            parts: vec![PartHeader { span: Span::one(Slot(slot)), rows: 5 }],
            reports: vec![SlotReport { slot: Slot(slot), rows: 5, loss: 1.0, score: None }],
            payload: vec![Payload::Dense(Arc::new(vec![5.0; 3]))],
        });
    }
}

/// Everyone whom a server speaks to is one actor.
pub(crate) fn links<A>(others: &Addr<A>) -> ServerLinks
where
    A: Actor<Context = Context<A>>
        + Handler<ReportShard>
        + Handler<ReportPart>
        + Handler<ReportFenced>
        + Handler<SavePart>
        + Handler<LoadRange>
        + Handler<CombineNorm>
        + Handler<Replicate>
        + Handler<FillShard>,
{
    ServerLinks {
        report_shard: vec![others.clone().recipient()],
        report_part: vec![others.clone().recipient()],
        report_fenced: vec![others.clone().recipient()],
        save: others.clone().recipient(),
        load: others.clone().recipient(),
        find: NoRegistry.start().recipient(),
        fetch: NoRegistry.start().recipient(),
        norm: vec![others.clone().recipient()],
        replicate: vec![others.clone().recipient(); 2],
        fill: vec![others.clone().recipient(); 2],
    }
}
