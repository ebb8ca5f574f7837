//! What one worker, one shard and one connection take, measured.

use std::hint::black_box;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::ops::Range;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use gradmesh_actors::dataset::{
    Dataset, DatasetError, DatasetShape, RowTargets, Rows, Scaling, Split,
};
use gradmesh_actors::ids::{Slot, Version};
use gradmesh_actors::job::{Activation, JobSpec, Loss};
use gradmesh_actors::model::{MlpSettings, ModelDescription, ModelKinds};
use gradmesh_actors::optimizer::Optimizer;
use gradmesh_actors::plan::{JobOffer, JobPlan};
use gradmesh_actors::reduction::{Part, Reduction, Span};
use gradmesh_actors::slot_work::SlotWork;
use ndarray::Array2;

use super::queues::{Costs, Shard};

const FEATURES: usize = 784;
const CLASSES: usize = 10;
/// Of which the median counts.
const REPEATS: usize = 15;
/// Pushes that are added up.
const PUSHES: u32 = 8;
const SOCKET_BYTES: usize = 256 << 20;
const PIECE: usize = 256 << 10;

/// What a job with so many shards takes.
pub(crate) struct Measured {
    begin: f64,
    shards: Vec<Shard>,
    socket: f64,
}

impl Measured {
    /// A worker with one slot of so many rows.
    pub(crate) fn of(hidden: &[usize], rows: usize, shards: u32) -> Self {
        let data = Arc::new(Pictures(DatasetShape {
            train_rows: 4 * rows,
            test_rows: 0,
            features: FEATURES,
            classes: Some(CLASSES),
            target_width: 1,
            digest: String::new(),
        }));
        let settings = MlpSettings {
            features: FEATURES,
            outputs: CLASSES,
            hidden: hidden.to_vec(),
            activation: Activation::Relu,
            loss: Loss::Softmax,
        };
        let settings = serde_json::to_value(settings).unwrap();
        let architecture = ModelDescription { kind: "mlp".to_owned(), settings };
        let model = ModelKinds::builtin().build(&architecture).unwrap();
        let (tensors, outputs) = (model.tensors(), model.outputs());
        let (shape, scaling) = (data.0.clone(), data.scaling().clone());
        let job = job(hidden, rows);
        let offer = JobOffer { job, data: shape, scaling, architecture, tensors, outputs };
        let plan = Arc::new(JobPlan::new(offer, shards).unwrap());
        let mut work = SlotWork::new(Arc::clone(&plan), model);
        work.hold(Span::one(Slot(0)), &*data).unwrap();
        let (begin, gradients) = worker(&mut work, &plan);
        let shards = plan.shards.iter().zip(gradients);
        let shards = shards.map(|((_, range), gradient)| shard(&plan, range.len(), gradient));
        Self { begin, shards: shards.collect(), socket: socket() }
    }

    pub(crate) fn costs(self, latency: f64) -> Costs {
        let Self { begin, shards, socket } = self;
        Costs { begin, shards, latency, socket }
    }
}

/// Of the beginning of a step, and of each shard's gradient.
fn worker(work: &mut SlotWork, plan: &JobPlan) -> (f64, Vec<f64>) {
    let parameters = vec![1e-3; plan.layout.len()];
    let count = plan.shards.len();
    let mut times = vec![Vec::new(); count + 1];
    for step in 0..REPEATS as u64 {
        let step = Version(step % plan.last_version().0);
        work.prepare(step);
        let began = Instant::now();
        let mut computed = work.begin(step, &parameters).unwrap();
        times[count].push(began.elapsed());
        for shard in (0..count).rev() {
            let began = Instant::now();
            work.complete(shard, step, &parameters, &mut computed).unwrap();
            times[shard].push(began.elapsed());
        }
    }
    let mut times: Vec<f64> = times.into_iter().map(median).collect();
    let begin = times.pop().unwrap();
    (begin, times)
}

