//! A step whose shards are sent one by one, while the gradients of those before are computed.

use std::rc::Rc;
use std::time::Duration;

use actix::fut::{ActorFutureExt, WrapFuture};
use actix::{AsyncContext, Context};
use tokio::sync::oneshot;

use super::Worker;
use super::step::sent;
use crate::clock;
use crate::exchange::{Halt, push, push_one};
use crate::ids::Version;
use crate::messages::{LeaseSlots, PushGradient, Values};
use crate::slot_work::StepWork;

/// What is left of a step.
struct Rest {
    attempt: u64,
    lease: Rc<LeaseSlots>,
    version: Version,
    parameters: Values,
    /// Without the time in which others had their turns.
    took: Duration,
    computed: StepWork,
    /// Of the shards that are still to be computed.
    pushes: Vec<oneshot::Sender<PushGradient>>,
}

impl Worker {
    /// Computes a step and exchanges it meanwhile: the last shard, whose layers are the first that are
    /// known, goes out first.
    pub(super) fn step_by_shard(
        &mut self,
        lease: Rc<LeaseSlots>,
        version: Version,
        parameters: &Values,
        ctx: &mut Context<Self>,
    ) {
        let Some(work) = &mut self.work else { return };
        let began = clock::since(self.began);
        let computed = match work.begin(version, parameters) {
            Ok(computed) => computed,
            Err(error) => return self.fail(lease.view, error.to_string(), ctx),
        };
        let (pushes, ready): (Vec<_>, Vec<_>) =
            computed.payloads.iter().map(|_| oneshot::channel::<PushGradient>()).unzip();
        let receivers: Vec<_> = self.push_to.iter().map(Rc::clone).zip(ready).collect();
        let patience = self.patience.clone();
        let answers = receivers.into_iter().map(move |(to, ready)| {
            let patience = patience.clone();
            async move {
                match ready.await {
                    Ok(push) => push_one(to, || push.clone(), patience).await,
                    // The step was given up, and what comes instead of it is on its way.
                    Err(_) => Err(Halt::Stale),
                }
            }
        });
        match self.assembly() {
            Ok(assembly) => self.exchange(lease.clone(), version, assembly.of(answers), ctx),
            Err(cause) => return self.fail(lease.view, cause, ctx),
        }
        let parameters = Values::clone(parameters);
        let (attempt, took) = (self.attempt, clock::since(self.began).saturating_sub(began));
        self.go_on(Rest { attempt, lease, version, parameters, took, computed, pushes }, ctx);
    }

    /// Computes one shard, and the next one when this one is on its way.
    fn go_on(&mut self, mut rest: Rest, ctx: &mut Context<Self>) {
        if self.attempt != rest.attempt || !self.holds_lease(&rest.lease) {
            return;
        }
        let (Some(work), Some(ready)) = (&mut self.work, rest.pushes.pop()) else { return };
        // The exchange has ended: some shard has moved on, and the step begins anew.
        if ready.is_closed() {
            return;
        }
        let (shard, version, began) = (rest.pushes.len(), rest.version, clock::since(self.began));
        let done = work.complete(shard, version, &rest.parameters, &mut rest.computed);
        if let Err(error) = done {
            return self.fail(rest.lease.view, error.to_string(), ctx);
        }
        rest.took += clock::since(self.began).saturating_sub(began);
        // Nobody takes it where the exchange has ended just now.
        let _ = ready.send(push(self.id, rest.lease.view, version, &rest.computed, shard));
        if rest.pushes.is_empty() {
            let Rest { lease, took, computed, parameters, .. } = rest;
            let began = clock::since(self.began).saturating_sub(took);
            // In whose memory the version after the next is put together.
            drop(parameters);
            self.computed(&lease, version, began, computed, ctx);
            return self.prepare(version.next(), ctx);
        }
        ctx.spawn(sent().into_actor(self).map(move |(), worker, ctx| worker.go_on(rest, ctx)));
    }
}
