//! The handle with which a node asks another one.

use std::fmt;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use gradmesh_actors::messages::{LinkError, WireMessage};
use gradmesh_actors::presence::WordId;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::spawn_local;

use super::REQUESTS_MAX;
use super::asked::Asked;
use super::dialer::Dialer;
use super::line::Line;
use super::pending::Waiting;
use crate::transport::Transport;
use crate::wire::{Class, Frame, Hello, Target, encode};

/// A node to call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its name in the configuration; the handshake checks it.
    pub node: String,
    pub address: SocketAddr,
}

/// When a link calls again, and when it gives a silent node up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkPolicy {
    /// A link over which no request went or nothing came for so long asks for a sign of life. Less
    /// than half of a router's patience with silent callers, [`crate::router::SILENCE_MAX`].
    pub ping_every: Duration,
    /// A peer from which nothing came for so long counts as gone. Several `ping_every`, so that
    /// one lost turn of the scheduler is no failure.
    pub silence_max: Duration,
    /// From one call that failed to the next; doubles with each.
    pub backoff_min: Duration,
    pub backoff_max: Duration,
}

impl Default for LinkPolicy {
    /// A stopped process is noticed after 3 s, a node that restarts is called within 1 s.
    fn default() -> Self {
        Self {
            ping_every: Duration::from_secs(1),
            silence_max: Duration::from_secs(3),
            backoff_min: Duration::from_millis(50),
            backoff_max: Duration::from_secs(1),
        }
    }
}

/// How a link's last call ended, or the connection that it made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Nobody has been called.
    Uncalled,
    Connected,
    /// There was a connection.
    Broken,
    /// Nobody listens at the address: so many calls in a row ended so.
    Refused {
        calls: u64,
    },
    /// No answer, or not the peer's.
    Unreachable,
}

/// What the connection's task takes over.
pub(super) struct Outgoing {
    pub(super) frame: Frame,
    pub(super) waiting: Box<dyn Waiting>,
}

/// The calling side of the connection to one node; clones share the connection.
///
/// It connects when there is something to ask, and again after it broke. A request made while
/// there is no connection waits for the next attempt and fails with it. What breaks in between
/// fails with [`LinkError::Disconnected`]: whether it was handled is unknown.
#[derive(Clone)]
pub struct Link(Rc<Shared>);

struct Shared {
    node: Rc<str>,
    queue: mpsc::Sender<Outgoing>,
    reach: watch::Sender<Reach>,
    line: Rc<Line>,
    /// Held once here, and once by each request that is under way.
    places: Rc<()>,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("node", &self.0.node).finish_non_exhaustive()
    }
}

impl Link {
    /// Starts the connection's task on the current `LocalSet`; it ends with the last clone.
    ///
    /// `own`: how this node introduces itself.
    #[must_use]
    pub fn open(peer: Peer, own: Hello, transport: Rc<dyn Transport>, policy: LinkPolicy) -> Self {
        let (queue, requests) = mpsc::channel(REQUESTS_MAX);
        let node = peer.node.as_str().into();
        let line = Rc::default();
        let reach = watch::Sender::new(Reach::Uncalled);
        let told = reach.clone();
        let dialer = Dialer { peer, own, transport, policy, line: Rc::clone(&line), reach: told };
        spawn_local(dialer.run(requests));
        Self(Rc::new(Shared { node, queue, reach, line, places: Rc::default() }))
    }

    /// Shows how the link fares. While somebody watches, a link that has lost its connection calls
    /// again by itself, at once and then with the pauses of its [`LinkPolicy`].
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Reach> {
        self.0.reach.subscribe()
    }

    /// Says that this node lives and that this word of it is still so; where there is no connection, when
    /// there is one.
    pub fn beat(&self, word: WordId) {
        self.0.line.beat(word);
    }

    /// Changes whenever the other side wants to know who is on this node.
    #[must_use]
    pub fn roll_calls(&self) -> watch::Receiver<()> {
        self.0.line.roll_calls.subscribe()
    }

    /// Name of the node at the other end.
    #[must_use]
    pub fn node(&self) -> &str {
        &self.0.node
    }

    /// Asks `target` on the node. Sent when this is called, so that requests to one target arrive
    /// in the order of the calls; dropping the future forgets the answer.
    ///
    /// # Errors
    /// The actor's refusal; a [`LinkError`] in the refusal's form where no answer came.
    pub fn request<M: WireMessage>(
        &self,
        target: Target,
        message: M,
    ) -> impl Future<Output = Result<M::Reply, M::Refusal>> + use<M> {
        let (sender, answer) = oneshot::channel();
        self.ask(target, &message, Some(sender));
        async move { answer.await.unwrap_or_else(|_| Err(LinkError::Closed.into())) }
    }

    /// The same, with the answer to `sender`; `None` where nobody waits for it.
    pub(super) fn ask<M: WireMessage>(
        &self,
        target: Target,
        message: &M,
        sender: Option<oneshot::Sender<M::Result>>,
    ) {
        let Shared { node, queue, .. } = &*self.0;
        let place = self.place();
        let asked = Asked::<M>::new(node, queue, place.clone(), sender);
        let framed = match place {
            Some(_) => self.frame(target, message),
            None => Err(self.busy()),
        };
        let waiting: Box<dyn Waiting> = Box::new(asked);
        match framed {
            Err(error) => waiting.answer(Err(error)),
            Ok(frame) => self.send(Outgoing { frame, waiting }),
        }
    }

    /// At once, where the connection's task has nothing else to write.
    fn send(&self, request: Outgoing) {
        let Shared { queue, line, .. } = &*self.0;
        // Where the task is gone, nobody would read the answer.
        let is_first = !queue.is_closed() && queue.capacity() == queue.max_capacity();
        let sent = if is_first { line.send_now(request) } else { Err(request) };
        match sent.or_else(|request| queue.try_send(request)) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(unsent)) => {
                unsent.waiting.answer(Err(self.busy()));
            }
            // Dropped, it says that this node shuts down.
            Err(mpsc::error::TrySendError::Closed(_)) => {}
        }
    }

    /// Room for one more request, if need be that of those who have given up; while a call is going
    /// on, they count until it has succeeded or failed.
    fn place(&self) -> Option<Rc<()>> {
        let Shared { places, line, .. } = &*self.0;
        let is_full = || Rc::strong_count(places) > REQUESTS_MAX;
        if is_full() {
            line.pending.borrow_mut().forget_given_up();
        }
        (!is_full()).then(|| Rc::clone(places))
    }

    fn frame<M: WireMessage>(&self, target: Target, message: &M) -> Result<Frame, LinkError> {
        let protocol = |cause: String| LinkError::Protocol { node: self.node().to_owned(), cause };
        let (meta, bodies) = encode(message).map_err(|error| protocol(error.to_string()))?;
        let frame =
            Frame { class: Class::Request, kind: M::KIND, request: 0, target, meta, bodies };
        frame.check().map_err(|error| protocol(error.to_string()))?;
        Ok(frame)
    }

    fn busy(&self) -> LinkError {
        LinkError::Busy { node: self.node().to_owned(), waiting: REQUESTS_MAX }
    }
}
