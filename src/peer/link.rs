//! The handle with which a node asks another one.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use gradmesh_actors::messages::{LinkError, WireMessage};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::spawn_local;

use super::REQUESTS_MAX;
use super::dialer::Dialer;
use crate::transport::Transport;
use crate::wire::{Class, Fault, Frame, Hello, Target, decode, encode};

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
    /// Shorter than a router's patience with silent callers, [`crate::router::SILENCE_MAX`].
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

/// What the connection's task takes over.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) frame: Frame,
    pub(super) answer: oneshot::Sender<Result<Frame, LinkError>>,
}

/// The calling side of the connection to one node; clones share the connection.
///
/// It connects when there is something to ask, and again after it broke. A request made while
/// there is no connection waits for the next attempt and fails with it. What breaks in between
/// fails with [`LinkError::Disconnected`]: whether it was handled is unknown.
#[derive(Clone, Debug)]
pub struct Link {
    node: Arc<str>,
    queue: mpsc::Sender<Outgoing>,
    under_way: Arc<Semaphore>,
}

impl Link {
    /// Starts the connection's task on the current `LocalSet`; it ends with the last clone.
    ///
    /// `own`: how this node introduces itself.
    #[must_use]
    pub fn open(peer: Peer, own: Hello, transport: Rc<dyn Transport>, policy: LinkPolicy) -> Self {
        let (queue, requests) = mpsc::channel(REQUESTS_MAX);
        let node = peer.node.as_str().into();
        spawn_local(Dialer { peer, own, transport, policy }.run(requests));
        Self { node, queue, under_way: Arc::new(Semaphore::new(REQUESTS_MAX)) }
    }

    /// Name of the node at the other end.
    #[must_use]
    pub fn node(&self) -> &str {
        &self.node
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
        let sent = self.send(target, M::KIND, &message);
        // The clone keeps the connection up until the answer is there.
        let link = self.clone();
        async move {
            let (answer, _permit) = sent?;
            let frame = match answer.await {
                Ok(frame) => frame?,
                Err(_) => return Err(link.shut_down().into()),
            };
            link.read_answer::<M>(frame)
        }
    }

    fn send<M: WireMessage>(
        &self,
        target: Target,
        kind: u16,
        message: &M,
    ) -> Result<(oneshot::Receiver<Result<Frame, LinkError>>, OwnedSemaphorePermit), LinkError>
    {
        let permit = Arc::clone(&self.under_way).try_acquire_owned().map_err(|_| self.busy())?;
        let (meta, bodies) = encode(message).map_err(|error| self.protocol(&error))?;
        let frame = Frame { class: Class::Request, kind, request: 0, target, meta, bodies };
        frame.check().map_err(|error| self.protocol(&error))?;
        let (answer, answered) = oneshot::channel();
        self.queue.try_send(Outgoing { frame, answer }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => self.busy(),
            mpsc::error::TrySendError::Closed(_) => self.shut_down(),
        })?;
        Ok((answered, permit))
    }

    fn read_answer<M: WireMessage>(&self, frame: Frame) -> Result<M::Reply, M::Refusal> {
        let unreadable = |error| self.protocol(&error);
        match frame.class {
            Class::Reply => Ok(decode(&frame.meta, frame.bodies).map_err(unreadable)?),
            Class::Refusal => {
                let refusal: M::Refusal = decode(&frame.meta, frame.bodies).map_err(unreadable)?;
                Err(refusal)
            }
            _ => Err(Fault::from_frame(frame).into_link_error(&self.node).into()),
        }
    }

    fn busy(&self) -> LinkError {
        LinkError::Busy { node: self.node.to_string(), waiting: REQUESTS_MAX }
    }

    fn protocol(&self, error: &dyn std::error::Error) -> LinkError {
        LinkError::Protocol { node: self.node.to_string(), cause: error.to_string() }
    }

    fn shut_down(&self) -> LinkError {
        let cause = "this node shuts down".to_owned();
        LinkError::Disconnected { node: self.node.to_string(), cause }
    }
}
