//! Which gradient counts, told push by push; shards side by side where the norm joins them.

mod finite;
mod follow;
mod overflow;
mod passes;

use super::*;
use crate::codec::codec;
use crate::ids::{Slot, WorkerId};
use crate::job::{CodecKind, JobSpec};
use crate::ledger::SlotReport;
use crate::messages::NormPart;
use crate::messages::{PartHeader, Payload, PushGradient};
use crate::model::Score;
use crate::norm::NormRounds;
use crate::plan::JobOffer;
use crate::plan::tests::{job, offer};
use crate::reduction::Span;

impl Shard {
    /// Applies the step where nobody follows.
    fn finish(&mut self, sum: Option<f64>) -> Result<Option<Save>, PushError> {
        self.apply(sum, false)?;
        Ok(self.commit())
    }
}

/// Rows that each slot reports a step.
const ROWS: u64 = 3;

fn plan(job: JobSpec, shards: u32) -> Arc<JobPlan> {
    Arc::new(JobPlan::new(rows_of_three(offer(job)), shards).unwrap())
}

/// All shards of a plan, at `version`, in view 1; a checkpoint every 4 steps.
fn shards_at(plan: &Arc<JobPlan>, version: u64) -> Vec<Shard> {
    let shard = |(id, range): (ShardId, Range<usize>)| {
        let state = ShardState {
            version: Version(version),
            parameters: range.map(|i| i as f32 / 100.0).collect(),
            optimizer: Vec::new(),
            ledger: Ledger::default(),
        };
        Shard::new(id, Arc::clone(plan), 4, View(1), state)
    };
    plan.shards.iter().map(shard).collect()
}

/// Steps of 12 of 72 rows: [`ROWS`] a slot, and 6 steps an epoch. Two test rows a slot.
fn rows_of_three(mut offer: JobOffer) -> JobOffer {
    offer.data.train_rows = 72;
    offer.data.test_rows = 8;
    offer.job.batch_size = 12;
    offer
}

fn one(job: JobSpec) -> Shard {
    shards_at(&plan(job, 1), 0).remove(0)
}

/// Of one slot at one step, 600 values of very different sizes.
fn gradient(slot: u32, step: u64) -> Vec<f32> {
    let value = |i: u32| {
        let x = (f64::from(i * 31 + slot * 7919) + step as f64 * 0.37).sin();
        (x * 10f64.powi((i % 7) as i32 - 3)) as f32
    };
    (0..600).map(value).collect()
}

fn report(slot: u32, step: u64, plan: &JobPlan) -> SlotReport {
    let score =
        plan.ends_epoch(Version(step)).then_some(Score { rows: 2, loss: 1.0, correct: None });
    let rows = if Version(step) == plan.last_version() { 0 } else { ROWS };
    SlotReport { slot: Slot(slot), rows, loss: 0.5, score }
}

/// The plain push of slots `first..end` for one shard, each slot a part of its own.
fn push(plan: &JobPlan, shard: u32, step: u64, slots: Range<u32>) -> PushGradient {
    let range = plan.shards.range(ShardId(shard));
    let part = |slot| PartHeader { span: Span::one(Slot(slot)), rows: ROWS };
    let payload = |slot| Payload::Dense(Arc::new(gradient(slot, step)[range.clone()].to_vec()));
    let reports = slots.clone().filter(|_| shard == 0).map(|slot| report(slot, step, plan));
    PushGradient {
        view: View(1),
        worker: WorkerId(0),
        shard: ShardId(shard),
        step: Version(step),
        parts: slots.clone().map(part).collect(),
        reports: reports.collect(),
        payload: slots.map(payload).collect(),
    }
}

fn norm_rounds(plan: &JobPlan) -> NormRounds {
    NormRounds::new(plan.shards.blocks())
}