fn shard(plan: &JobPlan, len: usize, gradient: f64) -> Shard {
    let values = vec![1e-3f32; len];
    let mut place = vec![0.0; len];
    let copied = per_call(|| black_box(&mut place).copy_from_slice(black_box(&values)));
    let parts: Vec<Arc<Vec<f32>>> = (0..PUSHES).map(|_| Arc::new(values.clone())).collect();
    let mut tree = Reduction::new(PUSHES);
    let summed = per_call(|| {
        tree.clear();
        for (slot, values) in (0..PUSHES).zip(&parts) {
            let part = Part { values: Arc::clone(values), rows: 1 };
            tree.insert(Span::one(Slot(slot)), part).unwrap();
        }
        black_box(tree.take_parts());
    });
    let optimizer = Optimizer::new(&plan.offer.job.optimizer, plan.last_version().0);
    let mut state = optimizer.new_state(len).unwrap();
    let mut next = vec![0.0; len];
    let applied = per_call(|| {
        optimizer.apply(Version(0), &values, &values, black_box(&mut next), &mut state);
    });
    // The last addition reads one more vector in the same pass.
    let add = summed / f64::from(PUSHES - 1);
    let bytes = (len * size_of::<f32>()) as f64;
    let apply = applied + add / 2.0;
    Shard { bytes, gradient, place: copied, add, apply }
}

/// Seconds a byte between two threads over loopback.
fn socket() -> f64 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let mut to = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let mut from = listener.accept().unwrap().0;
    let began = Instant::now();
    let reader = thread::spawn(move || {
        let mut piece = vec![0; PIECE];
        let mut left = SOCKET_BYTES;
        while left > 0 {
            left -= from.read(&mut piece).unwrap();
        }
    });
    let piece = vec![1; PIECE];
    (0..SOCKET_BYTES / PIECE).for_each(|_| to.write_all(&piece).unwrap());
    reader.join().unwrap();
    began.elapsed().as_secs_f64() / SOCKET_BYTES as f64
}

fn per_call(mut call: impl FnMut()) -> f64 {
    call();
    let times = (0..REPEATS).map(|_| {
        let began = Instant::now();
        call();
        began.elapsed()
    });
    median(times.collect())
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times[times.len() / 2].as_secs_f64()
}

fn job(hidden: &[usize], rows: usize) -> JobSpec {
    let job = serde_json::json!({
        "seed": 1, "epochs": 1_000_000, "batch_size": rows, "virtual_workers": 1,
        "model": {"name": "scaling", "kind": "mlp", "hidden": hidden, "activation": "relu",
                  "loss": "softmax"},
        "data": {"format": "idx", "train": "none", "train_labels": "none", "test": null,
                 "test_labels": null, "test_fraction": 0.0, "target": "-1", "header": false,
                 "text": null, "text_buckets": 2048, "scale": "divide", "divide_by": 255.0},
        "optimizer": {"kind": "sgd", "learning_rate": 0.1, "momentum": 0.0, "beta1": 0.9,
                      "beta2": 0.999, "epsilon": 1e-8, "weight_decay": 0.0,
                      "schedule": {"kind": "constant", "warmup_steps": 0, "every_steps": 1,
                                   "factor": 0.5, "floor": 0.0}},
        "gradient": {"clip_value": 0.0, "clip_norm": 0.0, "codec": "none", "top_k": 0.1}
    });
    serde_json::from_value(job).unwrap()
}

/// Rows of numbers as pictures have them.
#[derive(Debug)]
struct Pictures(DatasetShape);

impl Dataset for Pictures {
    fn shape(&self) -> &DatasetShape {
        &self.0
    }

    fn scaling(&self) -> &Scaling {
        &Scaling::Divide { by: 255.0 }
    }

    fn load(&self, _: Split, range: Range<usize>) -> Result<Rows, DatasetError> {
        let number = |(row, at): (usize, usize)| ((range.start + row) * 31 + at * 7) % 256;
        let mut inputs =
            Array2::from_shape_fn((range.len(), FEATURES), |place| number(place) as f32);
        self.scaling().apply(&mut inputs);
        let classes = range.clone().map(|row| (row % CLASSES) as u32).collect();
        Ok(Rows { inputs, targets: RowTargets::Classes(classes) })
    }
}
