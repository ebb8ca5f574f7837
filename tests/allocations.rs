//! What a step allocates: nothing of the size of its gradient, once it has begun.

#![allow(clippy::unwrap_used, reason = "the helpers of a test fail with it")]

use std::path::Path;
use std::sync::Arc;

use dhat::{Alloc, HeapStats, Profiler};
use gradmesh::config::Config;
use gradmesh::transport::{Connection, TcpTransport, Transport};
use gradmesh::wire::{
    Class, Frame, FrameReader, FrameWriter, Limits, Pulse, Target, decode, encode,
};
use gradmesh_actors::dataset::{DatasetShape, Scaling};
use gradmesh_actors::ids::{ShardId, Slot, Version, View, WorkerId};
use gradmesh_actors::job::{Loss, OptimizerKind};
use gradmesh_actors::ledger::{Ledger, SlotReport};
use gradmesh_actors::messages::{
    Parameters, PartHeader, Payload, PushGradient, Pushed, WireMessage, WirePart,
};
use gradmesh_actors::model::{ModelKinds, describe};
use gradmesh_actors::optimizer::Optimizer;
use gradmesh_actors::plan::{JobOffer, JobPlan};
use gradmesh_actors::reduction::Span;
use gradmesh_actors::shard::{Accepted, Shard, ShardState};
use tokio::io::{AsyncRead, AsyncWrite};

#[global_allocator]
static ALLOCATOR: Alloc = Alloc;

const OUTPUTS: usize = 512;
/// With the offsets: 1 MiB of parameters.
const FEATURES: usize = 511;
const BYTES: u64 = (OUTPUTS * (FEATURES + 1) * size_of::<f32>()) as u64;
const WORKERS: u32 = 2;
const WARM_UP: u64 = 8;
const STEPS: u64 = 40;

type Reader = FrameReader<Box<dyn AsyncRead + Unpin>>;
type Writer = FrameWriter<Box<dyn AsyncWrite + Unpin>>;

/// One way over TCP.
struct Way {
    writer: Writer,
    reader: Reader,
}

impl Way {
    async fn new() -> Self {
        let mut listener = TcpTransport.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let Connection { writer, .. } = TcpTransport.connect(listener.address()).await.unwrap();
        let Connection { reader, .. } = listener.accept().await.unwrap();
        let pulse = Pulse::new();
        let reader = FrameReader::new(reader, Limits::TRUSTED, pulse.clone());
        Self { writer: FrameWriter::new(writer, pulse), reader }
    }

    /// Sends a message and gives what arrives.
    async fn carry<P: WirePart>(&mut self, class: Class, kind: u16, part: &P) -> P {
        let (meta, bodies) = encode(part).unwrap();
        let frame = Frame { class, kind, request: 1, target: Target::NODE, meta, bodies };
        let writing = async {
            self.writer.write(&frame).await.unwrap();
            self.writer.flush().await.unwrap();
        };
        let (read, ()) = tokio::join!(self.reader.read(), writing);
        let Frame { meta, bodies, .. } = read.unwrap().unwrap();
        decode(&meta, bodies).unwrap()
    }
}

fn shard(kind: OptimizerKind) -> Shard {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("cluster.toml");
    let mut job = Config::load(&file, &[], std::iter::empty()).unwrap().job;
    job.model.kind = "linear".to_owned();
    job.model.loss = Loss::Squared;
    job.optimizer.kind = kind;
    job.virtual_workers = WORKERS;
    job.batch_size = WORKERS as usize;
    job.epochs = 1;
    let data = DatasetShape {
        train_rows: 100_000,
        test_rows: 0,
        features: FEATURES,
        classes: None,
        target_width: OUTPUTS,
        digest: String::new(),
    };
    let architecture = describe(&job.model, &data).unwrap();
    let model = ModelKinds::builtin().build(&architecture).unwrap();
    let (tensors, outputs) = (model.tensors(), model.outputs());
    let offer = JobOffer { job, data, scaling: Scaling::None, architecture, tensors, outputs };
    let plan = JobPlan::new(offer, 1).unwrap();
    let len = plan.layout.len();
    let optimizer = Optimizer::new(&plan.offer.job.optimizer, plan.last_version().0);
    let state = ShardState {
        version: Version(0),
        parameters: vec![1.0; len],
        optimizer: optimizer.new_state(len).unwrap(),
        ledger: Ledger::default(),
    };
    Shard::new(ShardId(0), Arc::new(plan), 1_000_000, View(1), state)
}

fn push(step: Version, slot: u32, gradient: &Arc<Vec<f32>>) -> PushGradient {
    PushGradient {
        view: View(1),
        worker: WorkerId(slot),
        shard: ShardId(0),
        step,
        parts: vec![PartHeader { span: Span::one(Slot(slot)), rows: 1 }],
        reports: vec![SlotReport { slot: Slot(slot), rows: 1, loss: 1.0, score: None }],
        payload: vec![Payload::Dense(Arc::clone(gradient))],
    }
}

/// One push of each worker, and the reply to each.
async fn step(ways: &mut [(Way, Way)], shard: &mut Shard, gradient: &Arc<Vec<f32>>) {
    let of = shard.version();
    for (slot, (there, _)) in (0u32..).zip(&mut *ways) {
        let sent = push(of, slot, gradient);
        let pushed = there.carry(Class::Request, PushGradient::KIND, &sent).await;
        let accepted = shard.accept(&pushed).unwrap();
        assert_eq!(accepted == Accepted::Complete, slot + 1 == WORKERS);
    }
    shard.aggregate().unwrap();
    shard.apply(None, false).unwrap();
    shard.commit();
    for (_, back) in ways {
        let Parameters { version, values } = shard.at_or_newest(of.next());
        let reply = Pushed { version, values };
        assert_eq!(back.carry(Class::Reply, PushGradient::KIND, &reply).await, reply);
    }
}

#[actix::test]
async fn a_steady_step_allocates_nothing_of_the_size_of_its_gradient_and_memory_stays_flat() {
    let _profiler = Profiler::builder().testing().build();
    for kind in [OptimizerKind::Sgd, OptimizerKind::Adam] {
        let mut shard = shard(kind);
        let gradient = Arc::new(vec![1e-3; FEATURES * OUTPUTS + OUTPUTS]);
        let mut ways = Vec::new();
        for _ in 0..WORKERS {
            ways.push((Way::new().await, Way::new().await));
        }
        for _ in 0..WARM_UP {
            step(&mut ways, &mut shard, &gradient).await;
        }
        let before = HeapStats::get();
        for _ in 0..STEPS {
            step(&mut ways, &mut shard, &gradient).await;
        }
        let after = HeapStats::get();
        let each = (after.total_bytes - before.total_bytes) / STEPS;
        assert!(each < BYTES / 64, "{kind:?}: {each} bytes a step, a gradient has {BYTES}");
        let grown = after.curr_bytes.saturating_sub(before.curr_bytes) as u64;
        assert!(grown < BYTES / 64, "{kind:?}: {grown} bytes more after {STEPS} steps");
    }
}
