//! Signs of life of a connection, and how silence is noticed.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// When the other side last gave a sign of life. Clones share it.
///
/// A closed socket is no condition: a stopped process and a cut cable keep theirs open.
#[derive(Clone, Debug)]
pub struct Pulse(Rc<Cell<Instant>>);

impl Pulse {
    /// Starts now.
    #[must_use]
    pub fn new() -> Self {
        Self(Rc::new(Cell::new(Instant::now())))
    }

    /// The newest sign of life.
    #[must_use]
    pub fn last(&self) -> Instant {
        self.0.get()
    }

    pub(super) fn beat(&self) {
        self.0.set(Instant::now());
    }

    /// Ends when there was no sign of life for `limit`.
    pub async fn silent_for(&self, limit: Duration) {
        loop {
            let due = self.0.get() + limit;
            if Instant::now() >= due {
                return;
            }
            sleep_until(due).await;
        }
    }
}

impl Default for Pulse {
    fn default() -> Self {
        Self::new()
    }
}
