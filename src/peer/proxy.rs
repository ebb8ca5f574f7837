//! The actor that stands for one on another node.

use actix::dev::{MessageResponse, OneshotSender};
use actix::{Actor, Context, Handler};
use gradmesh_actors::messages::WireMessage;

use super::{Link, REQUESTS_MAX};
use crate::wire::Target;

/// Takes every message that may cross the wire and asks `target` at the other end of `link`, so
/// `proxy.recipient::<M>()` is the remote actor to whoever holds it.
#[derive(Clone, Debug)]
pub struct Proxy {
    pub link: Link,
    pub target: Target,
}

impl Actor for Proxy {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(REQUESTS_MAX);
    }
}

impl<M: WireMessage> Handler<M> for Proxy {
    type Result = Forward<M>;

    fn handle(&mut self, message: M, _ctx: &mut Self::Context) -> Self::Result {
        Forward { link: self.link.clone(), target: self.target, message }
    }
}

/// Sends the message on, with whoever waits for its answer: no task waits in between. Unlike a
/// `ResponseFuture`, a request whose sender ran into a timeout stops counting.
#[derive(Debug)]
pub struct Forward<M> {
    link: Link,
    target: Target,
    message: M,
}

impl<M: WireMessage> MessageResponse<Proxy, M> for Forward<M> {
    fn handle(self, _ctx: &mut Context<Proxy>, sender: Option<OneshotSender<M::Result>>) {
        self.link.ask(self.target, &self.message, sender);
    }
}