/// Runs a step to its end on all shards, the norm included.
fn run_step(shards: &mut [Shard], plan: &JobPlan, step: u64, rounds: &mut NormRounds) {
    for (id, shard) in (0u32..).zip(shards.iter_mut()) {
        shard.accept(&push(plan, id, step, 2..4)).unwrap();
        assert_eq!(shard.accept(&push(plan, id, step, 0..2)), Ok(Accepted::Complete));
    }
    let asked: Vec<Aggregated> =
        shards.iter_mut().map(|shard| shard.aggregate().unwrap()).collect();
    let mut sum = None;
    // The last shard first: who asks first must not matter.
    for (id, asked) in asked.iter().enumerate().rev() {
        if let Aggregated::NeedsNorm(sums) = asked {
            sum = rounds
                .add(Version(step), Version(step), ShardId(id as u32), NormPart::Sums(sums.clone()))
                .unwrap();
        }
    }
    shards.iter_mut().for_each(|shard| drop(shard.finish(sum).unwrap()));
}

fn newest(shard: &mut Shard) -> Parameters {
    shard.at_or_newest(shard.version())
}

/// The bits of all shards after some steps, one shard after another.
fn trained(job: JobSpec, count: u32, steps: u64) -> Vec<u32> {
    let plan = plan(job, count);
    let mut shards = shards_at(&plan, 0);
    let mut rounds = norm_rounds(&plan);
    (0..steps).for_each(|step| run_step(&mut shards, &plan, step, &mut rounds));
    shards.iter_mut().flat_map(|shard| newest(shard).values.to_vec()).map(f32::to_bits).collect()
}

/// The push is refused, and the step then ends as if it had never come.
fn check_refused(mut shard: Shard, refused: &PushGradient, matches: impl Fn(&PushError) -> bool) {
    let error = shard.accept(refused).expect_err("it should be refused");
    assert!(matches(&error), "{error:?}");
    let plan = Arc::clone(&shard.plan);
    let mut rounds = norm_rounds(&plan);
    run_step(std::slice::from_mut(&mut shard), &plan, 0, &mut rounds);
    let bits: Vec<u32> = newest(&mut shard).values.iter().map(|value| value.to_bits()).collect();
    assert_eq!(bits, trained(plan.offer.job.clone(), 1, 1));
    assert_eq!(shard.ledger.rows, 4 * ROWS);
}

#[test]
fn a_push_that_comes_twice_counts_once() {
    let mut shard = one(job());
    let plan = Arc::clone(&shard.plan);
    for _ in 0..3 {
        assert_eq!(shard.accept(&push(&plan, 0, 0, 0..2)), Ok(Accepted::Waiting));
    }
    assert_eq!(shard.accept(&push(&plan, 0, 0, 2..4)), Ok(Accepted::Complete));
    shard.aggregate().unwrap();
    shard.finish(None).unwrap();
    assert_eq!(shard.accept(&push(&plan, 0, 0, 2..4)), Ok(Accepted::Applied));
    assert_eq!(shard.version(), Version(1));
    let bits: Vec<u32> = newest(&mut shard).values.iter().map(|value| value.to_bits()).collect();
    assert_eq!(bits, trained(job(), 1, 1));
}

#[test]
fn a_push_that_comes_again_while_the_norm_is_awaited_changes_nothing() {
    let mut job = job();
    job.gradient.clip_norm = 1.0;
    let mut shard = one(job.clone());
    let plan = Arc::clone(&shard.plan);
    shard.accept(&push(&plan, 0, 0, 0..4)).unwrap();
    let Ok(Aggregated::NeedsNorm(sums)) = shard.aggregate() else { panic!("no norm wanted") };
    assert_eq!(shard.accept(&push(&plan, 0, 0, 0..4)), Ok(Accepted::Waiting));
    shard.finish(Some(sums.iter().sum())).unwrap();
    let bits: Vec<u32> = newest(&mut shard).values.iter().map(|value| value.to_bits()).collect();
    assert_eq!(bits, trained(job, 1, 1));
}

