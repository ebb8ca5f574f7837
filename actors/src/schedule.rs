//! The learning rate's factor, by version.

use std::f64::consts::PI;

use crate::ids::Version;
use crate::job::{ScheduleKind, ScheduleSpec};

/// What η is multiplied by at each step: warm-up first, then the schedule.
///
/// Computed in `f64` from the version alone, so a shard that was promoted or restored needs no
/// state to go on with it.
#[derive(Clone, Debug)]
pub struct Schedule {
    spec: ScheduleSpec,
    total_steps: u64,
}

impl Schedule {
    /// `total_steps` is the number of steps of the job; `cosine` ends there.
    pub fn new(spec: &ScheduleSpec, total_steps: u64) -> Self {
        Self { spec: spec.clone(), total_steps }
    }

    /// The factor of the step on `version`, `0..=1` for a valid spec.
    ///
    /// - Warm-up of `w` steps: `(t + 1) / (w + 1)`, so that the step after it is the first at 1.
    /// - `step`: `factor^⌊t / every_steps⌋`, `t` counted from the end of the warm-up.
    /// - `cosine`: `floor + (1 - floor) · (1 + cos(π t / T)) / 2`, where `T` is what the warm-up
    ///   leaves of the job (Loshchilov and Hutter, 2017, without restarts); `floor` from `T` on.
    pub fn factor(&self, version: Version) -> f64 {
        let warmup = self.spec.warmup_steps;
        let Some(elapsed) = version.0.checked_sub(warmup) else {
            return (version.0 as f64 + 1.0) / (warmup as f64 + 1.0);
        };
        match self.spec.kind {
            ScheduleKind::Constant => 1.0,
            ScheduleKind::Step => {
                let drops = elapsed / self.spec.every_steps.max(1);
                f64::from(self.spec.factor).powf(drops as f64)
            }
            ScheduleKind::Cosine => {
                let floor = f64::from(self.spec.floor);
                // A warm-up that fills the job leaves no step for the cosine.
                let span = self.total_steps.saturating_sub(warmup).max(1);
                let progress = elapsed.min(span) as f64 / span as f64;
                floor + (1.0 - floor) * (1.0 + (PI * progress).cos()) / 2.0
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn factors(spec: ScheduleSpec, total: u64, versions: &[u64]) -> Vec<f64> {
        let schedule = Schedule::new(&spec, total);
        versions.iter().map(|&version| schedule.factor(Version(version))).collect()
    }

    fn spec(kind: ScheduleKind, warmup_steps: u64) -> ScheduleSpec {
        ScheduleSpec { kind, warmup_steps, every_steps: 10, factor: 0.5, floor: 0.25 }
    }

    #[test]
    fn constant_is_one_from_the_first_step() {
        assert_eq!(factors(spec(ScheduleKind::Constant, 0), 9, &[0, 8, 100]), [1.0; 3]);
    }

    #[test]
    fn warm_up_rises_in_even_steps_and_reaches_one_right_after_it() {
        let rise = factors(spec(ScheduleKind::Constant, 3), 9, &[0, 1, 2, 3]);
        assert_eq!(rise, [0.25, 0.5, 0.75, 1.0]);
    }

    #[test]
    fn step_counts_from_the_end_of_the_warm_up() {
        let drops = factors(spec(ScheduleKind::Step, 4), 99, &[4, 13, 14, 23, 24]);
        assert_eq!(drops, [1.0, 1.0, 0.5, 0.5, 0.25]);
    }

    #[test]
    fn cosine_goes_from_one_to_the_floor_over_what_the_warm_up_leaves_and_stays() {
        let curve = factors(spec(ScheduleKind::Cosine, 2), 12, &[2, 7, 12, 999]);
        assert_eq!(curve, [1.0, 0.625, 0.25, 0.25]);
    }

    #[test]
    fn a_warm_up_as_long_as_the_job_is_no_division_by_zero() {
        let edge = factors(spec(ScheduleKind::Cosine, u64::MAX), 5, &[0, 4, u64::MAX]);
        assert!(edge.iter().all(|factor| (0.0..=1.0).contains(factor)), "{edge:?}");
    }
}
