//! One step: computed as a whole, or shard by shard, and exchanged with all shards.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use actix::fut::{ActorFutureExt, WrapFuture};
use actix::{AsyncContext, Context};
use futures_util::future::{TryFutureExt, try_join_all};
use tokio::task::{spawn_local, yield_now};
use tracing::info;

use super::{COMPUTED_KEPT, Worker};
use crate::clock;
use crate::exchange::{ANSWER_MAX, Halt, push, push_one};
use crate::ids::Version;
use crate::messages::{FailureKind, LeaseSlots, ReportSpeed, Values, ask};
use crate::planted::{self, Bug};
use crate::slot_work::{SlotWork, StepWork};

/// Turns of this thread's other tasks until what was handed to a proxy's mailbox is in the socket: the proxy's, the
/// connection's, and one for each to be woken.
const TURNS: usize = 4;

/// Lets the thread's other tasks run, and between them what has arrived be read.
pub(super) async fn sent() {
    for _ in 0..TURNS {
        yield_now().await;
    }
}

/// Lets the thread's other tasks run, those that were woken before: without a look at sockets and timers, which would be a
/// system call for each turn.
async fn handed_over() {
    for _ in 0..TURNS {
        let mut has_waited = false;
        poll_fn(|cx| {
            if std::mem::replace(&mut has_waited, true) {
                return Poll::Ready(());
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    }
}

impl Worker {
    /// Computes one step and exchanges it: gradients for the next version.
    pub(super) fn step(
        &mut self,
        lease: Rc<LeaseSlots>,
        version: Version,
        parameters: &Values,
        ctx: &mut Context<Self>,
    ) {
        self.attempt += 1;
        let Some(work) = &mut self.work else { return };
        let last = work.plan().last_version();
        if !self.computed.iter().any(|(of, _)| *of == version) {
            let stale = work.keeps_residuals() && self.residuals_of != version;
            let unseen = [Bug::ResidualsUnchecked, Bug::ResidualsLost, Bug::ComputesAgain];
            if stale && !unseen.into_iter().any(planted::is) {
                let (kind, of) = (FailureKind::Residuals, self.residuals_of);
                let cause = format!("residuals are of {of}, the shards are at {version}");
                return self.report(lease.view, kind, cause, ctx);
            }
            if version < last && work.computes_by_shard() {
                return self.step_by_shard(lease, version, parameters, ctx);
            }
            // What nobody asks for any more: its memory is used again.
            if !work.keeps_residuals() {
                self.computed.clear();
            }
            let began = clock::since(self.began);
            match work.compute(version, parameters) {
                Ok(computed) => self.computed(&lease, version, began, computed, ctx),
                Err(error) => return self.fail(lease.view, error.to_string(), ctx),
            }
        }
        let computed = self.computed.iter().find(|(of, _)| *of == version);
        let Some((_, computed)) = computed else { return };
        // One push a shard; that the last version was evaluated the first one alone wants to know.
        let shards = computed.payloads.len().max(1);
        let (worker, view) = (self.id, lease.view);
        let push_one = |(shard, to)| {
            let computed = Rc::clone(computed);
            let push = move || push(worker, view, version, &computed, shard);
            // What has to be moved until the exchange is under way is a pointer.
            Box::pin(push_one(Rc::clone(to), push, self.patience.clone()))
        };
        let answers: Vec<_> = self.push_to.iter().take(shards).enumerate().map(push_one).collect();
        // The last version is evaluated: there is none after it.
        if version == last {
            let evaluated = try_join_all(answers).map_ok(|_| Values::default());
            return self.exchange(lease, version, evaluated, ctx);
        }
        match self.assembly() {
            Ok(assembly) => self.exchange(lease, version, assembly.of(answers.into_iter()), ctx),
            Err(cause) => return self.fail(lease.view, cause, ctx),
        }
        self.prepare(version.next(), ctx);
    }

    /// Goes on when all shards have answered.
    pub(super) fn exchange(
        &mut self,
        lease: Rc<LeaseSlots>,
        version: Version,
        exchange: impl Future<Output = Result<Values, Halt>> + 'static,
        ctx: &mut Context<Self>,
    ) {
        let last = self.work.as_ref().map(|work| work.plan().last_version());
        let handle =
            ctx.spawn(exchange.into_actor(self).map(move |pushed, worker, ctx| match pushed {
                _ if !worker.holds_lease(&lease) => {}
                Ok(_) if Some(version) == last => {
                    info!(worker = %worker.id, "last version evaluated")
                }
                Ok(whole) => worker.advance(lease, version.next(), whole, ctx),
                Err(halt) => worker.halt(lease, halt, ctx),
            }));
        self.under_way = Some(handle);
    }

    /// Keeps what was computed: whoever asks for it again gets the same.
    pub(super) fn computed(
        &mut self,
        lease: &LeaseSlots,
        version: Version,
        began: Duration,
        computed: StepWork,
        ctx: &mut Context<Self>,
    ) {
        self.measured(lease, began, ctx);
        // Without residuals an earlier one can be computed again.
        let keeps_residuals = self.work.as_ref().is_some_and(SlotWork::keeps_residuals);
        self.computed.push_front((version, Rc::new(computed)));
        self.computed.truncate(if keeps_residuals { COMPUTED_KEPT } else { 1 });
        self.residuals_of = version.next();
    }

    /// Has the next step's rows side by side, once the pushes are on their way; few of them at once, before.
    pub(super) fn prepare(&mut self, next: Version, ctx: &mut Context<Self>) {
        if let Some(work) = self.work.as_mut().filter(|work| work.is_prepared_soon(next)) {
            return work.prepare(next);
        }
        let attempt = self.attempt;
        // A task of its own: each of its turns would be one of all that this actor waits for.
        let handed_over = spawn_local(handed_over());
        ctx.spawn(handed_over.into_actor(self).map(move |_, worker, _| {
            // Unless it has begun already.
            if let Some(work) = worker.work.as_mut().filter(|_| worker.attempt == attempt) {
                work.prepare(next);
            }
        }));
    }

    /// Tells the coordinator from time to time how fast this worker is.
    pub(super) fn measured(
        &mut self,
        lease: &LeaseSlots,
        began: Duration,
        ctx: &mut Context<Self>,
    ) {
        let slots = lease.slots.end - lease.slots.first;
        let Some(pace) = self.stopwatch.computed(slots, began, clock::since(self.began)) else {
            return;
        };
        let leader = self.links.report_speed.get(lease.leader.0 as usize);
        let Some(leader) = leader.cloned() else { return };
        let report = ReportSpeed { worker: self.id, pace };
        // One that is lost is followed by another.
        let sent = async move { ask(&leader, report, ANSWER_MAX).await };
        ctx.spawn(sent.into_actor(self).map(|_, _, _| ()));
    }
}
