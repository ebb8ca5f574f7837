//! The actor that stands for one on another node.

use std::fmt;
use std::pin::Pin;

use actix::dev::{MessageResponse, OneshotSender};
use actix::{Actor, Context, Handler};
use gradmesh_actors::messages::WireMessage;
use tokio::select;
use tokio::task::spawn_local;

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
    type Result = Answer<M>;

    fn handle(&mut self, message: M, _ctx: &mut Self::Context) -> Self::Result {
        Answer(Box::pin(self.link.request(self.target, message)))
    }
}

/// The answer to come. Unlike a `ResponseFuture` it ends as soon as nobody waits for it, so that
/// a request whose sender ran into a timeout stops counting.
pub struct Answer<M: WireMessage>(Pin<Box<dyn Future<Output = M::Result>>>);

impl<M: WireMessage> fmt::Debug for Answer<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Answer").finish_non_exhaustive()
    }
}

impl<M: WireMessage> MessageResponse<Proxy, M> for Answer<M> {
    fn handle(self, _ctx: &mut Context<Proxy>, sender: Option<OneshotSender<M::Result>>) {
        spawn_local(async move {
            let Some(mut sender) = sender else {
                // Sent without waiting; the answer is of no interest, the sending is.
                let _ = self.0.await;
                return;
            };
            select! { biased;
                answer = self.0 => {
                    let _ = sender.send(answer);
                }
                () = sender.closed() => {}
            }
        });
    }
}
