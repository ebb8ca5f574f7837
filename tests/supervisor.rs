//! Actors that fail and come back.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use actix::{
    Actor, ActorContext, Addr, AsyncContext, Context, Handler, MailboxError, Message, Running,
    Supervised, WrapFuture,
};
use gradmesh::supervisor::{Cause, RestartPolicy, Vitals, supervise};
use gradmesh_actors::ids::Incarnation;
use gradmesh_actors::restart;
use tokio::time::{Instant, pause};

#[actix::test]
async fn an_actor_that_panics_comes_back_at_its_address() {
    pause();
    let (counter, vitals) = start();
    assert_eq!(counter.send(Poison).await, Err(MailboxError::Closed));

    assert_eq!(counter.send(Add(1)).await, Ok((Incarnation(8), 1)));

    let life = vitals.now();
    assert_eq!((life.restarts_after_panic, life.restarts_after_stop), (1, 0));
    assert_eq!(life.incarnation, Incarnation(8));
    assert_eq!(life.last_cause, Some(Cause::Panic("poison after 0".to_owned())));
    assert!(!life.gave_up);
}

#[actix::test]
async fn messages_behind_the_poison_are_served_in_order() {
    pause();
    let (counter, _) = start();
    let (before, poison) = (counter.send(Add(1)), counter.send(Poison));
    let (one, two) = (counter.send(Add(10)), counter.send(Add(100)));

    assert_eq!(before.await, Ok((Incarnation(7), 1)));
    assert_eq!(poison.await, Err(MailboxError::Closed));
    assert_eq!(one.await, Ok((Incarnation(8), 10)));
    assert_eq!(two.await, Ok((Incarnation(8), 110)));
}

#[actix::test]
async fn no_field_of_the_old_actor_survives() {
    pause();
    let (counter, _) = start();
    counter.send(Add(41)).await.unwrap();
    let _ = counter.send(Poison).await;
    assert_eq!(counter.send(Add(0)).await, Ok((Incarnation(8), 0)));
}

#[actix::test]
async fn what_the_old_actor_had_spawned_ends_with_it() {
    pause();
    let (counter, _) = start();
    let held = Arc::new(());
    counter.send(Hold(Arc::clone(&held))).await.unwrap();
    assert_eq!(Arc::strong_count(&held), 2);

    let _ = counter.send(Poison).await;
    counter.send(Add(0)).await.unwrap();

    assert_eq!(Arc::strong_count(&held), 1);
}

#[actix::test]
async fn an_actor_that_stops_while_others_need_it_comes_back() {
    pause();
    let (counter, vitals) = start();
    counter.send(Add(1)).await.unwrap();
    counter.send(Stop).await.unwrap();

    assert_eq!(counter.send(Add(2)).await, Ok((Incarnation(8), 2)));
    let life = vitals.now();
    assert_eq!((life.restarts_after_panic, life.restarts_after_stop), (0, 1));
    assert_eq!(life.last_cause, Some(Cause::Stop));
}

#[actix::test]
async fn a_spent_budget_closes_the_address() {
    pause();
    let (counter, mut vitals) = start();
    let begun = Instant::now();
    for _ in 0..=POLICY.restarts_max {
        assert_eq!(counter.send(Poison).await, Err(MailboxError::Closed));
    }

    let life = vitals.wait_for(|life| life.gave_up).await.unwrap();

    assert_eq!(life.restarts_after_panic, 3);
    assert_eq!(counter.send(Add(1)).await, Err(MailboxError::Closed));
    assert!(!counter.connected());
    // 100 + 200 + 250 ms of back-off.
    assert_eq!(begun.elapsed().as_millis() / 10, 55);
}

/// Its fields are what the panic left: no hook may act on them.
#[actix::test]
async fn no_hook_of_a_broken_actor_runs() {
    pause();
    let hooks = Arc::new(());
    let held = Arc::clone(&hooks);
    let once = RestartPolicy { restarts_max: 0, ..POLICY };
    let (hooked, mut vitals) =
        supervise("hooked", Incarnation(0), once, move |_| Hooked(Arc::clone(&held)));
    let _ = hooked.send(Poison).await;

    vitals.wait_for(|life| life.gave_up).await.unwrap();
    assert_eq!(hooked.send(Poison).await, Err(MailboxError::Closed));

    assert_eq!(Arc::weak_count(&hooks), 0, "stopping and stopped each leave a mark");
}

#[actix::test]
async fn failures_far_apart_are_no_reason_to_give_up() {
    pause();
    let (counter, vitals) = start();
    for _ in 0..10 {
        let _ = counter.send(Poison).await;
        tokio::time::sleep(POLICY.window).await;
    }
    assert!(!vitals.now().gave_up);
    assert_eq!(counter.send(Add(1)).await, Ok((Incarnation(17), 1)));
}

