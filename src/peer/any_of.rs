//! The recipient in front of several that do the same.

use std::cell::RefCell;
use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use actix::dev::{MessageResponse, OneshotSender};
use actix::{Actor, Context, Handler, Recipient};
use gradmesh_actors::failover::Failover;
use gradmesh_actors::messages::{LinkError, TryAnother, WireMessage, ask};
use tokio::select;
use tokio::task::spawn_local;
use tokio::time::Instant;
use tracing::{debug, warn};

use super::REQUESTS_MAX;

/// What all recipients in front of the same receivers know of them together.
#[derive(Clone, Debug)]
pub struct Standing {
    names: Rc<[String]>,
    rule: Rc<RefCell<Failover>>,
    since: Instant,
}

impl Standing {
    /// Of receivers with these names, for the log. `home`, `first`: see [`Failover::new`].
    #[must_use]
    pub fn new(names: Vec<String>, home: Option<usize>, first: usize) -> Self {
        let rule = Rc::new(RefCell::new(Failover::new(names.len(), home, first)));
        Self { names: names.into(), rule, since: Instant::now() }
    }

    fn order(&self) -> Vec<usize> {
        self.rule.borrow().order(self.since.elapsed())
    }

    fn answered(&self, at: usize) {
        if self.rule.borrow_mut().answered(at) {
            warn!(name = self.name(at), "another one answers now");
        }
    }

    fn silent(&self, at: usize, error: &dyn fmt::Display) {
        debug!(name = self.name(at), %error, "no answer, the next one is asked");
        self.rule.borrow_mut().silent(at, self.since.elapsed());
    }

    fn name(&self, at: usize) -> &str {
        self.names.get(at).map_or("", String::as_str)
    }
}

/// Asks one of several receivers, and the next one where that one does not answer; a refusal is an
/// answer. Each is asked a bounded number of times, so a request ends.
#[derive(Debug)]
pub struct AnyOf<M: WireMessage> {
    receivers: Rc<[Recipient<M>]>,
    standing: Standing,
    limit: Duration,
}

impl<M> AnyOf<M>
where
    M: WireMessage + Clone,
    M::Result: Send,
    M::Refusal: TryAnother,
{
    /// Starts it on the current `LocalSet`. `receivers` in the order of the names of `standing`;
    /// `limit`: the longest wait for one of them.
    #[must_use]
    pub fn start(
        receivers: Vec<Recipient<M>>,
        standing: Standing,
        limit: Duration,
    ) -> Recipient<M> {
        Actor::start(Self { receivers: receivers.into(), standing, limit }).recipient()
    }
}

impl<M: WireMessage> Actor for AnyOf<M> {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(REQUESTS_MAX);
    }
}

impl<M> Handler<M> for AnyOf<M>
where
    M: WireMessage + Clone,
    M::Result: Send,
    M::Refusal: TryAnother,
{
    type Result = AnyAnswer<M>;

    fn handle(&mut self, message: M, _ctx: &mut Self::Context) -> Self::Result {
        let (receivers, standing) = (Rc::clone(&self.receivers), self.standing.clone());
        AnyAnswer(Box::pin(any(receivers, standing, self.limit, message)))
    }
}

async fn any<M>(
    receivers: Rc<[Recipient<M>]>,
    standing: Standing,
    limit: Duration,
    message: M,
) -> Result<M::Reply, M::Refusal>
where
    M: WireMessage + Clone,
    M::Result: Send,
    M::Refusal: TryAnother,
{
    let mut last: M::Refusal = LinkError::Closed.into();
    for at in standing.order() {
        let Some(receiver) = receivers.get(at) else { continue };
        match ask(receiver, message.clone(), limit).await {
            Err(error) if error.try_another() => {
                standing.silent(at, &error);
                last = error;
            }
            answer => {
                standing.answered(at);
                return answer;
            }
        }
    }
    Err(last)
}

/// The answer to come. As [`Forward`](super::Forward) it ends as soon as nobody waits for it: whoever
/// has given up has nobody asked in his name any more.
pub struct AnyAnswer<M: WireMessage>(Pin<Box<dyn Future<Output = M::Result>>>);

impl<M: WireMessage> fmt::Debug for AnyAnswer<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AnyAnswer").finish_non_exhaustive()
    }
}

impl<M: WireMessage> MessageResponse<AnyOf<M>, M> for AnyAnswer<M> {
    fn handle(self, _ctx: &mut Context<AnyOf<M>>, sender: Option<OneshotSender<M::Result>>) {
        // Nobody asks a registry without waiting for what it says.
        let Some(mut sender) = sender else { return };
        spawn_local(async move {
            select! { biased;
                answer = self.0 => {
                    let _ = sender.send(answer);
                }
                () = sender.closed() => {}
            }
        });
    }
}
