//! Requests that wait for one version of a model: who goes next, with whom, and who is too late.

use std::collections::BTreeMap;
use std::time::Duration;

/// Which of two waiting requests goes first. Requests of one priority go as they came.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    serde::Serialize,
    serde::Deserialize,
)]
pub enum Priority {
    First,
    #[default]
    Normal,
    /// What may wait for all others: it has an answer only while they leave room.
    Last,
}

/// How requests wait, and with whom they are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batching {
    /// Rows of one run of a model, ≥ 1; a request that has more goes alone.
    pub rows_max: usize,
    /// How long the first one waits for others. 0: only while the model is busy, which costs
    /// nobody any time.
    pub wait: Duration,
    /// Requests that wait for one version, ≥ 1.
    pub queue: usize,
}

impl Default for Batching {
    /// Products gain little beyond 256 rows; at 512 requests, those of a common model wait for some
    /// milliseconds.
    fn default() -> Self {
        Self { rows_max: 256, wait: Duration::ZERO, queue: 512 }
    }
}

/// Times are those since any moment that is the same for all calls.
#[derive(Debug)]
pub(crate) struct RequestQueue<T> {
    waiting: BTreeMap<(Priority, u64), Waiting<T>>,
    rows: usize,
    arrivals: u64,
}

#[derive(Debug)]
struct Waiting<T> {
    request: T,
    rows: usize,
    since: Duration,
    /// When its sender no longer waits.
    until: Duration,
}

/// Who has come up to a moment; later ones are not asked for what was looked up before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Arrivals(u64);

/// What goes at a time.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Taken<T> {
    /// To be answered together.
    pub(crate) batch: Vec<T>,
    /// Those whose senders no longer wait, and how long they did.
    pub(crate) late: Vec<(T, Duration)>,
}

impl<T> Default for RequestQueue<T> {
    fn default() -> Self {
        Self { waiting: BTreeMap::new(), rows: 0, arrivals: 0 }
    }
}

impl<T> RequestQueue<T> {
    /// `limit`: how long its sender waits from now.
    pub(crate) fn push(
        &mut self,
        now: Duration,
        request: T,
        rows: usize,
        priority: Priority,
        limit: Duration,
    ) {
        self.arrivals += 1;
        // Rows that no memory could hold are refused later, by whoever reads them.
        self.rows = self.rows.saturating_add(rows);
        let waiting = Waiting { request, rows, since: now, until: now.saturating_add(limit) };
        self.waiting.insert((priority, self.arrivals), waiting);
    }

    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// About the rows of the next batch: a request that has more than `rows_max` goes alone.
    pub(crate) fn next_rows(&self, rows_max: usize) -> usize {
        let first = self.waiting.values().next().map_or(0, |waiting| waiting.rows);
        self.rows.min(rows_max).max(first)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.waiting.values().map(|waiting| &waiting.request)
    }

    /// When a batch goes that is not full: nobody waits for others longer than `wait`, nor than half
    /// of its time.
    pub(crate) fn due(&self, wait: Duration) -> Option<Duration> {
        let due = |waiting: &Waiting<T>| {
            let limit = waiting.until.saturating_sub(waiting.since);
            waiting.since.saturating_add(wait.min(limit / 2))
        };
        self.waiting.values().map(due).min()
    }

    pub(crate) fn arrivals(&self) -> Arrivals {
        Arrivals(self.arrivals)
    }

    /// The next ones of those who came before `cut`: as many as have `rows_max` rows together, and
    /// one in any case.
    pub(crate) fn take(&mut self, now: Duration, cut: Arrivals, rows_max: usize) -> Taken<T> {
        let mut taken = Taken { batch: Vec::new(), late: Vec::new() };
        let mut rows = 0usize;
        let mut after = None;
        while let Some(&key) = self.next(after) {
            after = Some(key);
            if key.1 > cut.0 {
                continue;
            }
            let Some(waiting) = self.waiting.get(&key) else { break };
            let late = now >= waiting.until;
            if !late && !taken.batch.is_empty() && rows.saturating_add(waiting.rows) > rows_max {
                break;
            }
            let Some(waiting) = self.waiting.remove(&key) else { break };
            self.rows = self.rows.saturating_sub(waiting.rows);
            if late {
                taken.late.push((waiting.request, now.saturating_sub(waiting.since)));
            } else {
                rows = rows.saturating_add(waiting.rows);
                taken.batch.push(waiting.request);
            }
        }
        taken
    }

