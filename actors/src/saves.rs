//! Which checkpoints a writer of parts writes, and which of its parts it remembers.
//!
//! A checkpoint counts when every shard has written its part, and with residuals every worker. A writer whose
//! store is slower than the steps has to leave some out. So that all leave out the same ones, it takes every second
//! number, every fourth, every eighth, the further it falls behind: what a slow writer writes, a faster one
//! writes too.

use crate::ids::{Version, View};
use crate::messages::ReportPart;

/// Checkpoints on their way to the store, each a copy of the optimizer's state or of residuals.
const UNDER_WAY_MAX: usize = 2;
/// At least one of 64 checkpoints is tried: a full disk may have room again.
const THINNED_MAX: u32 = 6;
/// Parts that are remembered for the next coordinator: older ones are of checkpoints that no longer
/// matter, for a newer one is whole or nearly so.
const PARTS_KEPT: usize = 3;

/// The checkpoints of one writer.
#[derive(Clone, Debug, Default)]
pub struct Saves {
    under_way: usize,
    /// Every 2 to this power-th is written.
    thinned: u32,
    /// Newest parts that were written, and of which lineage; the newest last.
    parts: Vec<(View, ReportPart)>,
}

impl Saves {
    /// Whether this version is to be written, which is one that is saved every `every` steps, or the `last` one of
    /// the job: that one always is. Where it is, [`Saves::ended`] follows.
    pub fn begin(&mut self, version: Version, every: u64, last: Version) -> bool {
        let number = version.0 / every.max(1);
        let is_due = number.trailing_zeros() >= self.thinned;
        let begins = version == last || (is_due && self.under_way < UNDER_WAY_MAX);
        if is_due && !begins {
            self.thinned = (self.thinned + 1).min(THINNED_MAX);
        } else if is_due && self.under_way == 0 {
            self.thinned = self.thinned.saturating_sub(1);
        }
        self.under_way += usize::from(begins);
        begins
    }

    /// The store has taken it, or never will.
    pub fn ended(&mut self) {
        self.under_way = self.under_way.saturating_sub(1);
    }

    /// A part is in the store. Several are written at once, and end in any order.
    pub fn written(&mut self, lineage: View, report: ReportPart) {
        self.parts.push((lineage, report));
        self.parts.sort_by_key(|(lineage, report)| (*lineage, report.version));
        let older = self.parts.len().saturating_sub(PARTS_KEPT);
        self.parts.drain(..older);
    }

    /// Parts of a lineage; those of others are of no use any more.
    pub fn of(&mut self, lineage: View) -> impl Iterator<Item = ReportPart> + use<> {
        self.parts.retain(|(of, _)| *of == lineage);
        self.parts.clone().into_iter().map(|(_, report)| report)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::{PartContent, SavedPart};

    const LAST: Version = Version(1_000_000);

    fn report(version: u64) -> ReportPart {
        let content = PartContent::Parameters { start: 0, end: 1 };
        let (path, digest) = (String::new(), String::new());
        let part = SavedPart { content, path, bytes: 1, digest };
        ReportPart { view: View(1), version: Version(version), part, shard: None }
    }

    /// Numbers of the checkpoints that are written, each in `takes` checkpoints' time.
    fn written(takes: u64, numbers: u64) -> Vec<u64> {
        let (mut saves, mut ends, mut written) = (Saves::default(), Vec::new(), Vec::new());
        for number in 1..=numbers {
            ends.retain(|end| {
                let is_over = *end <= number;
                is_over.then(|| saves.ended());
                !is_over
            });
            if saves.begin(Version(number * 10), 10, LAST) {
                ends.push(number + takes);
                written.push(number);
            }
            assert!(ends.len() <= UNDER_WAY_MAX);
        }
        written
    }

    #[test]
    fn a_store_that_keeps_up_gets_every_checkpoint() {
        for takes in [0, 1, 2] {
            assert_eq!(written(takes, 100), (1..=100).collect::<Vec<_>>());
        }
    }

    #[test]
    fn writers_of_any_speed_meet_at_the_checkpoints_of_the_slowest() {
        for slow in 3..30u64 {
            let slowest = written(slow, 1000);
            let both = |fast: u64| {
                let other = written(fast, 1000);
                slowest.iter().filter(|number| other.contains(number)).count() as u64
            };
            let fewest = (1..=slow).map(both).min().unwrap();
            // Alone it could write two in the time of one.
            assert!(fewest * slow >= 400, "{fewest} of {} at {slow}", slowest.len());
        }
    }

    #[test]
    fn the_last_version_is_written_whatever_is_under_way() {
        let mut saves = Saves::default();
        assert!(saves.begin(Version(10), 10, Version(37)));
        assert!(saves.begin(Version(20), 10, Version(37)));
        assert!(!saves.begin(Version(30), 10, Version(37)));
        assert!(saves.begin(Version(37), 10, Version(37)));
    }

    #[test]
    fn a_full_disk_that_has_room_again_gets_one_of_the_next_64() {
        let mut saves = Saves::default();
        for number in 1..5000 {
            assert_eq!(saves.begin(Version(number), 1, LAST), number <= 2);
        }
        (0..2).for_each(|_| saves.ended());
        assert!((5000..5064).any(|number| saves.begin(Version(number), 1, LAST)));
    }

    #[test]
    fn the_newest_parts_are_remembered_in_whatever_order_they_were_written() {
        let mut saves = Saves::default();
        for version in [60, 50, 10, 20, 30] {
            saves.written(View(2), report(version));
        }
        saves.written(View(1), report(90));
        let versions: Vec<u64> = saves.of(View(2)).map(|report| report.version.0).collect();
        assert_eq!(versions, [30, 50, 60]);
        saves.written(View(3), report(40));
        assert_eq!(saves.of(View(3)).map(|report| report.version.0).collect::<Vec<_>>(), [40]);
        assert_eq!(saves.of(View(2)).count(), 0);
    }
}
