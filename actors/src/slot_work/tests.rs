//! One step's gradients, however the slots are split over workers.

use ndarray::{Array2, ArrayView2};

use super::*;
use crate::dataset::{DatasetShape, RowTargets, Rows, Scaling};
use crate::job::{Activation, CodecKind, Loss};
use crate::layout::TensorSpec;
use crate::model::{Batch, MlpSettings, ModelDescription, ModelKinds};
use crate::plan::tests::{job, offer};

/// Values of a row are functions of its number; one row may hold a poison.
#[derive(Debug)]
struct Numbers {
    shape: DatasetShape,
    poison: Option<usize>,
}

impl Dataset for Numbers {
    fn shape(&self) -> &DatasetShape {
        &self.shape
    }

    fn scaling(&self) -> &Scaling {
        &Scaling::None
    }

    fn load(&self, _: Split, range: std::ops::Range<usize>) -> Result<Rows, DatasetError> {
        let first = range.start;
        let inputs = Array2::from_shape_fn((range.len(), 1), |(row, _)| {
            if self.poison == Some(first + row) { f32::NAN } else { (first + row) as f32 * 0.7 }
        });
        let targets = RowTargets::Values(Array2::zeros((range.len(), 1)));
        Ok(Rows { inputs, targets })
    }
}

/// 600 parameters; the gradient of a row is some function of its value and the parameter.
#[derive(Debug)]
struct Waves;

impl Model for Waves {
    fn tensors(&self) -> Vec<TensorSpec> {
        offer(job()).tensors
    }

    fn features(&self) -> usize {
        1
    }

    fn outputs(&self) -> usize {
        1
    }

    fn gradient(&self, parameters: &[f32], batch: Batch<'_>, gradient: &mut [f32]) -> f64 {
        gradient.fill(0.0);
        for &x in batch.inputs {
            for ((i, value), parameter) in (0u16..).zip(gradient.iter_mut()).zip(parameters) {
                *value += (x + f32::from(i)).sin() * 10f32.powi(i32::from(i % 7) - 3) + parameter;
            }
        }
        batch.inputs.iter().map(|x| f64::from(*x)).sum()
    }

    fn predict(&self, _: &[f32], inputs: ArrayView2<'_, f32>) -> Array2<f32> {
        inputs.to_owned()
    }

    fn evaluate(&self, _: &[f32], batch: Batch<'_>) -> Score {
        Score { rows: batch.inputs.nrows() as u64, loss: 1.0, correct: None }
    }

    fn describe(&self) -> ModelDescription {
        offer(job()).architecture
    }
}

fn plan(codec: CodecKind) -> Arc<JobPlan> {
    let mut job = job();
    job.gradient.codec = codec;
    Arc::new(JobPlan::new(offer(job), 2).unwrap())
}

fn data(poison: Option<usize>) -> Numbers {
    Numbers { shape: offer(job()).data, poison }
}

fn worker(plan: &Arc<JobPlan>, first: u32, end: u32) -> SlotWork {
    let mut work = SlotWork::new(Arc::clone(plan), Arc::new(Waves));
    work.hold(Span { first, end }, &data(None)).unwrap();
    work
}

fn parameters() -> Vec<f32> {
    vec![0.125; 600]
}

/// The bits of the whole sum for the second shard, from workers that hold these spans.
fn total(plan: &Arc<JobPlan>, spans: &[(u32, u32)]) -> (Vec<u32>, u64) {
    let mut sum = Reduction::new(4);
    for &(first, end) in spans {
        let step = worker(plan, first, end).compute(Version(2), &parameters()).unwrap();
        for (part, payload) in step.parts.iter().zip(&step.payloads[1]) {
            let Payload::Dense(values) = payload else { panic!("codec none sends sums") };
            let part_sum = Part { values: Arc::clone(values), rows: part.rows };
            sum.insert(part.span, part_sum).unwrap();
        }
    }
    let total = sum.take_parts().remove(0).1;
    (total.values.iter().map(|value| value.to_bits()).collect(), total.rows)
}

