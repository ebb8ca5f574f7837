//! Restarts actors that panicked or stopped.
//!
//! `actix::Supervisor` does neither of the two things that matter here: an actor whose handler
//! panicked is gone, and one that stopped goes on with its old fields.

use std::any::Any;
use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use actix::dev::ContextFut;
use actix::{Actor, ActorContext, Addr, AsyncContext, Context, Supervised};
use futures_util::FutureExt;
use gradmesh_actors::ids::Incarnation;
use gradmesh_actors::planted::{self, Bug};
use gradmesh_actors::restart;
use tokio::sync::watch;
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep};
use tracing::{error, warn};

/// How often an actor may fail before its supervisor gives up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RestartPolicy {
    /// Restarts within `window`; one more failure is the last. `supervisor.restarts_max`.
    pub restarts_max: u32,
    pub window: Duration,
    /// Wait before the first restart of a window; doubles with each further one.
    pub backoff: Duration,
    pub backoff_max: Duration,
}

impl Default for RestartPolicy {
    /// One bad input is over with the first restart; an actor that fails five times a minute
    /// fails for a reason that stays, and its node's failure is what the cluster heals.
    fn default() -> Self {
        Self {
            restarts_max: 5,
            window: Duration::from_secs(60),
            backoff: Duration::from_millis(10),
            backoff_max: Duration::from_secs(1),
        }
    }
}

/// Why an actor had to be restarted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The panic's message.
    Panic(String),
    /// It stopped itself while others still hold its address.
    Stop,
    /// Its `Supervised::restarting` doesn't call `restart::replace`: a restart would go on with
    /// fields that a panic left half-changed.
    NotReplaced,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Panic(message) => write!(f, "panicked: {message}"),
            Self::Stop => f.write_str("stopped"),
            Self::NotReplaced => f.write_str("Supervised::restarting doesn't replace the actor"),
        }
    }
}

/// The lives of one supervised actor so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Life {
    /// Of the actor that runs now.
    pub incarnation: Incarnation,
    pub restarts_after_panic: u64,
    pub restarts_after_stop: u64,
    pub last_cause: Option<Cause>,
    /// The address is closed, for good.
    pub gave_up: bool,
}

/// Shows how a supervised actor fares, on any thread.
#[derive(Clone, Debug)]
pub struct Vitals(watch::Receiver<Life>);

impl Vitals {
    #[must_use]
    pub fn now(&self) -> Life {
        self.0.borrow().clone()
    }

    /// Waits for another life than those seen by this or [`Vitals::wait_for`]; `false` where there will be
    /// none, because nobody holds the address any more.
    pub async fn changed(&mut self) -> bool {
        self.0.changed().await.is_ok()
    }

    /// Waits for a life that `matches`; `None` where the actor ended without one, because nobody
    /// held its address any more.
    pub async fn wait_for(&mut self, matches: impl FnMut(&Life) -> bool) -> Option<Life> {
        self.0.wait_for(matches).await.ok().map(|life| life.clone())
    }
}

/// Starts the actor that `factory` makes on the current `LocalSet`, and a fresh one in its place
/// whenever it panics or stops while its address is held. The address stays valid and what waits
/// in the mailbox is served; the message that was being handled is lost, its sender hears
/// `Closed`.
///
/// `base`: incarnation of the first actor; each restart adds one. The factory gets the number of
/// the one to make, and is asked after the back-off, so it can build on the last good state.
///
/// `A` must call [`restart::replace`] in `Supervised::restarting`.
///
/// actix cancels spawned futures by number and restarts the count: `ctx.cancel_future` in the
/// very call that then panics may hit a future that the fresh actor spawns in `started`.
///
/// # Panics
/// The factory does for the first actor; later its panics count like the actor's.
pub fn supervise<A>(
    name: impl Into<String>,
    base: Incarnation,
    policy: RestartPolicy,
    factory: impl Fn(Incarnation) -> A + 'static,
) -> (Addr<A>, Vitals)
where
    A: Actor<Context = Context<A>> + Supervised,
{
    let prepared = Prepared::new();
    let address = prepared.address();
    (address, prepared.supervise(name, base, policy, factory))
}

/// An address whose actor doesn't run yet: messages wait in its mailbox. For actors that hold each
/// other's addresses.
#[derive(Debug)]
pub struct Prepared<A: Actor<Context = Context<A>>>(Context<A>);

impl<A: Actor<Context = Context<A>> + Supervised> Prepared<A> {
    #[expect(clippy::new_without_default, reason = "a mailbox is no value")]
    pub fn new() -> Self {
        Self(Context::new())
    }

    pub fn address(&self) -> Addr<A> {
        self.0.address()
    }

