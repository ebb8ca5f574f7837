//! When the coordinator looks who is silent.

use std::time::Duration;

use actix::{AsyncContext, Context, Handler};
use tokio::time::Instant;
use tracing::info;

use super::{Coordinator, TICK};
use crate::messages::{NodeCalled, NodeConnected};

/// A tick that comes later than this is the coordinator's own pause: its thread was held up, or its
/// process stopped. Above what a busy machine makes of [`TICK`] now and then.
const LATE: Duration = Duration::from_millis(200);
/// A deadline has passed a moment after it.
const MOMENT: Duration = Duration::from_millis(1);

impl Coordinator {
    /// Looks at all deadlines; heartbeats that came during a pause of its own still wait behind this.
    pub(super) fn tick(&mut self, ctx: &mut Context<Self>) {
        let now = self.now();
        self.notice_pause(now);
        self.ticked = now;
        if !self.leads() {
            return;
        }
        self.hear();
        let commands = self.training.tick(now);
        self.ask_after_losses();
        self.carry_out(commands, ctx);
        if self.own.rivals > 0 && self.training.is_deserted(now) {
            self.give_way(ctx);
        }
    }

    /// Takes the beats that have come since it looked last; before any news that they may be older than.
    fn hear(&mut self) {
        let Self { training, started, links, .. } = self;
        let heard =
            |node: &str, at: Instant| training.beat(node, at.saturating_duration_since(*started));
        links.presence.take(heard);
    }

    /// What is believed of others may have changed with a loss: of a member that two nodes say they have,
    /// for one.
    pub(super) fn ask_after_losses(&mut self) {
        let losses = self.training.losses();
        if std::mem::replace(&mut self.losses, losses) != losses {
            self.links.presence.forget_all();
        }
    }

    fn notice_pause(&mut self, now: Duration) {
        let pause = now.saturating_sub(self.ticked + TICK);
        if pause > LATE && self.leads() {
            info!(pause_ms = pause.as_millis() as u64, "held up, others are waited for as long");
            self.training.stood_still(pause, now);
            self.ticked = now;
        }
    }

    /// Looks who is lost now, and again at the next deadline of somebody whose address refuses calls, not
    /// at the tick after it.
    fn look_for_losses(&mut self, ctx: &mut Context<Self>) {
        let now = self.now();
        self.notice_pause(now);
        self.hear();
        let commands = self.training.silence(now);
        self.ask_after_losses();
        self.carry_out(commands, ctx);
        let Some(due) = self.training.next_loss().map(|due| due + MOMENT) else { return };
        // One look is enough: it asks for the next one.
        if self.next_look.is_some_and(|look| (now..=due).contains(&look)) {
            return;
        }
        self.next_look = Some(due);
        ctx.run_later(due.saturating_sub(now), |coordinator, ctx| {
            coordinator.next_look = None;
            if coordinator.leads() {
                coordinator.look_for_losses(ctx);
            }
        });
    }
}

impl Handler<NodeCalled> for Coordinator {
    type Result = ();

    fn handle(&mut self, NodeCalled { node, refused }: NodeCalled, ctx: &mut Self::Context) {
        if self.leads() {
            self.hear();
            if self.training.called(&node, refused) {
                self.look_for_losses(ctx);
            }
        } else if refused > 0 && self.leader.as_ref() == Some(&node) {
            // A coordinator stands by the name of its node.
            self.candidacy.suspect(self.now());
        }
    }
}

impl Handler<NodeConnected> for Coordinator {
    type Result = ();

    fn handle(&mut self, message: NodeConnected, ctx: &mut Self::Context) {
        let NodeConnected { node, connected } = message;
        if !self.leads() {
            return;
        }
        self.hear();
        if self.training.connected(&node, connected, self.now()) {
            self.look_for_losses(ctx);
        }
    }
}
