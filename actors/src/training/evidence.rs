//! What is known of members beside their heartbeats.

use std::time::Duration;

use super::Training;
use super::phase::{Command, Phase};

impl Training {
    /// A node whose word is believed lives.
    pub fn beat(&mut self, node: &str, now: Duration) {
        self.members.beat(node, now);
    }

    /// How often somebody was lost.
    pub fn losses(&self) -> u64 {
        self.members.losses()
    }

    /// So many calls in a row to this node's address were refused. Whether somebody may be lost sooner
    /// for that.
    pub fn called(&mut self, node: &str, refused: u64) -> bool {
        self.members.called(node, refused)
    }

    /// The first of this node's connections to the coordinator's stands, or the last one has ended.
    /// Whether somebody may be lost sooner for that.
    pub fn connected(&mut self, node: &str, connected: bool, now: Duration) -> bool {
        self.members.connected(node, connected, now)
    }

    /// Time has passed, perhaps less than a tick.
    pub fn silence(&mut self, now: Duration) -> Vec<Command> {
        let changes = self.members.expire(now);
        self.changed(&changes)
    }

    /// When the first of those is lost whose address refuses calls, if it is not heard of before: at any
    /// later time.
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
