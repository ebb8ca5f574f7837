//! When the coordinator looks who is silent.

use std::time::Duration;

use actix::{AsyncContext, Context, Handler};
use tracing::info;

use super::{Coordinator, TICK};
use crate::messages::{NodeConnected, NodeRefused};
use crate::training::Command;

/// A tick that comes later than this is the coordinator's own pause: its thread was held up, or its
/// process stopped. Above what a busy machine makes of [`TICK`] now and then.
const LATE: Duration = Duration::from_millis(200);
/// A deadline has passed a moment after it.
const MOMENT: Duration = Duration::from_millis(1);

impl Coordinator {
    /// Looks at all deadlines; heartbeats that came during a pause of its own still wait behind this.
    pub(super) fn tick(&mut self, ctx: &mut Context<Self>) {
        let now = self.now();
        let pause = now.saturating_sub(self.ticked + TICK);
        self.ticked = now;
        if !self.leads() {
            return;
        }
        if pause > LATE {
            info!(pause_ms = pause.as_millis() as u64, "held up, others are waited for as long");
            self.training.stood_still(pause, now);
        }
        let commands = self.training.tick(now);
        self.carry_out(commands, ctx);
        if self.own.rivals > 0 && self.training.is_deserted(now) {
            self.give_way(ctx);
        }
    }
}

impl Handler<NodeRefused> for Coordinator {
    type Result = ();

    fn handle(&mut self, NodeRefused { node }: NodeRefused, ctx: &mut Self::Context) {
        let now = self.now();
        if !self.leads() {
            // A coordinator stands by the name of its node.
            if self.leader.as_ref() == Some(&node) {
                self.candidacy.suspect(now);
            }
            return;
        }
        let commands = self.training.refused(&node, now);
        self.look_in_time(commands, now, ctx);
    }
}

impl Handler<NodeConnected> for Coordinator {
    type Result = ();

    fn handle(&mut self, message: NodeConnected, ctx: &mut Self::Context) {
        let NodeConnected { node, connected } = message;
        if !self.leads() {
            return;
        }
        let now = self.now();
        let commands = self.training.connected(&node, connected, now);
        if connected {
            self.carry_out(commands, ctx);
        } else {
            self.look_in_time(commands, now, ctx);
        }
    }
}

impl Coordinator {
    /// Looks again at the next deadline, not at the tick after it: each hint that somebody is gone asks for
    /// one look.
    fn look_in_time(&mut self, commands: Vec<Command>, now: Duration, ctx: &mut Context<Self>) {
        self.carry_out(commands, ctx);
        if let Some(due) = self.training.next_loss() {
            ctx.run_later(due.saturating_sub(now) + MOMENT, |coordinator, ctx| {
                if coordinator.leads() {
                    let commands = coordinator.training.silence(coordinator.now());
                    coordinator.carry_out(commands, ctx);
                }
            });
        }
    }
}
