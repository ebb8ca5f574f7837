//! What is known of members beside their heartbeats.

use std::time::Duration;

use super::Training;
use super::phase::Command;

impl Training {
    /// A call to this node's address was refused: nobody listens there.
    pub fn refused(&mut self, node: &str, now: Duration) -> Vec<Command> {
        self.members.refused(node);
        self.silence(now)
    }

    /// Time has passed, perhaps less than a tick.
    pub fn silence(&mut self, now: Duration) -> Vec<Command> {
        let changes = self.members.expire(now);
        self.changed(&changes)
    }

    /// When the first member is lost, if none is heard of before: at any later time.
    pub fn next_loss(&self) -> Option<Duration> {
        self.members.next_loss()
    }

    /// The coordinator itself did not run for so long.
    pub fn stood_still(&mut self, pause: Duration, now: Duration) {
        self.members.stood_still(pause, now);
    }
}
