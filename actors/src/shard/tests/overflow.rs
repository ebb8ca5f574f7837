//! A step whose parts are finite and whose outcome is not.

use super::*;
use crate::job::OptimizerKind;

/// Pushes equal values for each slot and parameter until the sum is complete.
fn fill(shard: &mut Shard, step: u64, value: f32) {
    let push = push(&Arc::clone(&shard.plan), 0, step, 0..4);
    let payload = vec![Payload::Dense(Arc::new(vec![value; 600])); 4];
    assert_eq!(shard.accept(&PushGradient { payload, ..push }), Ok(Accepted::Complete));
}

/// The shard is where it was before the step, and refuses the step for good.
fn check_overflowed(shard: &mut Shard, before: &Parameters, overflow: &PushError, what: &str) {
    let text = overflow.to_string();
    assert!(text.contains(what) && text.contains("parameter 0 (tensor \"w\")"), "{text}");
    assert!(text.contains("shard-0 at version 17"), "{text}");
    assert!(text.ends_with("or set job.gradient.clip_norm"), "{text}");
    assert_eq!(newest(shard), *before);
    assert_eq!(shard.ledger().unwrap(), &Ledger::default());
    let again = push(&Arc::clone(&shard.plan), 0, 17, 0..4);
    assert_eq!(shard.accept(&again).as_ref(), Err(overflow));
}

/// The last step: no later one would notice.
#[test]
fn finite_parts_whose_sum_is_not_are_no_step() {
    for (clip_value, clip_norm) in [(0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0)] {
        let mut job = job();
        job.gradient.clip_value = clip_value;
        job.gradient.clip_norm = clip_norm;
        let mut shard = shards_at(&plan(job, 1), 17).remove(0);
        let before = newest(&mut shard);
        fill(&mut shard, 17, f32::MAX / 2.0);
        let overflow = match shard.aggregate() {
            Ok(_) => shard.finish(None).unwrap_err(),
            Err(overflow) => overflow,
        };
        check_overflowed(&mut shard, &before, &overflow, "sums of gradients");
    }
}

#[test]
fn an_update_whose_parameters_are_not_finite_is_no_step() {
    let mut job = job();
    job.optimizer.learning_rate = 1e30;
    let mut shard = shards_at(&plan(job, 1), 17).remove(0);
    let before = newest(&mut shard);
    fill(&mut shard, 17, 1e30);
    shard.aggregate().unwrap();
    let overflow = shard.finish(None).unwrap_err();
    check_overflowed(&mut shard, &before, &overflow, "new parameters");
}

/// Adam's variance is a square: it overflows where the parameters just stand still.
#[test]
fn an_update_whose_optimizer_state_is_not_finite_is_no_step() {
    let mut job = job();
    job.optimizer.kind = OptimizerKind::Adam;
    let mut shard = shards_at(&plan(job, 1), 17).remove(0);
    shard.state = vec![vec![0.0; 600]; 2];
    let before = newest(&mut shard);
    fill(&mut shard, 17, 1e30);
    shard.aggregate().unwrap();
    let overflow = shard.finish(None).unwrap_err();
    check_overflowed(&mut shard, &before, &overflow, "variance values of the optimizer");
}
