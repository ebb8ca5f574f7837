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

fn gradient(slot: u32) -> Vec<f32> {
    (0..LEN).map(|i| ((i as f32) * 0.37 + slot as f32).sin() * 1e-3).collect()
}

fn reduction(c: &mut Criterion) {
    let mut group = c.benchmark_group("reduction");
    group.throughput(Throughput::Bytes((8 * LEN * 4) as u64));
    let parts: Vec<_> = (0..8).map(gradient).collect();
    group.bench_function("8 slots", |b| {
        let setup = || parts.iter().map(|p| Arc::new(p.clone())).collect::<Vec<_>>();
        let sum = |parts: Vec<Arc<Vec<f32>>>| {
            let mut tree = Reduction::new(8);
            for (slot, values) in (0u32..).zip(parts) {
                let inserted = tree.insert(Span::one(Slot(slot)), Part { values, rows: 8 });
                assert!(inserted.is_ok());
            }
            tree.take_total()
        };
        b.iter_batched(setup, |parts| black_box(sum(parts)), BatchSize::LargeInput);
    });
    group.finish();
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
        let (gradient, old) = (gradient(0), gradient(1));
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
        let gradient = gradient(0);
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

criterion_group!(inner_loops, reduction, optimizers, codecs);
criterion_main!(inner_loops);
