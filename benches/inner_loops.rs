//! The loops that a step spends its time in: gradient, tree, optimizer, codecs. `cargo bench`.

#![allow(clippy::unwrap_used, reason = "a benchmark")]
#![allow(missing_docs, reason = "criterion's macros make public functions")]

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use gradmesh_actors::codec::codec;
use gradmesh_actors::ids::{Slot, Version};
use gradmesh_actors::job::{
    CodecKind, GradientSpec, OptimizerKind, OptimizerSpec, ScheduleKind, ScheduleSpec,
};
use gradmesh_actors::layout::{Init, Layout, ShardMap, TensorSpec};
use gradmesh_actors::optimizer::Optimizer;
use gradmesh_actors::reduction::{Part, Reduction, Span};

/// 4 MiB of parameters: past the caches that a core has to itself.
const LEN: usize = 1 << 20;
/// Parameters of the perceptron 784-64-32-10.
const MLP_LEN: usize = 52_650;

type Values = Arc<Vec<f32>>;
/// Of one slot.
type Push = (u32, Values);

fn gradient(len: usize, slot: u32) -> Vec<f32> {
    (0..len).map(|i| ((i as f32) * 0.37 + slot as f32).sin() * 1e-3).collect()
}

fn reduction(c: &mut Criterion) {
    let mut group = c.benchmark_group("reduction");
    group.throughput(Throughput::Bytes((8 * LEN * 4) as u64));
    let parts: Vec<_> = (0..8).map(|slot| gradient(LEN, slot)).collect();
    group.bench_function("8 slots", |b| {
        let setup = || parts.iter().map(|p| Arc::new(p.clone())).collect::<Vec<_>>();
        let sum = |parts: Vec<Values>| {
            let mut tree = Reduction::new(8);
            for (slot, values) in (0u32..).zip(parts) {
                let inserted = tree.insert(Span::one(Slot(slot)), Part { values, rows: 8 });
                assert!(inserted.is_ok());
            }
            tree.take_parts()
        };
        b.iter_batched(setup, |parts| black_box(sum(parts)), BatchSize::LargeInput);
    });
    group.finish();
}

/// What the canonical order costs: the same pushes, in the worst order for the tree, added by it or
/// to one running sum. "last": only what is left to do when the last push has come, for which the
/// workers wait.
fn order(c: &mut Criterion) {
    for (len, workers) in [(MLP_LEN, 2), (MLP_LEN, 4), (MLP_LEN, 16), (LEN, 4)] {
        let mut group = c.benchmark_group(format!("order, {workers} pushes of {len}"));
        group.throughput(Throughput::Elements(len as u64));
        let pushes: Vec<Vec<f32>> = (0..workers).map(|slot| gradient(len, slot)).collect();
        // Every second one first: no two halves of a node are here before the second half comes.
        let arrival = || (0..workers).step_by(2).chain((1..workers).step_by(2)).rev();
        let come = |sum: &mut Option<Values>, push: Values| match sum {
            None => *sum = Some(push),
            Some(sum) => {
                let sum = Arc::make_mut(sum).iter_mut();
                sum.zip(push.iter()).for_each(|(sum, push)| *sum += push);
            }
        };
        let add = |tree: &mut Reduction, slot: u32, values: Values| {
            assert!(tree.insert(Span::one(Slot(slot)), Part { values, rows: 8 }).is_ok());
        };
        let values = |slot: u32| Arc::new(pushes[slot as usize].clone());
        for (name, early) in [("all", 0), ("last", workers as usize - 1)] {
            group.bench_function(format!("tree, {name}"), |b| {
                let setup = || {
                    let mut tree = Reduction::new(workers);
                    arrival().take(early).for_each(|slot| add(&mut tree, slot, values(slot)));
                    (tree, arrival().skip(early).map(|slot| (slot, values(slot))).collect())
                };
                let sum = |(mut tree, left): (Reduction, Vec<Push>)| {
                    left.into_iter().for_each(|(slot, values)| add(&mut tree, slot, values));
                    assert!(tree.is_complete());
                    tree.take_parts()
                };
                b.iter_batched(setup, |input| black_box(sum(input)), BatchSize::SmallInput);
            });
            group.bench_function(format!("as they come, {name}"), |b| {
                let setup = || {
                    let mut sum = None;
                    arrival().take(early).for_each(|slot| come(&mut sum, values(slot)));
                    (sum, arrival().skip(early).map(values).collect())
                };
                let sum = |(mut sum, left): (Option<Values>, Vec<Values>)| {
                    left.into_iter().for_each(|push| come(&mut sum, push));
                    sum
                };
                b.iter_batched(setup, |input| black_box(sum(input)), BatchSize::SmallInput);
            });
        }
        group.finish();
    }
}

fn optimizers(c: &mut Criterion) {
    let mut group = c.benchmark_group("optimizer");
    group.throughput(Throughput::Bytes((LEN * 4) as u64));
    let kinds = [
        ("sgd", OptimizerKind::Sgd),
        ("momentum", OptimizerKind::Momentum),
        ("adam", OptimizerKind::Adam),
    ];
    for (name, kind) in kinds {
        let schedule = ScheduleSpec {
            kind: ScheduleKind::Constant,
            warmup_steps: 0,
            every_steps: 1,
            factor: 1.0,
            floor: 0.0,
        };
        let spec = OptimizerSpec {
            kind,
            learning_rate: 0.1,
            momentum: 0.9,
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            weight_decay: 0.0,
            schedule,
        };
        let optimizer = Optimizer::new(&spec, 1000);
        let (gradient, old) = (gradient(LEN, 0), gradient(LEN, 1));
        let (mut new, mut state) = (vec![0.0; LEN], optimizer.new_state(LEN).unwrap());
        group.bench_function(name, |b| {
            b.iter(|| {
                optimizer.apply(Version(3), black_box(&gradient), &old, &mut new, &mut state)
            });
        });
    }
    group.finish();
}

fn codecs(c: &mut Criterion) {
    let layout = Layout::new(vec![TensorSpec::new("w", vec![LEN], Init::Zeros)]);
    let Some(shards) = layout.ok().and_then(|layout| ShardMap::new(&layout, 1).ok()) else {
        return;
    };
    let mut group = c.benchmark_group("codec");
    group.throughput(Throughput::Bytes((LEN * 4) as u64));
    for kind in [CodecKind::Fp16, CodecKind::Bf16, CodecKind::Int8, CodecKind::TopK] {
        let spec = GradientSpec { clip_value: 0.0, clip_norm: 0.0, codec: kind, top_k: 0.01 };
        let Some(codec) = codec(&spec) else { continue };
        let gradient = gradient(LEN, 0);
        let mut residual = vec![0.0; if codec.keeps_residual() { LEN } else { 0 }];
        group.bench_function(format!("{kind:?} encode"), |b| {
            b.iter(|| black_box(codec.encode(&gradient, &mut residual, &shards)));
        });
        let pieces = codec.encode(&gradient, &mut residual, &shards);
        let mut decoded = vec![0.0; LEN];
        group.bench_function(format!("{kind:?} decode"), |b| {
            b.iter(|| black_box(codec.decode(&pieces[0], &mut decoded)).is_ok());
        });
    }
    group.finish();
}

criterion_group!(inner_loops, reduction, order, optimizers, codecs);
criterion_main!(inner_loops);