#[test]
fn rows_count_once_where_others_compute_the_same_slots_again() {
    let mut shard = one(job());
    let plan = Arc::clone(&shard.plan);
    shard.accept(&push(&plan, 0, 0, 0..3)).unwrap();
    shard.accept(&PushGradient { worker: WorkerId(1), ..push(&plan, 0, 0, 1..3) }).unwrap();
    shard.accept(&PushGradient { worker: WorkerId(2), ..push(&plan, 0, 0, 0..4) }).unwrap();
    shard.aggregate().unwrap();
    shard.finish(None).unwrap();
    assert_eq!(shard.ledger().unwrap().rows, 4 * ROWS);
    assert_eq!(shard.ledger().unwrap().loss, 2.0);
}

#[test]
fn a_push_for_another_shard_step_or_view_is_refused() {
    let good = |shard: &Shard| push(&shard.plan, 0, 0, 0..2);
    let shard = one(job());
    let wrong = PushGradient { shard: ShardId(1), ..good(&shard) };
    check_refused(shard, &wrong, |e| matches!(e, PushError::WrongShard { .. }));
    let shard = one(job());
    let ahead = PushGradient { step: Version(1), ..good(&shard) };
    check_refused(shard, &ahead, |e| matches!(e, PushError::OutOfWindow { .. }));
    let shard = one(job());
    let stale = PushGradient { view: View(0), ..good(&shard) };
    check_refused(shard, &stale, |e| matches!(e, PushError::StaleView { .. }));
    let shard = one(job());
    let ahead = PushGradient { view: View(2), ..good(&shard) };
    check_refused(shard, &ahead, |e| matches!(e, PushError::NotReady(_)));
}

#[test]
fn a_push_of_a_step_that_is_long_over_is_refused() {
    let plan = plan(job(), 1);
    let mut shard = shards_at(&plan, 5).remove(0);
    let refused = shard.accept(&push(&plan, 0, 3, 0..2));
    let (got, version) = (Version(3), Version(5));
    assert_eq!(refused, Err(PushError::OutOfWindow { got, version }));
}

#[test]
fn a_push_of_an_earlier_step_is_answered_while_its_version_is_kept() {
    let plan = plan(job(), 1);
    let mut shards = shards_at(&plan, 0);
    (0..5).for_each(|step| run_step(&mut shards, &plan, step, &mut norm_rounds(&plan)));
    let shard = &mut shards[0];
    let before = newest(shard);
    for step in [4, 3, 2] {
        let accepted = shard.accept(&push(&plan, 0, step, 0..2));
        assert_eq!(accepted, Ok(Accepted::Applied));
        let next = Version(step).next();
        assert_eq!(shard.at_or_newest(next).version, next);
    }
    let (got, version) = (Version(1), Version(5));
    let refused = shard.accept(&push(&plan, 0, 1, 0..2));
    assert_eq!(refused, Err(PushError::OutOfWindow { got, version }));
    assert_eq!(newest(shard), before);
}

/// Each of these has a good first part: it must not count either.
#[test]
fn a_push_with_one_bad_part_does_not_count_at_all() {
    let check = |spoil: &dyn Fn(&mut PushGradient), matches: &dyn Fn(&PushError) -> bool| {
        let shard = one(job());
        let mut bad = push(&shard.plan, 0, 0, 0..2);
        spoil(&mut bad);
        check_refused(shard, &bad, matches);
    };
    let dense = |values: Vec<f32>| Payload::Dense(Arc::new(values));
    check(&|p| p.payload[1] = dense(vec![0.0; 599]), &|e| {
        matches!(e, PushError::WrongLength { expected: 600, got: 599, .. })
    });
    check(&|p| p.payload[1] = Payload::Encoded(vec![0; 8].into()), &|e| {
        matches!(e, PushError::Codec { .. })
    });
    check(&|p| drop(p.payload.pop()), &|e| {
        matches!(e, PushError::WrongPayload { parts: 2, payloads: 1 })
    });
    check(&|p| p.reports.truncate(1), &|e| matches!(e, PushError::MissingReport));
    check(&|p| p.reports[1].slot = Slot(4), &|e| matches!(e, PushError::MissingReport));
    for (first, end) in [(1, 3), (2, 2), (3, 1), (0, u32::MAX), (4, 5)] {
        let spoil = |p: &mut PushGradient| {
            p.parts[1].span = Span { first, end };
            p.reports = (0..4).map(|slot| report(slot, 0, &plan(job(), 1))).collect();
        };
        check(&spoil, &|e| matches!(e, PushError::WrongSpan { .. } | PushError::MissingReport));
    }
}

