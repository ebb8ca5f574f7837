//! Where actors run: the one place that knows of threads.

use std::rc::Rc;

use actix::{Actor, Addr, Context, Supervised};
use actix_rt::{Arbiter, ArbiterHandle};
use gradmesh_actors::ids::Incarnation;
use tokio::sync::oneshot;
use tokio::task::spawn_local;

use super::NodeError;
use crate::supervisor::{Prepared, RestartPolicy, Vitals};
use crate::transport::Transport;

/// An actor that has an address and doesn't run yet.
pub(super) struct Placed<A: Actor<Context = Context<A>>> {
    pub(super) address: Addr<A>,
    start: oneshot::Sender<Start<A>>,
}

type Start<A> = Box<dyn FnOnce(Prepared<A>) + Send>;

/// How all actors of a node are supervised.
#[derive(Clone, Copy, Debug)]
pub(super) struct Supervision {
    pub(super) base: Incarnation,
    pub(super) policy: RestartPolicy,
}

/// Where an actor runs.
#[derive(Clone, Debug)]
pub(super) enum Thread {
    /// That of the node itself.
    Here,
    Other(ArbiterHandle, ThreadTransport),
}

/// Makes the transport of a thread on it.
pub(super) type ThreadTransport = fn() -> Rc<dyn Transport>;

/// The threads of a node's actors.
#[derive(Debug)]
pub(super) struct Threads {
    /// Empty, for good, where the node has only its own.
    pub(super) arbiters: Vec<Arbiter>,
    transport: Option<ThreadTransport>,
}

impl Threads {
    /// With [`NodeContext::threads`](super::NodeContext::threads).
    pub(super) fn new(transport: Option<ThreadTransport>) -> Self {
        Self { arbiters: Vec::new(), transport }
    }

    /// A thread for one actor alone, if there are any.
    pub(super) fn own(&mut self) -> Thread {
        let Some(transport) = self.transport else { return Thread::Here };
        let arbiter = Arbiter::new();
        let handle = arbiter.handle();
        self.arbiters.push(arbiter);
        Thread::Other(handle, transport)
    }
}

impl Thread {
    /// What `make` makes on another thread, with its transport; `None` where it is the node's own.
    pub(super) async fn call<T: Send + 'static>(
        &self,
        make: impl FnOnce(Rc<dyn Transport>) -> T + Send + 'static,
    ) -> Result<Option<T>, NodeError> {
        let Self::Other(arbiter, transport) = self else { return Ok(None) };
        let (made, done) = oneshot::channel();
        let transport = *transport;
        // Nobody waits for it only where the node was dropped meanwhile.
        arbiter.spawn_fn(move || drop(made.send(make(transport()))));
        done.await.map(Some).map_err(|_| NodeError::Arbiter)
    }
}

/// Gives an actor a mailbox on `thread`.
pub(super) async fn place<A>(thread: &Thread) -> Result<Placed<A>, NodeError>
where
    A: Actor<Context = Context<A>> + Supervised,
{
    let (address, placed) = oneshot::channel();
    let (start, started) = oneshot::channel::<Start<A>>();
    let begin = move || {
        let prepared = Prepared::new();
        if address.send(prepared.address()).is_err() {
            return;
        }
        spawn_local(async move {
            if let Ok(start) = started.await {
                start(prepared);
            }
        });
    };
    let begun = match thread {
        Thread::Here => {
            begin();
            true
        }
        Thread::Other(arbiter, _) => arbiter.spawn_fn(begin),
    };
    if !begun {
        return Err(NodeError::Arbiter);
    }
    let address = placed.await.map_err(|_| NodeError::Arbiter)?;
    Ok(Placed { address, start })
}

impl<A> Placed<A>
where
    A: Actor<Context = Context<A>> + Supervised,
{
    /// Runs the actor that `factory` makes, and another one whenever it fails.
    pub(super) async fn run(
        self,
        name: String,
        supervision: Supervision,
        factory: impl Fn() -> A + Send + 'static,
    ) -> Result<Vitals, NodeError> {
        let (vitals, running) = oneshot::channel();
        let start: Start<A> = Box::new(move |prepared| {
            let Supervision { base, policy } = supervision;
            // Nobody waits for it only where the node was dropped meanwhile.
            let _ = vitals.send(prepared.supervise(name, base, policy, move |_| factory()));
        });
        self.start.send(start).map_err(|_| NodeError::Arbiter)?;
        running.await.map_err(|_| NodeError::Arbiter)
    }
}
