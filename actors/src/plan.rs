//! What every node of a running job agrees on: the job, the shape of its data, its tensors.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::dataset::{DatasetShape, Scaling};
use crate::ids::{Slot, Version};
use crate::job::{JobSpec, MAX_VIRTUAL_WORKERS};
use crate::layout::{Layout, LayoutError, ShardMap, TensorSpec};
use crate::model::ModelDescription;

/// What a node that has the data and the model tells the coordinator about them.
///
/// Servers need neither: they are told the tensors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobOffer {
    pub job: JobSpec,
    pub data: DatasetShape,
    pub scaling: Scaling,
    pub architecture: ModelDescription,
    pub tensors: Vec<TensorSpec>,
    /// Outputs of a row.
    pub outputs: usize,
}

/// A job, ready to run: the offer, laid out and counted.
#[derive(Clone, Debug, PartialEq)]
pub struct JobPlan {
    pub offer: JobOffer,
    pub layout: Layout,
    pub shards: ShardMap,
    steps_per_epoch: u64,
}

/// The job can't run on this data or with this many shards.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    #[error(transparent)]
    Layout(#[from] LayoutError),
    #[error("{key} is 0; set it to 1 or more")]
    Zero { key: &'static str },
    #[error("job.virtual_workers is {slots}; set it to at most {MAX_VIRTUAL_WORKERS}")]
    TooManySlots { slots: u32 },
    #[error(
        "{rows} training rows in {slots} slots are more than {} rows a slot; raise job.virtual_workers",
        u32::MAX
    )]
    TooManyRows { rows: usize, slots: u32 },
    #[error(
        "{epochs} epochs of {steps} steps are more than can be counted; lower job.epochs or raise job.batch_size"
    )]
    TooManySteps { epochs: u64, steps: u64 },
    #[error("the data has no training rows; check job.data.train and job.data.test_fraction")]
    NoRows,
    #[error(
        "job.virtual_workers is {slots}, but there are only {rows} training rows; set it to at most {rows}"
    )]
    MoreSlotsThanRows { slots: u32, rows: usize },
}

impl JobPlan {
    /// An offer may come from a peer: after this, none of its numbers can divide by zero or leave
    /// its type.
    ///
    /// # Errors
    /// A count that is 0 or too large, fewer training rows than slots, or a layout that can't be
    /// cut into `shards`.
    pub fn new(offer: JobOffer, shards: u32) -> Result<Self, PlanError> {
        let layout = Layout::new(offer.tensors.clone())?;
        let shards = ShardMap::new(&layout, shards as usize)?;
        let rows = offer.data.train_rows;
        let JobSpec { virtual_workers: slots, batch_size, epochs, .. } = offer.job;
        if rows == 0 {
            return Err(PlanError::NoRows);
        }
        for (key, is_zero) in [
            ("job.virtual_workers", slots == 0),
            ("job.batch_size", batch_size == 0),
            ("job.epochs", epochs == 0),
        ] {
            if is_zero {
                return Err(PlanError::Zero { key });
            }
        }
        if slots > MAX_VIRTUAL_WORKERS {
            return Err(PlanError::TooManySlots { slots });
        }
        if slots as usize > rows {
            return Err(PlanError::MoreSlotsThanRows { slots, rows });
        }
        // A slot's order is kept in 32 bits a row.
        if u32::try_from(rows.div_ceil(slots as usize)).is_err() {
            return Err(PlanError::TooManyRows { rows, slots });
        }
        let steps_per_epoch = rows.div_ceil(batch_size) as u64;
        // The version after the last must be a number too.
        if steps_per_epoch.checked_mul(epochs).is_none_or(|last| last == u64::MAX) {
            return Err(PlanError::TooManySteps { epochs, steps: steps_per_epoch });
        }
        Ok(Self { offer, layout, shards, steps_per_epoch })
    }

    pub fn steps_per_epoch(&self) -> u64 {
        self.steps_per_epoch
    }

    /// The version at which the job is done.
    pub fn last_version(&self) -> Version {
        Version(self.steps_per_epoch * self.offer.job.epochs)
    }

    /// The epoch that step `step` belongs to, from 0.
    pub fn epoch_of(&self, step: Version) -> u64 {
        step.0 / self.steps_per_epoch
    }

