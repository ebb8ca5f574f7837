//! Callers that are refused, for a log that a stranger can't fill.

use std::cell::Cell;
use std::time::Duration;

use tokio::time::Instant;

/// Between two lines: one tells whoever looks that somebody calls who shouldn't.
const LINE_EVERY: Duration = Duration::from_secs(1);

/// Refusals of one node since the last line about them.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    last_line: Cell<Option<Instant>>,
    untold: Cell<u64>,
}

impl Refusals {
    /// One more; if a line is due, how many others there were since the last line.
    pub(super) fn count(&self, now: Instant) -> Option<u64> {
        let due = self.last_line.get().is_none_or(|last| now.duration_since(last) >= LINE_EVERY);
        if due {
            self.last_line.set(Some(now));
            return Some(self.untold.take());
        }
        self.untold.set(self.untold.get() + 1);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_told_once_a_second_with_the_number_of_others() {
        let (refusals, start) = (Refusals::default(), Instant::now());
        let at = |ms| refusals.count(start + Duration::from_millis(ms));
        assert_eq!([0, 1, 999, 1000, 1001].map(at), [Some(0), None, None, Some(2), None]);
        assert_eq!(at(5000), Some(1));
    }
}