#[test]
fn any_split_of_the_slots_gives_the_same_sum() {
    let plan = plan(CodecKind::None);
    let whole = total(&plan, &[(0, 4)]);
    assert!(whole.1 > 0);
    for split in [
        &[(0, 1), (1, 2), (2, 3), (3, 4)][..],
        &[(1, 4), (0, 1)],
        &[(0, 3), (3, 4)],
        &[(2, 4), (0, 2)],
    ] {
        assert_eq!(total(&plan, split), whole, "{split:?}");
    }
}

/// A model that takes all rows of a worker at once; 9 features, 25 slots of up to 120 rows, so that
/// a worker of all takes them in several groups.
fn perceptron() -> (Arc<JobPlan>, Arc<dyn Model>, Wide) {
    let (hidden, activation, loss) = (vec![17], Activation::Tanh, Loss::Squared);
    let settings = MlpSettings { features: 9, outputs: 2, hidden, activation, loss };
    let settings = serde_json::to_value(settings).unwrap();
    let kinds = ModelKinds::builtin();
    let model = kinds.build(&ModelDescription { kind: "mlp".into(), settings }).unwrap();
    let mut offer = offer(job());
    offer.tensors = model.tensors();
    offer.outputs = 2;
    (offer.data.features, offer.data.target_width, offer.data.train_rows) = (9, 2, 6000);
    (offer.job.virtual_workers, offer.job.batch_size) = (25, 2900);
    let data = Wide(offer.data.clone());
    (Arc::new(JobPlan::new(offer, 1).unwrap()), model, data)
}

/// Nine features, two values.
#[derive(Debug)]
struct Wide(DatasetShape);

impl Dataset for Wide {
    fn shape(&self) -> &DatasetShape {
        &self.0
    }

    fn scaling(&self) -> &Scaling {
        &Scaling::None
    }

    fn load(&self, _: Split, range: std::ops::Range<usize>) -> Result<Rows, DatasetError> {
        let of = |width: usize, shift: f32| {
            Array2::from_shape_fn((range.len(), width), |(row, column)| {
                ((range.start + row) as f32 * 0.7 + column as f32 + shift).sin()
            })
        };
        Ok(Rows { inputs: of(9, 0.0), targets: RowTargets::Values(of(2, 0.5)) })
    }
}

#[test]
fn slots_that_are_computed_together_have_the_bits_that_each_has_alone() {
    let (plan, model, data) = perceptron();
    let parameters: Vec<f32> = (0..plan.layout.len()).map(|i| (i as f32).sin()).collect();
    let of = |span: Span, prepared: bool| {
        let mut work = SlotWork::new(Arc::clone(&plan), Arc::clone(&model));
        work.hold(span, &data).unwrap();
        for step in 0..3 {
            if prepared {
                work.prepare(Version(step));
            }
            let _ = work.compute(Version(step), &parameters).unwrap();
        }
        work.compute(Version(3), &parameters).unwrap()
    };
    let all = Span { first: 0, end: 25 };
    let whole = of(all, false);
    assert_eq!(whole, of(all, true));
    assert!(whole.reports.iter().all(|report| report.rows >= 60));
    let mut sum = Reduction::new(25);
    for (slot, report) in (0..25).zip(&whole.reports) {
        let alone = of(Span::one(Slot(slot)), false);
        assert_eq!(alone.reports, [*report]);
        let Payload::Dense(values) = &alone.payloads[0][0] else { panic!("codec none") };
        let part = Part { values: Arc::clone(values), rows: report.rows };
        sum.insert(Span::one(Slot(slot)), part).unwrap();
    }
    let Payload::Dense(values) = &whole.payloads[0][0] else { panic!("codec none") };
    assert_eq!(sum.take_parts().remove(0).1.values, *values);
}

#[test]
fn rows_that_were_prepared_are_still_there_when_the_same_slots_are_held_on() {
    let plan = plan(CodecKind::None);
    let mut work = worker(&plan, 1, 3);
    work.prepare(Version(2));
    work.hold(Span { first: 1, end: 3 }, &data(None)).unwrap();
    let group = work.groups(Version(2)).remove(0);
    assert!(work.batch.is_of(Version(2), &group));
}

