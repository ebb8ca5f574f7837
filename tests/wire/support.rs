//! An actor with a few messages, a node that serves it, and links to it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, ActorContext, Addr, Context, Handler, MessageResult, ResponseFuture};
use gradmesh::peer::{Link, LinkPolicy, Peer, Proxy};
use gradmesh::router::Router;
use gradmesh::transport::Transport;
use gradmesh::wire::{ConfigDigest, Hello, Role, Target};
use gradmesh_actors::messages::{Body, BodyError, LinkError, Values, WireMessage, WirePart};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

pub(crate) const DESK: Target = Target { role: Role::ParameterServer, index: 3 };
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

#[derive(Clone, Debug, PartialEq, thiserror::Error, Serialize, Deserialize)]
pub(crate) enum Refused {
    #[error("{got} values, limit {max}")]
    TooLong { got: usize, max: usize },
    #[error(transparent)]
    Link(#[from] LinkError),
}
impl WirePart for Refused {}

macro_rules! message {
    ($name:ident = $kind:literal -> $reply:ty) => {
        impl WireMessage for $name {
            const KIND: u16 = $kind;
            type Reply = $reply;
            type Refusal = Refused;
        }
        impl actix::Message for $name {
            type Result = Result<$reply, Refused>;
        }
    };
}

/// Comes back as it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Echo {
    pub(crate) text: String,
    #[serde(skip)]
    pub(crate) values: Values,
}
message!(Echo = 1000 -> Echo);
impl WirePart for Echo {
    fn bodies(&self) -> Vec<Body> {
        vec![Body::F32(Arc::clone(&self.values))]
    }
    fn attach(&mut self, bodies: Vec<Body>) -> Result<(), BodyError> {
        match <[Body; 1]>::try_from(bodies) {
            Ok([Body::F32(values)]) => {
                self.values = values;
                Ok(())
            }
            Ok(other) => Err(BodyError { expected: "f32".into(), got: format!("{other:?}") }),
            Err(bodies) => Err(BodyError { expected: "1".into(), got: bodies.len().to_string() }),
        }
    }
}

/// Answered when the `Release` of the same key came.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Wait {
    pub(crate) key: u32,
}
message!(Wait = 1001 -> Number);
impl WirePart for Wait {}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Release {
    pub(crate) key: u32,
}
message!(Release = 1002 -> ());
impl WirePart for Release {}

/// Answers how many came before it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Count;
message!(Count = 1003 -> Number);
impl WirePart for Count {}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Stop;
message!(Stop = 1004 -> ());
impl WirePart for Stop {}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Number(pub(crate) u32);
impl WirePart for Number {}

pub(crate) const ECHO_MAX: usize = 8 << 20;

#[derive(Debug, Default)]
pub(crate) struct Desk {
    waiting: BTreeMap<u32, oneshot::Sender<()>>,
    counted: u32,
}
impl Actor for Desk {
    type Context = Context<Self>;
    fn started(&mut self, ctx: &mut Self::Context) {
        // So small that bursts fill it.
        ctx.set_mailbox_capacity(2);
    }
}
impl Handler<Echo> for Desk {
    type Result = Result<Echo, Refused>;
    fn handle(&mut self, echo: Echo, _ctx: &mut Self::Context) -> Self::Result {
        let got = echo.values.len();
        if got > ECHO_MAX { Err(Refused::TooLong { got, max: ECHO_MAX }) } else { Ok(echo) }
    }
}
impl Handler<Wait> for Desk {
    type Result = ResponseFuture<Result<Number, Refused>>;
    fn handle(&mut self, Wait { key }: Wait, _ctx: &mut Self::Context) -> Self::Result {
        let (release, released) = oneshot::channel();
        self.waiting.insert(key, release);
        Box::pin(async move {
            let _ = released.await;
            Ok(Number(key))
        })
    }
}
impl Handler<Release> for Desk {
    type Result = Result<(), Refused>;
    fn handle(&mut self, Release { key }: Release, _ctx: &mut Self::Context) -> Self::Result {
        drop(self.waiting.remove(&key));
        Ok(())
    }
}
impl Handler<Count> for Desk {
    type Result = MessageResult<Count>;
    fn handle(&mut self, _: Count, _ctx: &mut Self::Context) -> Self::Result {
        self.counted += 1;
        MessageResult(Ok(Number(self.counted - 1)))
    }
}
impl Handler<Stop> for Desk {
    type Result = Result<(), Refused>;
    fn handle(&mut self, _: Stop, ctx: &mut Self::Context) -> Self::Result {
        ctx.stop();
        Ok(())
    }
}

pub(crate) fn hello(node: &str) -> Hello {
    Hello {
        cluster: "test".to_owned(),
        node: node.to_owned(),
        config_digest: ConfigDigest([7; 32]),
        target: None,
    }
}

/// A node that serves one desk.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) router: Router,
    serving: JoinHandle<()>,
}

impl Server {
    pub(crate) async fn start(transport: &dyn Transport) -> Self {
        Self::start_at(transport, "127.0.0.1:0".parse().unwrap(), hello("server")).await
    }

    pub(crate) async fn start_at(
        transport: &dyn Transport,
        address: SocketAddr,
        own: Hello,
    ) -> Self {
        let listener = transport.listen(address).await.unwrap();
        let address = listener.address();
        let desk = Desk::default().start();
        let router = Router::new();
        router.route::<Echo>(DESK, desk.clone().recipient());
        router.route::<Wait>(DESK, desk.clone().recipient());
        router.route::<Release>(DESK, desk.clone().recipient());
        router.route::<Count>(DESK, desk.clone().recipient());
        router.route::<Stop>(DESK, desk.recipient());
        let serving = tokio::task::spawn_local(router.clone().serve(listener, own));
        Self { address, router, serving }
    }

    /// No goodbye but what the operating system says of a dead process.
    pub(crate) async fn kill(self) {
        self.serving.abort();
        let _ = self.serving.await;
    }
}

pub(crate) fn link(transport: &Rc<dyn Transport>, address: SocketAddr) -> Link {
    link_as(transport, address, hello("client"))
}

pub(crate) fn link_as(transport: &Rc<dyn Transport>, address: SocketAddr, own: Hello) -> Link {
    let peer = Peer { node: "server".to_owned(), address };
    Link::open(peer, own, Rc::clone(transport), LinkPolicy::default())
}

pub(crate) fn proxy(link: &Link) -> Addr<Proxy> {
    Proxy { link: link.clone(), target: DESK }.start()
}

pub(crate) fn echo(text: &str) -> Echo {
    Echo { text: text.to_owned(), values: Values::default() }
}
