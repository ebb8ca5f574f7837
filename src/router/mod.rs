//! The answering side: finds the actor that a request is for, and brings its answer back.

mod callers;
mod connection;
mod refusals;
mod route;
mod under_way;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix::Recipient;
use gradmesh_actors::messages::{NodeConnected, WireMessage};
use gradmesh_actors::presence::Presence;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tracing::warn;

use crate::transport::Listener;
use crate::wire::{Fault, Frame, Hello, Target};
use callers::Callers;
pub use connection::Moved;
use refusals::Refusals;
use route::{Answering, Route};

/// Connections at once: a cluster of a thousand nodes that all call this one, each with a worker that
/// calls a shard here as well. More wait unaccepted.
pub const CONNECTIONS_MAX: usize = 2048;
/// A caller from which nothing came for so long is gone: links without requests ping every second.
pub const SILENCE_MAX: Duration = Duration::from_secs(30);
/// Callers that an actor's thread has yet to take over: it does so between two messages.
const MOVED_WAITING_MAX: usize = 64;
/// After the system refused a connection (it has no file handles left), let others end first.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Which actor answers what. Clones share the table; routes may change while connections are
/// served.
#[derive(Clone, Default)]
pub struct Router {
    routes: Rc<RefCell<BTreeMap<(Target, u16), Route>>>,
    /// Where callers of one actor alone are given to its thread.
    desks: Rc<RefCell<BTreeMap<Target, mpsc::Sender<Moved>>>>,
    callers: Rc<Callers>,
}

impl fmt::Debug for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.routes.borrow().keys()).finish()
    }
}

impl Router {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Messages of type `M` for `target` go to `recipient` from now on.
    ///
    /// # Panics
    /// Two message types have the same `KIND`.
    pub fn route<M>(&self, target: Target, recipient: Recipient<M>)
    where
        M: WireMessage,
        Result<M::Reply, M::Refusal>: Send,
    {
        let route = Route::new(target, recipient);
        let (kind, message) = (M::KIND, route.message);
        let before = self.routes.borrow_mut().insert((target, kind), route);
        if let Some(before) = before {
            assert_eq!(before.message, message, "two messages have the kind {kind}");
        }
    }

    /// Whoever calls for `target` alone is given to who takes from the receiver, which is
    /// [`Router::serve_moved`] on another thread.
    #[must_use]
    pub fn hand_over(&self, target: Target) -> mpsc::Receiver<Moved> {
        let (desk, moved) = mpsc::channel(MOVED_WAITING_MAX);
        self.desks.borrow_mut().insert(target, desk);
        moved
    }

    /// Which nodes connect to this one and hang up, from now on, but for connections that are given to
    /// other threads. For one watcher: the one before hears no more.
    #[must_use]
    pub fn watch_callers(&self) -> mpsc::Receiver<NodeConnected> {
        self.callers.watch()
    }

    /// Beats of nodes that call this one are noted there from now on.
    pub fn tell_beats(&self, presence: Presence<Instant>) {
        self.callers.tell_beats(presence);
    }

    fn desk(&self, target: Target) -> Option<mpsc::Sender<Moved>> {
        self.desks.borrow().get(&target).cloned()
    }

    /// Answers callers that another router has greeted, until that one is dropped.
    pub async fn serve_moved(self, mut moved: mpsc::Receiver<Moved>) {
        let mut connections = JoinSet::new();
        while let Some(moved) = moved.recv().await {
            while connections.try_join_next().is_some() {}
            let router = self.clone();
            connections.spawn_local(async move { connection::serve_moved(moved, &router).await });
        }
    }

    /// Nobody answers for `target` from now on.
    pub fn remove(&self, target: Target) {
        self.desks.borrow_mut().remove(&target);
        self.routes.borrow_mut().retain(|(at, _), _| *at != target);
    }

    /// Answers whoever calls, until dropped; connections end with it.
    ///
    /// `own`: how this node introduces itself.
    pub async fn serve(self, mut listener: Box<dyn Listener>, own: Hello) {
        let free = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let refusals = Rc::new(Refusals::default());
        let mut connections = JoinSet::new();
        loop {
            let Ok(permit) = Arc::clone(&free).acquire_owned().await else {
                return;
            };
            while connections.try_join_next().is_some() {}
            match listener.accept().await {
                Ok(connection) => {
                    let (router, own) = (self.clone(), own.clone());
                    let refusals = Rc::clone(&refusals);
                    connections.spawn_local(async move {
                        connection::serve(connection, &own, &router, &refusals, permit).await;
                    });
                }
                Err(error) => {
                    warn!(%error, "can't accept a connection");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Hands a request to its actor at once, so that requests arrive in the order of the calls.
    fn dispatch(&self, request: Frame) -> Result<Answering, Fault> {
        let Frame { target, kind, .. } = request;
        let routes = self.routes.borrow();
        match routes.get(&(target, kind)) {
            Some(route) => route.dispatch(request),
            None if routes.range((target, 0)..=(target, u16::MAX)).next().is_some() => {
                Err(Fault::UnknownKind { target, kind })
            }
            None => Err(Fault::NoTarget { target }),
        }
    }
}