    /// Whether `version` is what a whole number of epochs, at least one, has made: the moment to
    /// evaluate.
    pub fn ends_epoch(&self, version: Version) -> bool {
        version.0 > 0 && version.0.is_multiple_of(self.steps_per_epoch)
    }

    /// The training rows of a slot, by number in the split: the same in each epoch, so that a
    /// worker holds only these.
    pub fn train_rows(&self, slot: Slot) -> Range<usize> {
        share(self.offer.data.train_rows, slot, self.offer.job.virtual_workers)
    }

    /// The test rows that a slot evaluates.
    pub fn test_rows(&self, slot: Slot) -> Range<usize> {
        share(self.offer.data.test_rows, slot, self.offer.job.virtual_workers)
    }

    /// Which of a slot's rows step `step` takes, as positions in the slot's order of that epoch.
    ///
    /// Over an epoch the ranges follow one another and cover the slot's rows once.
    pub fn batch_rows(&self, slot: Slot, step: Version) -> Range<usize> {
        let (rows, steps) = (self.train_rows(slot).len(), self.steps_per_epoch);
        let step = step.0 % steps;
        border(rows, step, steps)..border(rows, step + 1, steps)
    }
}

/// Part `slot` of `rows` rows cut into `slots` parts that differ by one row at most.
fn share(rows: usize, slot: Slot, slots: u32) -> Range<usize> {
    let (slot, slots) = (u64::from(slot.0), u64::from(slots));
    border(rows, slot, slots)..border(rows, slot + 1, slots)
}

