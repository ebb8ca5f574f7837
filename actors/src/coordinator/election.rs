//! Who leads: a look at the coordination store, again and again.

use std::time::Duration;

use actix::fut::{ActorFutureExt, WrapFuture};
use actix::{AsyncContext, Context, Recipient};
use bytes::Bytes;
use tracing::{error, info, warn};

use super::Coordinator;
use crate::candidacy::Next;
use crate::ids::{Term, View};
use crate::messages::coordination::{
    AppendView, Appended, CoordinationError, Entry, Observe, Observed, RenewLease, Resign,
};
use crate::planted::{self, Bug};
use crate::training::{ClusterState, Command, Training};

/// A store that says nothing for so long is asked again; it may still do what it was asked for.
const STORE_ANSWER_MAX: Duration = Duration::from_secs(2);

impl Coordinator {
    /// Asks who leads.
    pub(super) fn look(&mut self, ctx: &mut Context<Self>) {
        self.retire(ctx);
        if self.retired || std::mem::replace(&mut self.looking, true) {
            return;
        }
        let (store, asked_at) = (self.links.observe.clone(), self.now());
        let asked = async move { ask_store(&store, Observe).await };
        ctx.spawn(asked.into_actor(self).map(move |observed, coordinator, ctx| {
            coordinator.looking = false;
            if coordinator.retired {
                return;
            }
            match observed {
                Ok(observed) => coordinator.saw(&observed, asked_at, ctx),
                Err(error) => coordinator.blinded(&error),
            }
            coordinator.show();
            let next = coordinator.candidacy.look_again_in(coordinator.now());
            ctx.run_later(next, Self::look);
        }));
    }

    fn saw(&mut self, observed: &Observed, asked_at: Duration, ctx: &mut Context<Self>) {
        self.blind = false;
        let now = self.now();
        match self.candidacy.observed(observed, asked_at, now) {
            Next::Lead { .. } => self.renew(ctx),
            Next::Follow { leader, .. } => self.follow(Some(leader)),
            Next::Wait => self.follow(None),
            // The answer to the one before tells more.
            Next::Stand { .. } if self.standing => {}
            Next::Stand { view, term } => self.stand(view, term, observed.newest.as_ref(), ctx),
        }
    }

    fn blinded(&mut self, error: &CoordinationError) {
        if std::mem::replace(&mut self.blind, true) {
            return;
        }
        if error.may_pass() {
            warn!(%error, "who leads is unknown, asking again until it is known");
        } else {
            error!(%error, "who leads can't be known, and nothing is trained until somebody helps");
            // Whoever waits for this run would wait for ever. One that was under way keeps what it is.
            if !self.candidacy.has_seen() {
                self.training.fail(error.to_string());
            }
        }
    }

    /// Apart from a store that is not read: each look that is answered would make this one news.
    fn unwritten(&mut self, error: &CoordinationError) {
        if !std::mem::replace(&mut self.unwritten, true) {
            warn!(%error, "the coordination store has not taken what was written");
        }
    }

    /// Leaves the lead where its run is over and nobody else is there to lead. Whoever trains here next, in another process,
    /// would follow it otherwise; and when that one has ended, it would stand again for what is long over.
    pub(super) fn retire(&mut self, ctx: &mut Context<Self>) {
        if self.retired || self.own.rivals > 0 || !self.leads() || !self.training.is_over() {
            return;
        }
        self.retired = true;
        if let Some(resign) = self.candidacy.give_way(self.now()) {
            let term = resign.term;
            self.resign(resign, ctx);
            info!(%term, "the run is over, another process may lead");
        }
    }

    fn resign(&self, resign: Resign, ctx: &mut Context<Self>) {
        let store = self.links.resign.clone();
        let asked = async move { ask_store(&store, resign).await };
        ctx.spawn(asked.into_actor(self).map(|resigned, coordinator, _| {
            // Without it the others wait for a lease.
            if let Err(error) = resigned {
                coordinator.unwritten(&error);
            }
        }));
    }

    fn renew(&mut self, ctx: &mut Context<Self>) {
        let Some(beat) = self.candidacy.beat() else { return };
        let store = self.links.renew.clone();
        let renewal = RenewLease { beat, ttl: self.own.lease };
        let asked = async move { ask_store(&store, renewal).await };
        ctx.spawn(asked.into_actor(self).map(move |renewed, coordinator, _| match renewed {
            Ok(()) => coordinator.unwritten = false,
            Err(CoordinationError::Superseded { leader, .. }) => coordinator.follow(Some(leader)),
            Err(error) => coordinator.unwritten(&error),
        }));
    }

    /// Does not lead, or no longer. What is still under way for the run is not heard of any more;
    /// whoever got an order of it has a newer one by now, or will.
    fn follow(&mut self, leader: Option<String>) {
        if self.retired {
            return;
        }
        if let Some(term) = self.term.take() {
            warn!(%term, ?leader, "no longer the leader");
            self.leader = None;
            self.links.presence.begin(false);
            self.training =
                Training::new(self.job.clone(), self.config.clone(), self.own.run.clone());
        }
        if self.leader != leader {
            if leader.as_ref() == Some(&self.own.name) {
                let name = &self.own.name;
                warn!(
                    name,
                    "another process of this name leads, and this one waits until that one ends; stop it, or change coordination.store or this one's nodes[].name"
                );
            } else {
                info!(?leader, "following");
            }
            self.leader = leader;
        }
        self.show();
    }

