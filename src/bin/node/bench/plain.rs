//! The training loop that somebody would write without a cluster: threads that share parameters.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Barrier, Mutex, PoisonError, RwLock};
use std::thread;
use std::time::Duration;

use gradmesh::config::Config;
use gradmesh::data;
use gradmesh_actors::dataset::{Rows, Split};
use gradmesh_actors::ids::{Slot, Version};
use gradmesh_actors::layout::Layout;
use gradmesh_actors::model::{Model, ModelKinds, describe, initialise};
use gradmesh_actors::optimizer::Optimizer;
use gradmesh_actors::shuffle;
use tokio::time::Instant;

/// Of a learning rate's schedule, which has no end here.
const STEPS: u64 = 1 << 40;

/// What the threads share.
struct Loop<'a> {
    model: &'a dyn Model,
    parameters: RwLock<Vec<f32>>,
    /// One a thread.
    gradients: Vec<Mutex<Vec<f32>>>,
    rows: Rows,
    order: Vec<u32>,
    /// Rows of a thread in each step.
    share: usize,
    met: Barrier,
    over: AtomicBool,
}

/// Samples a second of `threads` that each compute a part of every batch, of which the first one
/// applies the sum: the job's model, rows and optimizer, for `lasts`. Nothing is evaluated.
pub(super) fn sample_rate(
    config: &Config,
    threads: usize,
    lasts: Duration,
    base: &Path,
) -> anyhow::Result<f64> {
    let job = &config.job;
    let data = data::open(&job.data, job.model.loss, job.seed, base)?;
    let model = ModelKinds::builtin().build(&describe(&job.model, data.shape())?)?;
    let layout = Layout::new(model.tensors())?;
    let rows = data.load(Split::Train, 0..data.shape().train_rows)?;
    let optimizer = Optimizer::new(&job.optimizer, STEPS);
    let mut state = optimizer.new_state(layout.len())?;
    let mut next = vec![0.0; layout.len()];
    let shared = Loop {
        model: &*model,
        parameters: RwLock::new(initialise(&layout, job.seed, 0..layout.len())?),
        gradients: (0..threads).map(|_| Mutex::new(vec![0.0; layout.len()])).collect(),
        order: shuffle::order(job.seed, 0, Slot(0), rows.len()),
        share: job.batch_size / threads,
        rows,
        met: Barrier::new(threads),
        over: AtomicBool::new(false),
    };
    let scale = 1.0 / (shared.share * threads) as f32;
    let started = Instant::now();
    let mut steps = 0;
    thread::scope(|scope| {
        for at in 1..threads {
            let shared = &shared;
            scope.spawn(move || shared.work(at, || ()));
        }
        shared.work(0, || {
            let mut sum = held(&shared.gradients[0]);
            for other in &shared.gradients[1..] {
                sum.iter_mut().zip(held(other).iter()).for_each(|(sum, other)| *sum += other);
            }
            sum.iter_mut().for_each(|value| *value *= scale);
            let mut parameters = shared.parameters.write().unwrap_or_else(PoisonError::into_inner);
            optimizer.apply(Version(steps), &sum, &parameters, &mut next, &mut state);
            std::mem::swap(&mut *parameters, &mut next);
            steps += 1;
            shared.over.store(started.elapsed() >= lasts, Ordering::Relaxed);
        });
    });
    Ok(steps as f64 * (shared.share * threads) as f64 / started.elapsed().as_secs_f64())
}

impl Loop<'_> {
    /// Until it is over; `finish` is called when all gradients of a step are there.
    fn work(&self, at: usize, mut finish: impl FnMut()) {
        let threads = self.gradients.len();
        let mut first = at * self.share;
        while !self.over.load(Ordering::Relaxed) {
            let row = |i: usize| self.order[(first + i) % self.order.len()] as usize;
            let batch = self.rows.select(&(0..self.share).map(row).collect::<Vec<_>>());
            {
                let parameters = self.parameters.read().unwrap_or_else(PoisonError::into_inner);
                let mut gradient = held(&self.gradients[at]);
                self.model.gradient(&parameters, batch.batch(), &mut gradient);
            }
            self.met.wait();
            finish();
            self.met.wait();
            first = (first + threads * self.share) % self.order.len();
        }
    }
}

fn held<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