#[test]
fn plain_and_damaged_payloads_are_refused_where_the_job_has_a_codec() {
    for kind in [CodecKind::Fp16, CodecKind::Bf16, CodecKind::Int8, CodecKind::TopK] {
        let mut job = job();
        job.gradient.codec = kind;
        let mut shard = one(job);
        let plan = Arc::clone(&shard.plan);
        let plain = push(&plan, 0, 0, 0..1);
        assert!(matches!(shard.accept(&plain), Err(PushError::Codec { .. })), "{kind:?}");
        for garbage in [vec![], vec![0xff; 7], vec![0xff; 5000]] {
            let encoded = vec![Payload::Encoded(garbage.into())];
            let damaged = PushGradient { payload: encoded, ..push(&plan, 0, 0, 0..1) };
            assert!(matches!(shard.accept(&damaged), Err(PushError::Codec { .. })), "{kind:?}");
        }
        assert!(shard.reports.len() == 0);
    }
}

#[test]
fn an_encoded_sum_of_two_slots_is_refused() {
    let mut job = job();
    job.gradient.codec = CodecKind::Fp16;
    let mut shard = one(job);
    let plan = Arc::clone(&shard.plan);
    let mut sum = push(&plan, 0, 0, 0..2);
    let span = Span { first: 0, end: 2 };
    sum.parts = vec![PartHeader { span, rows: 2 * ROWS }];
    sum.payload = vec![Payload::Encoded(vec![0; 1200].into())];
    assert_eq!(shard.accept(&sum), Err(PushError::WrongSpan { span }));
}

#[test]
fn parts_stay_when_the_view_rises_and_pushes_of_the_view_before_are_refused() {
    let mut shard = one(job());
    let plan = Arc::clone(&shard.plan);
    shard.accept(&push(&plan, 0, 0, 0..2)).unwrap();
    shard.lead(View(3), false);
    let late = shard.accept(&push(&plan, 0, 0, 2..4));
    assert_eq!(late, Err(PushError::StaleView { got: View(1), current: View(3) }));
    shard.lead(View(2), false);
    assert_eq!(shard.view(), View(3));
    let pushed = PushGradient { view: View(3), ..push(&plan, 0, 0, 2..4) };
    assert_eq!(shard.accept(&pushed), Ok(Accepted::Complete));
}

#[test]
fn the_newest_version_and_the_two_before_can_be_pulled() {
    let plan = plan(job(), 1);
    let mut shards = shards_at(&plan, 0);
    run_step(&mut shards, &plan, 0, &mut norm_rounds(&plan));
    let first = newest(&mut shards[0]);
    (1..4).for_each(|step| run_step(&mut shards, &plan, step, &mut norm_rounds(&plan)));
    let shard = &mut shards[0];
    let mut pull = |version: Option<u64>| {
        let version = version.map(Version);
        shard.pull(&PullParameters { view: View(1), shard: ShardId(0), version })
    };
    assert_eq!(pull(None).unwrap().version, Version(4));
    let [three, two] = [3, 2].map(|version| pull(Some(version)).unwrap());
    assert_eq!([three.version, two.version], [Version(3), Version(2)]);
    assert_ne!(three.values, two.values);
    assert_ne!(two.values, first.values);
    for gone in [1, 5] {
        let (wanted, version) = (Version(gone), Version(4));
        assert_eq!(pull(Some(gone)), Err(PullError::OutOfWindow { wanted, version }));
    }
}

