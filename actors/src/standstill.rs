//! Notices that a run takes no steps, although everybody whom it needs is there.

use std::time::Duration;

/// Less is nothing to speak of: rows that are loaded, a disk that is busy.
const LEAST: Duration = Duration::from_secs(30);
/// A step that takes so many times as long as the longest one before is not merely slow.
const TIMES: u32 = 10;

/// How long a run has stood still.
#[derive(Clone, Debug, Default)]
pub struct Standstill {
    progress: u64,
    /// When that was first seen; `None` where no step is expected.
    since: Option<Duration>,
    /// Between two steps so far, as often as they are reported.
    longest: Duration,
    /// For how long it had stood still when that was told last.
    told: Option<Duration>,
}

impl Standstill {
    /// For how long nothing has moved, where that is to be told: once, and whenever it has doubled.
    ///
    /// `progress`: a number that is another one after each step of any shard; `None` while no step is expected.
    /// `now`: the time since the coordinator began.
    pub fn look(&mut self, progress: Option<u64>, now: Duration) -> Option<Duration> {
        let Some(progress) = progress else {
            (self.since, self.told) = (None, None);
            return None;
        };
        let since = self.since.filter(|_| progress == self.progress);
        let Some(since) = since else {
            if let (Some(before), None) = (self.since, self.told) {
                self.longest = self.longest.max(now.saturating_sub(before));
            }
            (self.progress, self.since, self.told) = (progress, Some(now), None);
            return None;
        };
        let stood = now.saturating_sub(since);
        let due = match self.told {
            Some(told) => told.saturating_mul(2),
            None => LEAST.max(self.longest.saturating_mul(TIMES)),
        };
        (stood >= due).then(|| *self.told.insert(stood))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seconds at which it is told, where the run steps at `steps` and is looked at each second.
    fn told(steps: &[u64], until: u64) -> Vec<u64> {
        let mut standstill = Standstill::default();
        let told = (0..until).filter(|second| {
            let progress = steps.iter().filter(|step| *step <= second).count() as u64;
            standstill.look(Some(progress), Duration::from_secs(*second)).is_some()
        });
        told.collect()
    }

    #[test]
    fn a_run_that_stands_still_is_told_of_once_and_whenever_that_has_doubled() {
        assert_eq!(told(&[], 300), [30, 60, 120, 240]);
        assert_eq!(told(&[1, 2, 3], 100), [33, 63]);
        assert!(told(&[20, 45, 70, 95], 100).is_empty());
    }

    #[test]
    fn slow_steps_are_no_standstill() {
        let steps: Vec<u64> = (1..20).map(|step| step * 25).collect();
        assert!(told(&steps, 700).is_empty());
        assert_eq!(told(&steps, 800), [475 + 250]);
    }

    #[test]
    fn a_standstill_that_ended_is_no_measure_of_steps() {
        assert_eq!(told(&[1, 2, 100, 101], 140), [32, 62, 131]);
    }

    #[test]
    fn nothing_is_told_while_no_step_is_expected() {
        let mut standstill = Standstill::default();
        for second in 0..100 {
            let expected = (second % 25 > 0).then_some(7);
            assert_eq!(standstill.look(expected, Duration::from_secs(second)), None);
        }
    }
}
