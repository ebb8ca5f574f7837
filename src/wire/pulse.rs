//! Signs of life of a connection, and how silence is noticed.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use gradmesh_actors::clock;
use tokio::time::{Instant, sleep_until};

/// Of a limit, so many at which the thread is seen to be awake.
const LOOKS: u32 = 4;

/// When the other side last gave a sign of life. Clones share it.
///
/// A closed socket is no condition: a stopped process and a cut cable keep theirs open.
#[derive(Clone, Debug)]
pub struct Pulse(Rc<Cell<Instant>>);

impl Pulse {
    /// Starts now.
    #[must_use]
    pub fn new() -> Self {
        Self(Rc::new(Cell::new(clock::now())))
    }

    /// The newest sign of life.
    #[must_use]
    pub fn last(&self) -> Instant {
        self.0.get()
    }

    pub(super) fn beat(&self) {
        self.0.set(clock::now());
    }

    /// Ends when there was no sign of life for `limit`. Time in which this thread did something else
    /// doesn't count: it has heard nobody.
    pub async fn silent_for(&self, limit: Duration) {
        let mut since = self.0.get();
        loop {
            since = since.max(self.0.get());
            let due = since + limit;
            let looks = due.min(clock::now() + limit / LOOKS);
            sleep_until(looks).await;
            let now = clock::now();
            if now > looks + limit / LOOKS {
                since = now;
            } else if now >= due && self.0.get() + limit <= now {
                return;
            }
        }
    }
}

impl Default for Pulse {
    fn default() -> Self {
        Self::new()
    }
}
