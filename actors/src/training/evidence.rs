//! What is known of members beside their heartbeats.

use std::time::Duration;

use super::Training;
use super::phase::{Command, Phase};

impl Training {
    /// A call to this node's address was refused: nobody listens there.
    pub fn refused(&mut self, node: &str, now: Duration) -> Vec<Command> {
        self.members.refused(node);
        self.silence(now)
    }

    /// The first of this node's connections to the coordinator's stands, or the last one has ended.
    pub fn connected(&mut self, node: &str, connected: bool, now: Duration) -> Vec<Command> {
        self.members.connected(node, connected, now);
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

    /// Whether the run needs members, and none has been heard of for so long that another coordinator
    /// should try.
    pub fn is_deserted(&self, now: Duration) -> bool {
        let ends = matches!(
            self.phase,
            Phase::Confirming { .. } | Phase::Publishing | Phase::Done(_) | Phase::Failed { .. }
        );
        !ends && self.members.is_deserted(now)
    }

    /// The coordinator itself did not run for so long.
    pub fn stood_still(&mut self, pause: Duration, now: Duration) {
        self.members.stood_still(pause, now);
    }
}
