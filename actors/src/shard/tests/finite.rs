//! Gradients that are no numbers any more.

use super::*;

/// Workers look before they push; a shard looks at what comes of it.
#[test]
fn a_part_that_is_not_finite_ends_the_step_wherever_it_lies_in_the_tree_and_the_version_stays() {
    for (slot, clip_norm) in (0..4).flat_map(|slot| [(slot, 0.0), (slot, 1.0)]) {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut job = job();
            job.gradient.clip_norm = clip_norm;
            let mut shard = one(job);
            let plan = Arc::clone(&shard.plan);
            for worker in 0..4 {
                let mut push = push(&plan, 0, 0, worker..worker + 1);
                if worker == slot {
                    let Payload::Dense(values) = &mut push.payload[0] else { panic!("plain") };
                    Arc::make_mut(values)[599] = bad;
                }
                let accepted = shard.accept(&push).unwrap();
                assert_eq!(accepted == Accepted::Complete, worker == 3);
            }
            let ended = shard.aggregate().and_then(|_| shard.apply(Some(1.0), false).map(drop));
            let Err(PushError::Overflow { index: 599, .. }) = &ended else { panic!("{ended:?}") };
            assert_eq!(shard.version(), Version(0));
            let again = shard.accept(&push(&plan, 0, 0, 0..1));
            assert_eq!(again.map(drop), ended, "each further push hears it");
        }
    }
}

/// What two finite values add up to in a residual may not be; whoever reads the error must hear of
/// the learning rate, not of bytes.
#[test]
fn an_encoded_gradient_that_is_not_finite_is_refused() {
    for kind in [CodecKind::Fp16, CodecKind::Bf16, CodecKind::Int8, CodecKind::TopK] {
        let mut job = job();
        job.gradient.codec = kind;
        let mut shard = one(job);
        let plan = Arc::clone(&shard.plan);
        let codec = codec(&plan.offer.job.gradient).unwrap();
        let mut residual = vec![f32::MAX; if codec.keeps_residual() { 600 } else { 0 }];
        let value = if codec.keeps_residual() { f32::MAX } else { f32::INFINITY };
        let bytes = codec.encode(&[value; 600], &mut residual, &plan.shards).remove(0);
        let payload = vec![Payload::Encoded(bytes.into())];
        let refused = shard.accept(&PushGradient { payload, ..push(&plan, 0, 0, 0..1) });
        assert!(matches!(refused, Err(PushError::NotFinite { .. })), "{kind:?}: {refused:?}");
    }
}