#[test]
fn a_pull_for_another_shard_or_of_an_older_view_is_refused() {
    let mut shard = one(job());
    let pull = PullParameters { view: View(1), shard: ShardId(1), version: None };
    assert!(matches!(shard.pull(&pull), Err(PullError::WrongShard { .. })));
    let pull = PullParameters { view: View(0), shard: ShardId(0), version: None };
    assert!(matches!(shard.pull(&pull), Err(PullError::StaleView { .. })));
}

#[test]
fn the_last_version_is_closed_by_the_evaluation_of_every_slot() {
    let plan = plan(job(), 1);
    let mut shard = shards_at(&plan, 18).remove(0);
    let close = |slots: Range<u32>| PushGradient {
        parts: Vec::new(),
        payload: Vec::new(),
        ..push(&plan, 0, 18, slots)
    };
    let mut unscored = close(0..2);
    unscored.reports[1].score = None;
    assert_eq!(shard.accept(&unscored), Err(PushError::MissingReport));
    assert_eq!(shard.accept(&close(0..3)), Ok(Accepted::Waiting));
    assert_eq!(shard.accept(&close(1..3)), Ok(Accepted::Waiting));
    assert_eq!(shard.accept(&close(3..4)), Ok(Accepted::Complete));
    assert_eq!(shard.aggregate(), Ok(Aggregated::Ready));
    assert_eq!(shard.finish(None).unwrap().map(|save| save.version), Some(Version(18)));
    assert_eq!(shard.accept(&close(0..3)), Ok(Accepted::Applied));
    assert!(shard.ledger().unwrap().closed);
}

#[test]
fn an_epoch_that_ends_wants_the_evaluation_of_the_slots_in_the_push() {
    let plan = plan(job(), 1);
    let mut shard = shards_at(&plan, 6).remove(0);
    let mut unscored = push(&plan, 0, 6, 0..2);
    unscored.reports[0].score = None;
    assert_eq!(shard.accept(&unscored), Err(PushError::MissingReport));
    assert_eq!(shard.accept(&push(&plan, 0, 6, 0..2)), Ok(Accepted::Waiting));
}

#[test]
fn the_bits_do_not_depend_on_the_number_of_shards() {
    for clip_norm in [0.0, 5.0] {
        for clip_value in [0.0, 0.25] {
            let mut job = job();
            (job.gradient.clip_norm, job.gradient.clip_value) = (clip_norm, clip_value);
            let whole = trained(job.clone(), 1, 5);
            assert_eq!(trained(job.clone(), 2, 5), whole);
            assert_eq!(trained(job, 3, 5), whole);
        }
    }
}

#[test]
fn no_value_of_the_mean_gradient_passes_the_clip() {
    let mut clipped = job();
    clipped.gradient.clip_value = 0.25;
    clipped.optimizer.learning_rate = 1.0;
    let mut shard = one(clipped);
    let before = newest(&mut shard).values;
    let plan = Arc::clone(&shard.plan);
    let push = push(&plan, 0, 0, 0..4);
    let huge = Payload::Dense(Arc::new(vec![1e6; 600]));
    shard.accept(&PushGradient { payload: vec![huge; 4], ..push }).unwrap();
    shard.aggregate().unwrap();
    shard.finish(None).unwrap();
    let after = newest(&mut shard).values;
    assert!(before.iter().zip(after.iter()).all(|(old, new)| *new == old - 0.25));
}