    /// As [`supervise`], behind this address.
    ///
    /// # Panics
    /// The factory does for the first actor.
    pub fn supervise(
        self,
        name: impl Into<String>,
        base: Incarnation,
        policy: RestartPolicy,
        factory: impl Fn(Incarnation) -> A + 'static,
    ) -> Vitals {
        let life = Life {
            incarnation: base,
            restarts_after_panic: 0,
            restarts_after_stop: 0,
            last_cause: None,
            gave_up: false,
        };
        let (life, vitals) = watch::channel(life);
        let running = self.0.into_future(factory(base));
        let restarts = Restarts { policy, recent: VecDeque::new() };
        let supervision = Supervision { name: name.into(), factory, life, restarts };
        spawn_local(supervision.run(running));
        Vitals(vitals)
    }
}

struct Supervision<F> {
    name: String,
    factory: F,
    life: watch::Sender<Life>,
    restarts: Restarts,
}

impl<F> Supervision<F> {
    async fn run<A>(mut self, mut running: ContextFut<A, Context<A>>)
    where
        A: Actor<Context = Context<A>> + Supervised,
        F: Fn(Incarnation) -> A,
    {
        let mut ended = AssertUnwindSafe(&mut running).catch_unwind().await;
        loop {
            let cause = match &ended {
                Err(panic) => Cause::Panic(panic_message(panic.as_ref())),
                Ok(()) if running.ctx().connected() => Cause::Stop,
                Ok(()) => break,
            };
            let Some(pause) = self.restarts.allow(Instant::now()) else {
                self.give_up(cause);
                break;
            };
            warn!(actor = self.name, %cause, pause_ms = pause.as_millis() as u64, "restarting");
            sleep(pause).await;
            match self.restart(&mut running, cause) {
                Ok(Restarted::Fresh) => {
                    ended = AssertUnwindSafe(&mut running).catch_unwind().await;
                }
                Ok(Restarted::Unwanted) => break,
                Ok(Restarted::NotReplaced) => {
                    self.give_up(Cause::NotReplaced);
                    break;
                }
                // The factory, or dropping the old actor: counts like a panic of the actor.
                Err(panic) => ended = Err(panic),
            }
        }
        // Without this, dropping the context calls the hooks of an actor that may be broken.
        running.ctx().terminate();
        if catch_unwind(AssertUnwindSafe(|| drop(running))).is_err() {
            error!(actor = self.name, "panicked while it was dropped");
        }
    }

    fn restart<A>(
        &self,
        running: &mut ContextFut<A, Context<A>>,
        cause: Cause,
    ) -> Result<Restarted, Box<dyn Any + Send>>
    where
        A: Actor<Context = Context<A>> + Supervised,
        F: Fn(Incarnation) -> A,
    {
        let next = Incarnation(self.life.borrow().incarnation.0 + 1);
        let (restarted, replaced) = catch_unwind(AssertUnwindSafe(|| {
            let fresh = (self.factory)(next);
            restart::offer(fresh, || running.restart())
        }))?;
        if !restarted {
            return Ok(Restarted::Unwanted);
        }
        if !replaced {
            return Ok(Restarted::NotReplaced);
        }
        if planted::is(Bug::RestartUnheard) {
            return Ok(Restarted::Fresh);
        }
        self.life.send_modify(|life| {
            life.incarnation = next;
            match cause {
                Cause::Stop => life.restarts_after_stop += 1,
                Cause::Panic(_) | Cause::NotReplaced => life.restarts_after_panic += 1,
            }
            life.last_cause = Some(cause);
        });
        Ok(Restarted::Fresh)
    }

    fn give_up(&self, cause: Cause) {
        let RestartPolicy { restarts_max, window, .. } = self.restarts.policy;
        error!(
            actor = self.name, %cause, restarts_max, window_s = window.as_secs(),
            "gave up; see the cause, or raise supervisor.restarts_max"
        );
        self.life.send_modify(|life| {
            life.last_cause = Some(cause);
            life.gave_up = true;
        });
    }
}

enum Restarted {
    Fresh,
    /// Nobody holds the address any more.
    Unwanted,
    NotReplaced,
}

/// Invariant: `recent` holds the restarts of the last `window`, at most `restarts_max`.
struct Restarts {
    policy: RestartPolicy,
    recent: VecDeque<Instant>,
}

impl Restarts {
    /// How long to wait before one more restart; `None` where the budget is spent.
    fn allow(&mut self, now: Instant) -> Option<Duration> {
        let window = self.policy.window;
        self.recent.retain(|at| now.duration_since(*at) < window);
        let before = u32::try_from(self.recent.len()).unwrap_or(u32::MAX);
        if before >= self.policy.restarts_max {
            return None;
        }
        self.recent.push_back(now);
        let doubled = 2u32.checked_pow(before).and_then(|by| self.policy.backoff.checked_mul(by));
        Some(doubled.map_or(self.policy.backoff_max, |pause| pause.min(self.policy.backoff_max)))
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("no message").to_owned()
}