    fn next(&self, after: Option<(Priority, u64)>) -> Option<&(Priority, u64)> {
        use std::ops::Bound;
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.waiting.range((from, Bound::Unbounded)).next().map(|(key, _)| key)
    }

    /// Removes requests that nobody waits for any more.
    pub(crate) fn forget(&mut self, now: Duration, gone: impl Fn(&T) -> bool) {
        let rows = &mut self.rows;
        self.waiting.retain(|_, waiting| {
            let keep = now < waiting.until && !gone(&waiting.request);
            if !keep {
                *rows = rows.saturating_sub(waiting.rows);
            }
            keep
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn queue(requests: &[(&'static str, usize, Priority)]) -> RequestQueue<&'static str> {
        let mut queue = RequestQueue::default();
        for &(name, rows, priority) in requests {
            queue.push(at(0), name, rows, priority, LIMIT);
        }
        queue
    }

    fn batch(queue: &mut RequestQueue<&'static str>, rows_max: usize) -> Vec<&'static str> {
        queue.take(at(1), queue.arrivals(), rows_max).batch
    }

    #[test]
    fn requests_go_by_priority_and_then_as_they_came() {
        let all = [
            ("c", 1, Priority::Last),
            ("b", 1, Priority::Normal),
            ("a", 1, Priority::First),
            ("b2", 1, Priority::Normal),
        ];
        let mut queue = queue(&all);
        assert_eq!(batch(&mut queue, 3), ["a", "b", "b2"]);
        assert_eq!(batch(&mut queue, 3), ["c"]);
        assert!(queue.is_empty());
    }

    #[test]
    fn a_batch_has_no_more_rows_than_it_may_but_for_a_request_that_is_larger_alone() {
        let normal = Priority::Normal;
        let mut queue = queue(&[("a", 3, normal), ("b", 2, normal), ("c", 9, normal)]);
        assert_eq!((queue.rows(), queue.len()), (14, 3));
        assert_eq!((queue.next_rows(4), queue.next_rows(2)), (4, 3));
        assert_eq!(batch(&mut queue, 4), ["a"]);
        assert_eq!(batch(&mut queue, 4), ["b"]);
        assert_eq!(batch(&mut queue, 4), ["c"]);
        assert_eq!((queue.rows(), queue.len()), (0, 0));
        assert_eq!(batch(&mut queue, 4), Vec::<&str>::new());
    }

    #[test]
    fn whoever_comes_after_the_cut_is_left_for_the_next_batch() {
        let mut queue = queue(&[("a", 1, Priority::Last)]);
        let cut = queue.arrivals();
        queue.push(at(0), "b", 1, Priority::First, LIMIT);
        assert_eq!(queue.take(at(1), cut, 8).batch, ["a"]);
        assert_eq!(batch(&mut queue, 8), ["b"]);
    }

    #[test]
    fn requests_whose_senders_no_longer_wait_are_told_apart_and_take_no_room() {
        let mut queue = RequestQueue::default();
        queue.push(at(0), "late", 8, Priority::First, at(2));
        queue.push(at(1), "a", 4, Priority::Normal, at(2));
        queue.push(at(1), "b", 4, Priority::Normal, at(2));
        assert_eq!(queue.due(at(5)), Some(at(1)));
        assert_eq!(queue.due(at(0)), Some(at(0)));
        let taken = queue.take(at(2), queue.arrivals(), 8);
        assert_eq!(taken, Taken { batch: vec!["a", "b"], late: vec![("late", at(2))] });
    }

    #[test]
    fn what_is_forgotten_leaves_its_room() {
        let mut queue = RequestQueue::default();
        queue.push(at(0), "late", 1, Priority::Normal, at(1));
        queue.push(at(0), "gone", 2, Priority::Normal, at(9));
        queue.push(at(0), "here", 4, Priority::Normal, at(9));
        queue.forget(at(1), |request| *request == "gone");
        assert_eq!((queue.rows(), queue.len()), (4, 1));
    }
}