#[test]
fn rows_that_were_prepared_for_other_slots_are_not_taken() {
    let (plan, model, data) = perceptron();
    let parameters: Vec<f32> = (0..plan.layout.len()).map(|i| (i as f32).sin()).collect();
    let mut moved = SlotWork::new(Arc::clone(&plan), Arc::clone(&model));
    moved.hold(Span { first: 0, end: 2 }, &data).unwrap();
    moved.prepare(Version(0));
    moved.hold(Span { first: 2, end: 4 }, &data).unwrap();
    let mut fresh = SlotWork::new(plan, model);
    fresh.hold(Span { first: 2, end: 4 }, &data).unwrap();
    assert_eq!(moved.compute(Version(0), &parameters), fresh.compute(Version(0), &parameters));
}

/// Without a codec only the sums are looked at, which must not hide whose it was.
#[test]
fn a_sum_that_is_not_finite_is_traced_to_its_slot() {
    let plan = plan(CodecKind::None);
    let poison = plan.train_rows(Slot(2)).start;
    #[derive(Debug)]
    struct Silent;
    impl Model for Silent {
        fn tensors(&self) -> Vec<TensorSpec> {
            Waves.tensors()
        }
        fn features(&self) -> usize {
            1
        }
        fn outputs(&self) -> usize {
            1
        }
        fn gradient(&self, parameters: &[f32], batch: Batch<'_>, gradient: &mut [f32]) -> f64 {
            let loss = Waves.gradient(parameters, batch, gradient);
            if loss.is_nan() { 1.0 } else { loss }
        }
        fn predict(&self, parameters: &[f32], inputs: ArrayView2<'_, f32>) -> Array2<f32> {
            Waves.predict(parameters, inputs)
        }
        fn evaluate(&self, parameters: &[f32], batch: Batch<'_>) -> Score {
            Waves.evaluate(parameters, batch)
        }
        fn describe(&self) -> ModelDescription {
            Waves.describe()
        }
    }
    let mut work = SlotWork::new(Arc::clone(&plan), Arc::new(Silent));
    work.hold(Span { first: 0, end: 4 }, &data(Some(poison))).unwrap();
    let failed = (0..6).find_map(|step| work.compute(Version(step), &parameters()).err());
    assert!(
        matches!(failed, Some(WorkError::NotFinite { slot: Slot(2), loss: 1.0, .. })),
        "{failed:?}"
    );

    let mut work = SlotWork::new(plan, Arc::new(Waves));
    work.hold(Span { first: 0, end: 4 }, &data(None)).unwrap();
    let huge = vec![1e38; 600];
    let failed = work.compute(Version(0), &huge).unwrap_err();
    assert!(matches!(failed, WorkError::Overflow { span: Span { first: 0, end: 4 }, .. }));
}

#[test]
fn a_worker_with_all_slots_sends_one_part_a_shard() {
    let step = worker(&plan(CodecKind::None), 0, 4).compute(Version(0), &parameters()).unwrap();
    assert_eq!(step.parts.len(), 1);
    assert_eq!(step.payloads.iter().map(Vec::len).collect::<Vec<_>>(), [1, 1]);
    assert_eq!(step.reports.len(), 4);
}

#[test]
fn a_residual_is_the_slots_and_moves_once_a_step() {
    let plan = plan(CodecKind::TopK);
    let (mut all, mut one) = (worker(&plan, 0, 4), worker(&plan, 2, 3));
    assert!(all.residuals()[2].1.iter().all(|value| *value == 0.0));
    let mut earlier = all.residuals()[2].1.clone();
    for step in 0..3 {
        let together = all.compute(Version(step), &parameters()).unwrap();
        let alone = one.compute(Version(step), &parameters()).unwrap();
        assert_eq!(together.payloads[0][2], alone.payloads[0][0]);
        let (slot, residual) = one.residuals().remove(0);
        assert_eq!(all.residuals()[2], (slot, Arc::clone(&residual)));
        assert_ne!(residual, earlier);
        earlier = residual;
    }
}

