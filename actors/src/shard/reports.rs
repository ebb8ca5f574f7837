//! What was reported of the step in flight.

use crate::ids::Slot;
use crate::ledger::SlotReport;

/// The newest report of each slot, by its number: pushes come in any order, of up to thousands of slots.
#[derive(Debug, Default)]
pub(super) struct Reports {
    of_slots: Vec<Option<SlotReport>>,
    count: usize,
}

impl Reports {
    /// Of how many slots there is one.
    pub(super) fn len(&self) -> usize {
        self.count
    }

    pub(super) fn has(&self, slot: Slot) -> bool {
        self.of_slots.get(slot.0 as usize).is_some_and(Option::is_some)
    }

    /// Takes memory up to its slot, which must be one of the plan.
    pub(super) fn keep(&mut self, report: SlotReport) {
        let at = report.slot.0 as usize;
        if self.of_slots.len() <= at {
            self.of_slots.resize(at + 1, None);
        }
        let before = self.of_slots[at].replace(report);
        self.count += usize::from(before.is_none());
    }

    /// All, in the order of the slots; none are left.
    pub(super) fn take(&mut self) -> Vec<SlotReport> {
        let mut all = Vec::with_capacity(self.count);
        all.extend(self.of_slots.iter_mut().filter_map(Option::take));
        self.count = 0;
        all
    }

    pub(super) fn clear(&mut self) {
        if self.count > 0 {
            self.of_slots.fill(None);
            self.count = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(slot: u32, rows: u64) -> SlotReport {
        SlotReport { slot: Slot(slot), rows, loss: 0.5, score: None }
    }

    #[test]
    fn the_newest_of_each_slot_is_kept_and_all_come_in_the_order_of_the_slots() {
        let mut reports = Reports::default();
        for pass in 0..3 {
            for (slot, rows) in [(4, 1), (0, 2), (4, 3), (7, 4)] {
                reports.keep(report(slot, rows));
            }
            let has = (0..10).filter(|&slot| reports.has(Slot(slot))).collect::<Vec<_>>();
            assert_eq!((reports.len(), has), (3, vec![0, 4, 7]), "pass {pass}");
            match pass {
                0 => reports.clear(),
                _ => assert_eq!(reports.take(), [report(0, 2), report(4, 3), report(7, 4)]),
            }
            assert_eq!((reports.len(), reports.take()), (0, Vec::new()), "pass {pass}");
        }
    }
}