#[actix::test]
async fn a_factory_that_panics_spends_the_budget_too() {
    pause();
    let healthy = Cell::new(true);
    let (counter, mut vitals) = supervise("counter", Incarnation(7), POLICY, move |incarnation| {
        assert!(healthy.replace(false), "no state to start from");
        Counter { incarnation, sum: 0 }
    });
    let _ = counter.send(Poison).await;

    let life = vitals.wait_for(|life| life.gave_up).await.unwrap();
    assert_eq!(life.incarnation, Incarnation(7));
    assert_eq!(life.last_cause, Some(Cause::Panic("no state to start from".to_owned())));
}

#[actix::test]
async fn an_actor_that_keeps_its_fields_is_not_restarted() {
    pause();
    let (stubborn, mut vitals) = supervise("stubborn", Incarnation(0), POLICY, |_| Stubborn);
    let _ = stubborn.send(Poison).await;

    let life = vitals.wait_for(|life| life.gave_up).await.unwrap();
    assert_eq!(life.last_cause, Some(Cause::NotReplaced));
}

#[actix::test]
async fn an_actor_that_nobody_needs_ends() {
    pause();
    let (counter, mut vitals) = start();
    counter.send(Add(1)).await.unwrap();
    drop(counter);

    assert_eq!(vitals.wait_for(|life| life.gave_up).await, None);
    assert_eq!(vitals.now().restarts_after_stop, 0);
}

#[actix::test]
async fn vitals_are_seen_from_other_threads() {
    fn is_shared<T: Clone + Send + Sync>() {}
    is_shared::<Vitals>();
}

/// In simulation there is no actix system, only a `LocalSet` a node.
#[test]
fn supervision_needs_no_actix_system() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    let node = tokio::task::LocalSet::new();
    node.block_on(&runtime, async {
        let (counter, _) = start();
        let _ = counter.send(Poison).await;
        assert_eq!(counter.send(Add(1)).await, Ok((Incarnation(8), 1)));
    });
}

const POLICY: RestartPolicy = RestartPolicy {
    restarts_max: 3,
    window: Duration::from_secs(10),
    backoff: Duration::from_millis(100),
    backoff_max: Duration::from_millis(250),
};

fn start() -> (Addr<Counter>, Vitals) {
    supervise("counter", Incarnation(7), POLICY, |incarnation| Counter { incarnation, sum: 0 })
}

#[derive(Debug)]
struct Counter {
    incarnation: Incarnation,
    sum: u64,
}
impl Actor for Counter {
    type Context = Context<Self>;
}
impl Supervised for Counter {
    fn restarting(&mut self, _ctx: &mut Context<Self>) {
        restart::replace(self);
    }
}

#[derive(Debug)]
struct Stubborn;
impl Actor for Stubborn {
    type Context = Context<Self>;
}
impl Supervised for Stubborn {}

/// Its hooks leave marks.
#[derive(Debug)]
struct Hooked(Arc<()>);
impl Actor for Hooked {
    type Context = Context<Self>;
    fn stopping(&mut self, _ctx: &mut Self::Context) -> Running {
        std::mem::forget(Arc::downgrade(&self.0));
        Running::Stop
    }
    fn stopped(&mut self, _ctx: &mut Self::Context) {
        std::mem::forget(Arc::downgrade(&self.0));
    }
}
impl Supervised for Hooked {}
impl Handler<Poison> for Hooked {
    type Result = ();
    fn handle(&mut self, _: Poison, _ctx: &mut Self::Context) {
        panic!("poison");
    }
}

#[derive(Message)]
#[rtype(result = "(Incarnation, u64)")]
struct Add(u64);
#[derive(Message)]
#[rtype(result = "()")]
struct Poison;
#[derive(Message)]
#[rtype(result = "()")]
struct Stop;
/// The actor spawns a future that holds this and never ends.
#[derive(Message)]
#[rtype(result = "()")]
struct Hold(Arc<()>);

impl Handler<Add> for Counter {
    type Result = actix::MessageResult<Add>;
    fn handle(&mut self, Add(number): Add, _ctx: &mut Self::Context) -> Self::Result {
        self.sum += number;
        actix::MessageResult((self.incarnation, self.sum))
    }
}
impl Handler<Poison> for Counter {
    type Result = ();
    fn handle(&mut self, _: Poison, _ctx: &mut Self::Context) {
        let sum = std::mem::replace(&mut self.sum, 666);
        panic!("poison after {sum}");
    }
}
impl Handler<Poison> for Stubborn {
    type Result = ();
    fn handle(&mut self, _: Poison, _ctx: &mut Self::Context) {
        panic!("poison");
    }
}
impl Handler<Stop> for Counter {
    type Result = ();
    fn handle(&mut self, _: Stop, ctx: &mut Self::Context) {
        ctx.stop();
    }
}
impl Handler<Hold> for Counter {
    type Result = ();
    fn handle(&mut self, Hold(held): Hold, ctx: &mut Self::Context) {
        let holding = async move {
            std::future::pending::<()>().await;
            drop(held);
        };
        ctx.spawn(holding.into_actor(self));
    }
}
