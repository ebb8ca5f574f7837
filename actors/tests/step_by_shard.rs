//! A worker's step where there are several shards: each is sent while the others are computed.

#![allow(clippy::unwrap_used, reason = "the helpers of a test fail with it")]

mod support;

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};

use actix::{Actor, Context, Handler};
use gradmesh_actors::ids::{CoordinatorId, ServerId, ShardId, Version, View, WorkerId};
use gradmesh_actors::layout::{Init, TensorSpec};
use gradmesh_actors::messages::checkpoint_store::{CheckpointError, LoadResiduals, SavePart};
use gradmesh_actors::messages::{
    LeaseSlots, Parameters, PullParameters, PushGradient, Pushed, ReportFailure, ReportPart,
    ReportSpeed, Values,
};
use gradmesh_actors::model::{Backward, Batch, Model, ModelDescription, Score};
use gradmesh_actors::plan::{JobOffer, JobPlan};
use gradmesh_actors::reduction::Span;
use gradmesh_actors::worker::{Worker, WorkerLinks};
use ndarray::{Array2, ArrayView2};
use support::{answers, offer, task};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

/// A shard, and all others whom a worker asks. It tells which version it is asked for the next of.
struct Shard {
    plan: JobPlan,
    pushes: Arc<AtomicUsize>,
    steps: UnboundedSender<Version>,
}

impl Actor for Shard {
    type Context = Context<Self>;
}

answers!(Shard, ReportPart, Ok(()));
answers!(Shard, ReportSpeed, Ok(()));
answers!(Shard, SavePart, Err(CheckpointError::Closed));
answers!(Shard, LoadResiduals, Err(CheckpointError::Closed));

/// Ten times the version, and the place in all.
fn all(plan: &JobPlan, version: Version) -> Vec<f32> {
    (0..plan.layout.len()).map(|place| 10.0 * version.0 as f32 + place as f32).collect()
}

impl Shard {
    fn values(&self, shard: ShardId, version: Version) -> Values {
        Arc::new(all(&self.plan, version)[self.plan.shards.range(shard)].to_vec())
    }
}

impl Handler<ReportFailure> for Shard {
    type Result = <ReportFailure as actix::Message>::Result;

    fn handle(&mut self, report: ReportFailure, _: &mut Self::Context) -> Self::Result {
        panic!("{report:?}")
    }
}

impl Handler<PullParameters> for Shard {
    type Result = <PullParameters as actix::Message>::Result;

    fn handle(&mut self, pull: PullParameters, _: &mut Self::Context) -> Self::Result {
        let version = Version(0);
        Ok(Parameters { version, values: self.values(pull.shard, version) })
    }
}

impl Handler<PushGradient> for Shard {
    type Result = <PushGradient as actix::Message>::Result;

    fn handle(&mut self, push: PushGradient, _: &mut Self::Context) -> Self::Result {
        self.pushes.fetch_add(1, Ordering::SeqCst);
        self.steps.send(push.step).unwrap();
        let version = push.step.next();
        Ok(Pushed { version, values: self.values(push.shard, version) })
    }
}

/// Of as many parameters as two shards have some of.
fn large() -> JobOffer {
    JobOffer { tensors: vec![TensorSpec::new("w", vec![600], Init::Zeros)], ..offer() }
}

/// What a model was asked, and how many pushes had come by then.
#[derive(Debug, PartialEq)]
enum Asked {
    /// With the first and the last of the parameters.
    Run {
        parameters: [f32; 2],
    },
    Gradient {
        range: Range<usize>,
        pushes: usize,
    },
}

#[derive(Clone, Debug)]
struct Watched {
    pushes: Arc<AtomicUsize>,
    asked: mpsc::Sender<Asked>,
}

impl Model for Watched {
    fn tensors(&self) -> Vec<TensorSpec> {
        large().tensors
    }

    fn features(&self) -> usize {
        2
    }

    fn outputs(&self) -> usize {
        1
    }

    fn gradient(&self, _: &[f32], _: Batch<'_>, _: &mut [f32]) -> f64 {
        panic!("a step is computed shard by shard where it can be")
    }

    fn backward(&self) -> Option<Box<dyn Backward>> {
        Some(Box::new(self.clone()))
    }

    fn predict(&self, _: &[f32], inputs: ArrayView2<'_, f32>) -> Array2<f32> {
        Array2::zeros((inputs.nrows(), 1))
    }

    fn evaluate(&self, _: &[f32], batch: Batch<'_>) -> Score {
        Score { rows: batch.inputs.nrows() as u64, loss: 1.0, correct: None }
    }

    fn describe(&self) -> ModelDescription {
        offer().architecture
    }
}

impl Backward for Watched {
    fn run(&mut self, parameters: &[f32], _: Batch<'_>) {
        let parameters = [parameters[0], parameters[parameters.len() - 1]];
        self.asked.send(Asked::Run { parameters }).unwrap();
    }

    fn loss(&self, _: Range<usize>) -> f64 {
        1.0
    }

    fn gradient(
        &mut self,
        _: &[f32],
        _: Batch<'_>,
        _: Range<usize>,
        range: Range<usize>,
        gradient: &mut [f32],
    ) {
        gradient.fill(1.0);
        let pushes = self.pushes.load(Ordering::SeqCst);
        self.asked.send(Asked::Gradient { range, pushes }).unwrap();
    }
}

#[actix_rt::test]
async fn the_last_shard_is_on_its_way_before_the_first_one_is_computed() {
    let (step_sender, mut steps) = unbounded_channel();
    let (asked_sender, asked) = mpsc::channel();
    let pushes = Arc::new(AtomicUsize::new(0));
    let plan = JobPlan::new(large(), 2).unwrap();
    let [first, last] = [0, 1].map(|shard| plan.shards.range(ShardId(shard)));
    let shard = Shard { plan, pushes: Arc::clone(&pushes), steps: step_sender }.start();
    let links = WorkerLinks {
        push: vec![vec![shard.clone().recipient(), shard.clone().recipient()]],
        pull: vec![vec![shard.clone().recipient(), shard.clone().recipient()]],
        report_part: vec![shard.clone().recipient()],
        report_failure: vec![shard.clone().recipient()],
        report_speed: vec![shard.clone().recipient()],
        save: shard.clone().recipient(),
        load_residuals: shard.recipient(),
    };
    let model = Arc::new(Watched { pushes, asked: asked_sender });
    let mut task = task(large());
    task.model = model;
    let worker = Worker::new(WorkerId(0), task, links).start();
    let lease = LeaseSlots {
        view: View(1),
        worker: WorkerId(0),
        // One of the two slots: with both, its gradients would come one after the other.
        slots: Span { first: 0, end: 1 },
        primaries: vec![ServerId(0); 2],
        leader: CoordinatorId(0),
        lineage: View(1),
        rolled_back_to: Version(0),
        checkpoint_every: 100,
    };
    worker.send(lease).await.unwrap().unwrap();
    // Two steps have been computed when the third one is pushed.
    while steps.recv().await.unwrap() < Version(2) {}
    drop(worker);
    let gradient = |range: &Range<usize>, pushes| Asked::Gradient { range: range.clone(), pushes };
    let expected = [
        Asked::Run { parameters: [0.0, 599.0] },
        gradient(&last, 0),
        gradient(&first, 1),
        Asked::Run { parameters: [10.0, 609.0] },
        gradient(&last, 2),
        gradient(&first, 3),
        Asked::Run { parameters: [20.0, 619.0] },
    ];
    let asked: Vec<Asked> = asked.try_iter().take(expected.len()).collect();
    assert_eq!(asked, expected);
}
