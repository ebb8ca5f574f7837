//! The passes over a shard that is longer than one of them.

use super::*;
use crate::job::OptimizerKind;
use crate::layout::{Init, TensorSpec};

/// Neither a multiple of a pass nor of a block.
const LEN: usize = 3 * 1024 + 77;
const STEPS: u64 = 5;

fn long(kind: OptimizerKind, clip_value: f32) -> Shard {
    let mut job = job();
    job.optimizer.kind = kind;
    job.gradient.clip_value = clip_value;
    let mut offer = rows_of_three(offer(job));
    offer.tensors = vec![TensorSpec::new("w", vec![LEN], Init::Zeros)];
    let plan = Arc::new(JobPlan::new(offer, 1).unwrap());
    let mut shard = shards_at(&plan, 0).remove(0);
    shard.state = shard.optimizer.new_state(LEN).unwrap();
    shard
}

/// Of all slots.
fn sum(step: u64) -> Vec<f32> {
    (0..LEN).map(|i| ((i as f32 + step as f32) * 0.7).sin() * 10f32.powi(i as i32 % 5)).collect()
}

fn whole(shard: &Shard, step: u64) -> PushGradient {
    PushGradient {
        view: View(1),
        worker: WorkerId(0),
        shard: ShardId(0),
        step: Version(step),
        parts: vec![PartHeader { span: Span { first: 0, end: 4 }, rows: 4 * ROWS }],
        reports: (0..4).map(|slot| report(slot, step, &shard.plan)).collect(),
        payload: vec![Payload::Dense(Arc::new(sum(step)))],
    }
}

#[test]
fn a_step_in_passes_has_the_bits_of_one_over_whole_vectors() {
    let kinds =
        [OptimizerKind::Sgd, OptimizerKind::Momentum, OptimizerKind::Nesterov, OptimizerKind::Adam];
    for (kind, clip, followed) in kinds.into_iter().flat_map(|kind| {
        [(kind, 0.0, false), (kind, 0.0, true), (kind, 2.0, false), (kind, 2.0, true)]
    }) {
        let mut shard = long(kind, clip);
        let mut parameters: Vec<f32> = (*shard.current).clone();
        let mut state = shard.optimizer.new_state(LEN).unwrap();
        for step in 0..STEPS {
            let push = whole(&shard, step);
            let scale = 1.0 / push.parts[0].rows as f32;
            let mean = sum(step).into_iter().map(|value| value * scale);
            let mean: Vec<f32> =
                mean.map(|x| if clip > 0.0 { x.clamp(-clip, clip) } else { x }).collect();
            let old = parameters.clone();
            shard.optimizer.apply(Version(step), &mean, &old, &mut parameters, &mut state);

            assert_eq!(shard.accept(&push), Ok(Accepted::Complete));
            shard.aggregate().unwrap();
            let update = shard.apply(None, followed).unwrap();
            shard.commit();
            assert_eq!(*shard.current, parameters, "{kind:?} at {step}");
            assert_eq!(shard.state, state, "{kind:?} at {step}");
            assert_eq!(update.map(|update| update.gradient.to_vec()), followed.then_some(mean));
        }
    }
}

/// The memory of a version is used again only when nobody holds it.
#[test]
fn versions_that_are_held_elsewhere_never_change() {
    let mut shard = long(OptimizerKind::Sgd, 0.0);
    let mut seen: Vec<(Values, Vec<f32>)> = Vec::new();
    for step in 0..16 {
        let push = whole(&shard, step);
        shard.accept(&push).unwrap();
        shard.aggregate().unwrap();
        shard.finish(None).unwrap();
        // Some are held for long, as by a slow connection.
        if step % 3 == 0 {
            seen.push((Arc::clone(&shard.current), shard.current.to_vec()));
        }
        assert!(seen.iter().all(|(held, then)| **held == *then), "at {step}");
    }
}