#[test]
fn restored_residuals_go_on_where_they_were_saved() {
    let plan = plan(CodecKind::TopK);
    let mut calm = worker(&plan, 0, 2);
    calm.compute(Version(0), &parameters()).unwrap();
    let saved: Vec<(Slot, Vec<f32>)> =
        calm.residuals().into_iter().map(|(slot, values)| (slot, values.to_vec())).collect();
    let mut restored = worker(&plan, 0, 2);
    restored.restore_residuals(saved).unwrap();
    let (calm, restored) =
        (calm.compute(Version(1), &parameters()), restored.compute(Version(1), &parameters()));
    assert_eq!(calm.unwrap(), restored.unwrap());
}

/// Slots are computed in order: those before the failing one have moved, but the run fails, and
/// one that is started again takes all residuals from the checkpoint.
#[test]
fn a_gradient_that_is_not_finite_never_reaches_its_residual() {
    let plan = plan(CodecKind::TopK);
    let poison = plan.train_rows(Slot(2)).start;
    let mut work = SlotWork::new(Arc::clone(&plan), Arc::new(Waves));
    work.hold(Span { first: 1, end: 4 }, &data(Some(poison))).unwrap();
    let failed = (0..6).find_map(|step| work.compute(Version(step), &parameters()).err());
    let Some(WorkError::NotFinite { slot, .. }) = &failed else { panic!("{failed:?}") };
    assert_eq!(*slot, Slot(2));
    let text = failed.map(|error| error.to_string()).unwrap_or_default();
    assert!(text.contains("job.optimizer.learning_rate"), "{text}");
    for (slot, residual) in work.residuals() {
        assert!(residual.iter().all(|value| value.is_finite()), "{slot}");
    }
}

#[test]
fn the_last_version_is_evaluated_and_sends_no_gradient() {
    let plan = plan(CodecKind::None);
    let step = worker(&plan, 0, 4).compute(plan.last_version(), &parameters()).unwrap();
    assert!(step.parts.is_empty() && step.payloads.is_empty());
    let rows: u64 = step.reports.iter().filter_map(|report| report.score).map(|s| s.rows).sum();
    assert_eq!(rows, plan.offer.data.test_rows as u64);
}

#[test]
fn slots_that_stay_keep_their_residual_when_others_come_and_go() {
    let plan = plan(CodecKind::TopK);
    let mut work = worker(&plan, 0, 2);
    work.compute(Version(0), &parameters()).unwrap();
    let kept = work.residuals().remove(1);
    work.hold(Span { first: 1, end: 3 }, &data(None)).unwrap();
    let held = work.residuals();
    assert_eq!(held[0], kept);
    assert_eq!(held[1], (Slot(2), Arc::new(vec![0.0; 600])));
}

#[test]
fn a_data_set_that_gives_fewer_rows_than_it_said_is_an_error() {
    #[derive(Debug)]
    struct Short(Numbers);
    impl Dataset for Short {
        fn shape(&self) -> &DatasetShape {
            &self.0.shape
        }
        fn scaling(&self) -> &Scaling {
            &Scaling::None
        }
        fn load(&self, split: Split, range: std::ops::Range<usize>) -> Result<Rows, DatasetError> {
            self.0.load(split, range.start..range.end - 1)
        }
    }
    let mut work = SlotWork::new(plan(CodecKind::None), Arc::new(Waves));
    let short = work.hold(Span { first: 0, end: 1 }, &Short(data(None)));
    assert!(matches!(short, Err(WorkError::Rows { slot: Slot(0), .. })), "{short:?}");
}

/// A residual that is taken for zeros would change the bits of the model.
#[test]
fn residuals_that_are_missing_or_of_another_length_are_refused() {
    for residuals in [vec![], vec![(Slot(1), vec![0.0; 600])], vec![(Slot(0), vec![0.0; 599])]] {
        let mut work = SlotWork::new(plan(CodecKind::TopK), Arc::new(Waves));
        work.hold(Span::one(Slot(0)), &data(None)).unwrap();
        let got = if residuals.len() == 1 && residuals[0].0 == Slot(0) { 599 } else { 0 };
        let refused = work.restore_residuals(residuals);
        assert_eq!(refused, Err(WorkError::Residual { slot: Slot(0), expected: 600, got }));
    }
}