#[test]
fn versions_at_the_interval_are_saved_with_their_range() {
    let plan = plan(job(), 2);
    let mut shards = shards_at(&plan, 3);
    for (id, shard) in (0u32..).zip(&mut shards) {
        shard.accept(&push(&plan, id, 3, 0..4)).unwrap();
        shard.aggregate().unwrap();
        let save = shard.finish(None).unwrap().unwrap();
        let Range { start, end } = plan.shards.range(ShardId(id));
        assert_eq!(save.content, PartContent::Parameters { start, end });
        assert_eq!(save.version, Version(4));
        assert_eq!(save.tensors[0], ("parameters".to_owned(), newest(shard).values));
    }
}

#[test]
fn rows_that_the_plan_does_not_have_are_refused_with_both_numbers() {
    let mut shard = one(job());
    let mut lying = push(&plan(job(), 1), 0, 0, 0..1);
    lying.parts[0].rows = u64::MAX;
    let text = shard.accept(&lying).unwrap_err().to_string();
    assert!(text.contains("18446744073709551615 rows, the job's plan 3"), "{text}");
}

/// Each number of a report that is not the plan's is refused, at a step, at an epoch's end, and
/// when the job closes.
#[test]
fn a_report_that_counts_what_the_plan_does_not_have_is_refused() {
    let score = |rows, correct| Some(Score { rows, loss: 1.0, correct });
    for step in [0, 6, 18] {
        let plan = plan(job(), 1);
        let good = report(1, step, &plan);
        let bad = [
            ("u64 training rows", SlotReport { rows: u64::MAX, ..good }),
            ("u64 test rows", SlotReport { score: score(u64::MAX, None), ..good }),
            ("3 right answers, the job's plan 2", SlotReport { score: score(2, Some(3)), ..good }),
        ];
        for (words, bad) in bad {
            let mut shard = shards_at(&plan, step).remove(0);
            let mut lying = push(&plan, 0, step, 0..2);
            lying.reports[1] = bad;
            let text = shard.accept(&lying).unwrap_err().to_string();
            assert!(text.contains(&words.replace("u64", "18446744073709551615")), "{text}");
            assert!(shard.reports.len() == 0);
        }
    }
}

#[test]
fn a_loss_that_would_spoil_the_ledger_is_refused() {
    for bad in [f64::NAN, f64::INFINITY, f64::MAX, f64::MIN] {
        let plan = plan(job(), 1);
        let mut shard = shards_at(&plan, 18).remove(0);
        let mut lying = push(&plan, 0, 18, 0..1);
        lying.reports[0].score = Some(Score { rows: 2, loss: bad, correct: None });
        assert!(matches!(shard.accept(&lying), Err(PushError::WrongLoss { .. })), "{bad}");
        let mut shard = one(job());
        let mut lying = push(&plan, 0, 0, 0..1);
        lying.reports[0].loss = bad;
        assert!(matches!(shard.accept(&lying), Err(PushError::WrongLoss { .. })), "{bad}");
    }
}

#[test]
fn parts_that_overlap_or_go_back_are_refused() {
    for slots in [[0, 0], [1, 0]] {
        let shard = one(job());
        let mut bad = push(&shard.plan, 0, 0, 0..2);
        bad.parts = slots.map(|slot| PartHeader { span: Span::one(Slot(slot)), rows: ROWS }).into();
        check_refused(shard, &bad, |e| matches!(e, PushError::WrongSpan { .. }));
    }
}

#[test]
fn the_largest_version_is_out_of_the_window() {
    let mut shard = one(job());
    let push = PushGradient { step: Version(u64::MAX), ..push(&plan(job(), 1), 0, 0, 0..2) };
    assert!(matches!(shard.accept(&push), Err(PushError::OutOfWindow { .. })));
    let version = Some(Version(u64::MAX));
    let pull = PullParameters { view: View(1), shard: ShardId(0), version };
    assert!(matches!(shard.pull(&pull), Err(PullError::OutOfWindow { .. })));
}
