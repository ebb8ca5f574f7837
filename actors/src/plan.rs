//! What every node of a running job agrees on: the job, the shape of its data, its tensors.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::dataset::{DatasetShape, Scaling};
use crate::ids::{Slot, Version};
use crate::job::JobSpec;
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
    #[error("the data has no training rows; check job.data.train and job.data.test_fraction")]
    NoRows,
    #[error(
        "job.virtual_workers is {slots}, but there are only {rows} training rows; set it to at most {rows}"
    )]
    MoreSlotsThanRows { slots: u32, rows: usize },
}

impl JobPlan {
    /// # Errors
    /// No training rows, fewer than slots, or a layout that can't be cut into `shards`.
    pub fn new(offer: JobOffer, shards: u32) -> Result<Self, PlanError> {
        let layout = Layout::new(offer.tensors.clone())?;
        let shards = ShardMap::new(&layout, shards as usize)?;
        let rows = offer.data.train_rows;
        let slots = offer.job.virtual_workers;
        if rows == 0 {
            return Err(PlanError::NoRows);
        }
        if slots as usize > rows {
            return Err(PlanError::MoreSlotsThanRows { slots, rows });
        }
        let steps_per_epoch = rows.div_ceil(offer.job.batch_size) as u64;
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
        let rows = self.train_rows(slot).len() as u128;
        let steps = u128::from(self.steps_per_epoch);
        let step = u128::from(step.0 % self.steps_per_epoch);
        let border = |step: u128| (rows * step / steps) as usize;
        border(step)..border(step + 1)
    }
}

/// Part `slot` of `rows` rows cut into `slots` parts that differ by one row at most.
fn share(rows: usize, slot: Slot, slots: u32) -> Range<usize> {
    let border = |slot: u32| (rows as u128 * u128::from(slot) / u128::from(slots)) as usize;
    border(slot.0)..border(slot.0 + 1)
}

#[cfg(test)]
pub(crate) mod tests {
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
    fn epochs_end_where_the_last_step_has_been_applied() {
        let plan = plan(1);
        let ends: Vec<u64> = (0..=18).filter(|&v| plan.ends_epoch(Version(v))).collect();
        assert_eq!(ends, [6, 12, 18]);
        assert_eq!(plan.last_version(), Version(18));
    }
}
