//! Which of several equal receivers is asked next.
//!
//! They do the same over the same store, so any of them will do; what is asked must be safe to
//! repeat, since one that did not answer may have acted.

use std::time::Duration;

/// How long one that did not answer is asked only after the others. A killed process is back within
/// a second or so; asked sooner, it would cost each request its wait.
pub const SILENT_FOR: Duration = Duration::from_secs(1);

/// How often each is asked for one request: once more where all were silent, as when the only one
/// is restarted.
const ROUNDS: usize = 2;

/// The choice among receivers 0 to `count - 1`. Times count from any one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failover {
    /// The one on the asker's own node: asked first whenever it answers.
    home: Option<usize>,
    /// The one that answered last.
    favourite: usize,
    /// Until when each is asked after the others.
    silent_until: Vec<Duration>,
}

impl Failover {
    /// `first` is asked first where no receiver is at home: other askers may begin elsewhere.
    pub fn new(count: usize, home: Option<usize>, first: usize) -> Self {
        let home = home.filter(|home| *home < count);
        let favourite = home.unwrap_or(first % count.max(1));
        Self { home, favourite, silent_until: vec![Duration::ZERO; count] }
    }

    /// Whom to ask for one request, one after the other until somebody answers: the one at home,
    /// then the one that answered last, then those that follow it; those that were silent a moment
    /// ago after all others.
    pub fn order(&self, now: Duration) -> Vec<usize> {
        let count = self.silent_until.len();
        let others = (0..count).map(|step| (self.favourite + step) % count);
        let mut round: Vec<usize> = self.home.into_iter().collect();
        round.extend(others.filter(|other| Some(*other) != self.home));
        // Stable: the order stays within both halves.
        round.sort_by_key(|at| self.silent_until[*at] > now);
        round.repeat(ROUNDS)
    }

    /// Whether this one is another than the one that answered before.
    pub fn answered(&mut self, at: usize) -> bool {
        if let Some(until) = self.silent_until.get_mut(at) {
            *until = Duration::ZERO;
        }
        std::mem::replace(&mut self.favourite, at) != at
    }

    /// It did not answer a request that was given up `now`.
    pub fn silent(&mut self, at: usize, now: Duration) {
        if let Some(until) = self.silent_until.get_mut(at) {
            *until = now.saturating_add(SILENT_FOR);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(100);

    fn round(rule: &Failover, now: Duration) -> Vec<usize> {
        let order = rule.order(now);
        let (first, second) = order.split_at(order.len() / ROUNDS);
        assert_eq!(first, second, "each is asked as often as the others");
        first.to_vec()
    }

    #[test]
    fn the_one_that_answered_last_is_asked_first() {
        let mut rule = Failover::new(3, None, 4);
        assert_eq!(round(&rule, NOW), [1, 2, 0]);
        assert!(rule.answered(2));
        assert!(!rule.answered(2));
        assert_eq!(round(&rule, NOW), [2, 0, 1]);
    }

    #[test]
    fn the_one_at_home_is_asked_first_again_once_its_silence_is_some_time_ago() {
        let mut rule = Failover::new(3, Some(1), 0);
        assert_eq!(round(&rule, NOW), [1, 2, 0]);
        rule.silent(1, NOW);
        rule.answered(2);
        assert_eq!(round(&rule, NOW), [2, 0, 1]);
        assert_eq!(round(&rule, NOW + SILENT_FOR), [1, 2, 0]);
    }

    #[test]
    fn where_all_are_silent_each_is_asked_nevertheless() {
        let mut rule = Failover::new(2, None, 0);
        rule.silent(0, NOW);
        rule.silent(1, NOW);
        assert_eq!(rule.order(NOW), [0, 1, 0, 1]);
    }

    #[test]
    fn an_answer_ends_a_silence() {
        let mut rule = Failover::new(2, Some(0), 0);
        rule.silent(0, NOW);
        assert_eq!(round(&rule, NOW), [1, 0]);
        rule.answered(0);
        assert_eq!(round(&rule, NOW), [0, 1]);
    }

    #[test]
    fn nobody_is_asked_where_there_is_nobody() {
        assert_eq!(Failover::new(0, Some(0), 7).order(NOW), [0usize; 0]);
    }
}