    /// Hears of no server and no worker: another candidate may. Whoever keeps its lease and reaches
    /// nobody else would hold everything up for as long as it is cut off.
    pub(super) fn give_way(&mut self, ctx: &mut Context<Self>) {
        let now = self.now();
        let Some(resign) = self.candidacy.give_way(now) else { return };
        warn!(term = %resign.term, "no server and no worker is heard of, another coordinator may lead");
        self.resign(resign, ctx);
        self.follow(None);
    }

    /// Tries to lead.
    fn stand(&mut self, view: View, term: Term, newest: Option<&Entry>, ctx: &mut Context<Self>) {
        let before = newest.and_then(|entry| match serde_json::from_slice(&entry.state) {
            Ok(state) => Some((entry.view, state)),
            Err(error) => {
                warn!(view = %entry.view, %error, "the state of the last view can't be read; going back to a checkpoint");
                None
            }
        });
        let (life, run) = (&self.own.life, &self.own.run);
        let state = Training::succession(before, &self.job, &self.config, life, run);
        let Some(entry) = self.entry(view, term, &state) else { return };
        self.standing = true;
        self.candidacy.tries(term);
        self.append(entry, ctx, move |coordinator, ctx| coordinator.lead(view, term, state, ctx));
    }

    fn lead(&mut self, view: View, term: Term, state: ClusterState, ctx: &mut Context<Self>) {
        if self.term >= Some(term) {
            return;
        }
        info!(%term, %view, "leading");
        self.term = Some(term);
        self.leader = Some(self.own.name.clone());
        let own = (self.own.id, self.own.life.clone());
        let (job, config, run) = (self.job.clone(), self.config.clone(), self.own.run.clone());
        let now = self.now();
        let (training, commands) = Training::take_over(job, config, own, run, (view, state), now);
        self.training = training;
        self.links.presence.begin(true);
        self.training.led(self.own.name.clone(), term);
        self.carry_out(commands, ctx);
        self.renew(ctx);
    }

    pub(super) fn raise_view(
        &mut self,
        above: View,
        state: &ClusterState,
        ctx: &mut Context<Self>,
    ) {
        let Some(term) = self.term.filter(|_| !self.retired) else { return };
        let Some(view) = above.next() else {
            let last = format!("there is no view after {above}; set another coordination.store");
            return self.training.fail(last);
        };
        if planted::is(Bug::ViewForgotten) {
            let commands = self.training.view_raised(view);
            return self.carry_out(commands, ctx);
        }
        let Some(entry) = self.entry(view, term, state) else { return };
        let state = state.clone();
        self.append(entry, ctx, move |coordinator, ctx| {
            if coordinator.term == Some(term) {
                let commands = coordinator.training.view_appended(view, &state);
                coordinator.carry_out(commands, ctx);
            }
        });
    }

    fn entry(&mut self, view: View, term: Term, state: &ClusterState) -> Option<Entry> {
        match serde_json::to_vec(state) {
            Ok(state) => {
                let (leader, state) = (self.own.name.clone(), Bytes::from(state));
                Some(Entry { view, term, leader, state })
            }
            Err(error) => {
                self.training.fail(format!("the state of {view} can't be written: {error}"));
                None
            }
        }
    }

    /// Appends an entry, unless its number is taken.
    fn append(
        &mut self,
        entry: Entry,
        ctx: &mut Context<Self>,
        won: impl FnOnce(&mut Self, &mut Context<Self>) + 'static,
    ) {
        let (store, asked_at) = (self.links.append.clone(), self.now());
        let append = AppendView { entry: entry.clone() };
        let asked = async move { ask_store(&store, append).await };
        ctx.spawn(asked.into_actor(self).map(move |appended, coordinator, ctx| {
            coordinator.standing = false;
            coordinator.appended(appended, &entry, asked_at, won, ctx);
        }));
    }

    fn appended(
        &mut self,
        appended: Result<Appended, CoordinationError>,
        entry: &Entry,
        asked_at: Duration,
        won: impl FnOnce(&mut Self, &mut Context<Self>),
        ctx: &mut Context<Self>,
    ) {
        match appended {
            Ok(Appended::Won) => {
                self.unwritten = false;
                self.candidacy.won(entry, asked_at);
                // Unless the log has gone on meanwhile.
                if self.candidacy.leads_in() == Some(entry.term) {
                    won(self, ctx);
                }
            }
            Ok(Appended::Taken(newest)) => {
                let now = self.now();
                self.candidacy.lost(&newest, now);
                match self.term {
                    Some(term) if term == newest.term => {
                        let commands = self.training.overtaken(newest.view);
                        self.carry_out(commands, ctx);
                    }
                    Some(_) => self.follow(Some(newest.leader)),
                    None => {}
                }
            }
            Err(error) if error.may_pass() && self.leads() => self.hold_up(error.to_string(), ctx),
            Err(error) => {
                self.candidacy.not_taken(self.now());
                self.unwritten(&error);
                if !error.may_pass() {
                    self.training.fail(error.to_string());
                }
                self.show();
            }
        }
    }

    /// Whether commands are this coordinator's to give.
    pub(super) fn may_act(&self, commands: &[Command]) -> bool {
        self.leads() || commands.is_empty()
    }
}

/// A store that doesn't answer in time may have done what it was asked for.
async fn ask_store<M, T>(store: &Recipient<M>, message: M) -> Result<T, CoordinationError>
where
    M: actix::Message<Result = Result<T, CoordinationError>> + Send + 'static,
    T: Send + 'static,
{
    let no_answer = |cause: &str| CoordinationError::NoAnswer {
        store: "of this node".to_owned(),
        cause: cause.to_owned(),
    };
    match tokio::time::timeout(STORE_ANSWER_MAX, store.send(message)).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(_)) => Err(no_answer("it is gone")),
        Err(_) => Err(no_answer("it takes too long")),
    }
}
