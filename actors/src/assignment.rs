//! Which worker computes which slots.

use std::collections::BTreeMap;

use crate::ids::WorkerId;
use crate::planted::{self, Bug};
use crate::reduction::Span;

/// Cuts slots `0..slots` into one contiguous span a worker, in worker order, as even as possible.
///
/// Contiguous, so that a worker holds whole subtrees of the sum and rows that lie side by side.
/// With more workers than slots some spans are empty: those workers stand by.
pub fn lease(slots: u32, workers: &[WorkerId]) -> BTreeMap<WorkerId, Span> {
    let count = workers.len() as u64;
    let border = |index: u64| (u64::from(slots) * index / count.max(1)) as u32;
    let end = |index: u64| match planted::is(Bug::LeaseTwice) {
        true => (u64::from(slots) * (index + 1)).div_ceil(count.max(1)) as u32,
        false => border(index + 1),
    };
    (0u64..)
        .zip(workers)
        .map(|(index, &worker)| (worker, Span { first: border(index), end: end(index) }))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_slot_has_one_worker_and_shares_differ_by_one_at_most() {
        for slots in [1, 2, 7, 8, 64] {
            for count in 1..12 {
                let workers: Vec<WorkerId> = (0..count).map(|i| WorkerId(3 * i)).collect();
                let spans: Vec<Span> = lease(slots, &workers).into_values().collect();
                assert_eq!(spans[0].first, 0);
                assert_eq!(spans.last().unwrap().end, slots);
                assert!(spans.windows(2).all(|pair| pair[0].end == pair[1].first));
                let sizes = || spans.iter().map(|span| span.end - span.first);
                assert!(sizes().max().unwrap() - sizes().min().unwrap() <= 1);
            }
        }
    }

    #[test]
    fn nobody_to_lease_to_gives_no_leases() {
        assert!(lease(8, &[]).is_empty());
    }
}