/// Where part `part` of `rows` rows begins, of `parts` parts.
fn border(rows: usize, part: u64, parts: u64) -> usize {
    match (rows as u64).checked_mul(part) {
        Some(product) => (product / parts) as usize,
        // Of wider numbers, which takes ten times as long.
        None => (rows as u128 * u128::from(part) / u128::from(parts)) as usize,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::job::{
        Activation, CodecKind, DataFormat, DataSpec, GradientSpec, Loss, ModelSpec, OptimizerKind,
        OptimizerSpec, ScaleSpec, ScheduleKind, ScheduleSpec,
    };
    use crate::layout::Init;

    pub(crate) fn job() -> JobSpec {
        JobSpec {
            seed: 1,
            epochs: 3,
            batch_size: 10,
            virtual_workers: 4,
            model: ModelSpec {
                name: "toy".into(),
                kind: "linear".into(),
                hidden: vec![],
                activation: Activation::Relu,
                loss: Loss::Squared,
                from: None,
                settings: Default::default(),
            },
            data: DataSpec {
                format: DataFormat::Csv,
                train: "toy.csv".into(),
                train_labels: None,
                test: None,
                test_labels: None,
                test_fraction: 0.2,
                target: "-1".into(),
                header: false,
                text: None,
                text_buckets: 2048,
                scale: ScaleSpec::None,
                divide_by: 255.0,
            },
            optimizer: OptimizerSpec {
                kind: OptimizerKind::Sgd,
                learning_rate: 0.5,
                momentum: 0.9,
                beta1: 0.9,
                beta2: 0.999,
                epsilon: 1e-8,
                weight_decay: 0.0,
                schedule: ScheduleSpec {
                    kind: ScheduleKind::Constant,
                    warmup_steps: 0,
                    every_steps: 1,
                    factor: 0.5,
                    floor: 0.0,
                },
            },
            gradient: GradientSpec {
                clip_value: 0.0,
                clip_norm: 0.0,
                codec: CodecKind::None,
                top_k: 0.01,
            },
        }
    }

    /// 57 training rows in steps of 10, 600 parameters.
    pub(crate) fn offer(job: JobSpec) -> JobOffer {
        JobOffer {
            job,
            data: DatasetShape {
                train_rows: 57,
                test_rows: 9,
                features: 599,
                classes: None,
                target_width: 1,
                digest: "d".into(),
            },
            scaling: Scaling::None,
            architecture: ModelDescription {
                kind: "linear".into(),
                settings: serde_json::Value::Null,
            },
            tensors: vec![TensorSpec::new("w", vec![600], Init::Zeros)],
            outputs: 1,
        }
    }

    pub(crate) fn plan(shards: u32) -> JobPlan {
        JobPlan::new(offer(job()), shards).unwrap()
    }

    #[test]
    fn every_row_is_taken_once_an_epoch() {
        let plan = plan(1);
        let mut taken = vec![0; plan.offer.data.train_rows];
        for step in 6..12 {
            for slot in (0..4).map(Slot) {
                let rows = plan.train_rows(slot);
                for row in plan.batch_rows(slot, Version(step)) {
                    taken[rows.start + row] += 1;
                }
            }
        }
        assert_eq!(plan.steps_per_epoch(), 6);
        assert!(taken.iter().all(|&times| times == 1), "{taken:?}");
    }

    #[test]
    fn more_slots_than_rows_are_refused() {
        let mut offer = offer(job());
        offer.data.train_rows = 3;
        let refused = JobPlan::new(offer, 1);
        assert_eq!(refused, Err(PlanError::MoreSlotsThanRows { slots: 4, rows: 3 }));
    }

    #[test]
    fn a_count_of_zero_is_refused_with_its_key() {
        let no_slots = JobSpec { virtual_workers: 0, ..job() };
        let no_batch = JobSpec { batch_size: 0, ..job() };
        let no_epochs = JobSpec { epochs: 0, ..job() };
        for (key, job) in [
            ("job.virtual_workers", no_slots),
            ("job.batch_size", no_batch),
            ("job.epochs", no_epochs),
        ] {
            assert_eq!(JobPlan::new(offer(job), 1), Err(PlanError::Zero { key }));
        }
    }

    #[test]
    fn counts_that_leave_their_type_are_refused() {
        let mut endless = offer(job());
        endless.job.epochs = u64::MAX;
        let refused = JobPlan::new(endless, 1);
        assert_eq!(refused, Err(PlanError::TooManySteps { epochs: u64::MAX, steps: 6 }));
        let mut wide = offer(job());
        (wide.data.train_rows, wide.job.virtual_workers) = (usize::MAX, 5000);
        assert_eq!(JobPlan::new(wide.clone(), 1), Err(PlanError::TooManySlots { slots: 5000 }));
        wide.job.virtual_workers = 4096;
        let refused = JobPlan::new(wide, 1);
        assert_eq!(refused, Err(PlanError::TooManyRows { rows: usize::MAX, slots: 4096 }));
    }

    /// Small numbers, the largest, and all in between: products of them leave every type.
    fn number() -> impl Strategy<Value = u64> {
        prop_oneof![6 => 0u64..9, 1 => Just(u64::MAX), 1 => Just(1 << 32), 1 => any::<u64>()]
    }

    proptest! {
        /// What is planned can be asked for everything, by any number that a peer may send.
        #[test]
        fn no_numbers_make_a_plan_panic(
            [rows, test_rows, batch, slots, epochs, shards, width, height, step] in
                [(); 9].map(|()| number()),
        ) {
            let mut offer = offer(job());
            (offer.data.train_rows, offer.data.test_rows) = (rows as usize, test_rows as usize);
            (offer.job.batch_size, offer.job.virtual_workers) = (batch as usize, slots as u32);
            offer.job.epochs = epochs;
            offer.tensors[0].shape = vec![width as usize, height as usize];
            // Enough shards to be too many, not so many that the list of them is what is tested.
            if let Ok(plan) = JobPlan::new(offer, (shards % 5000) as u32) {
                let slots = plan.offer.job.virtual_workers;
                for slot in [Slot(0), Slot(slots - 1)] {
                    prop_assert!(plan.train_rows(slot).end <= rows as usize);
                    prop_assert!(plan.test_rows(slot).end <= test_rows as usize);
                    let batch = plan.batch_rows(slot, Version(step));
                    prop_assert!(batch.end <= plan.train_rows(slot).len());
                }
                prop_assert!(plan.epoch_of(Version(step)) <= step);
                prop_assert!(plan.last_version().next() > plan.last_version());
            }
        }
    }

    #[test]
    fn epochs_end_where_the_last_step_has_been_applied() {
        let plan = plan(1);
        let ends: Vec<u64> = (0..=18).filter(|&v| plan.ends_epoch(Version(v))).collect();
        assert_eq!(ends, [6, 12, 18]);
        assert_eq!(plan.last_version(), Version(18));
    }
}
