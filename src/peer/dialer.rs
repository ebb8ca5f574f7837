//! The task behind a link: calls the node when there is something to ask, again after a break.

use std::io;
use std::rc::Rc;

use gradmesh_actors::messages::LinkError;
use tokio::select;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{debug, info, warn};

use super::line::Line;
use super::link::{LinkPolicy, Outgoing, Peer, Reach};
use super::session::Session;
use crate::transport::{Connection, Transport};
use crate::wire::{HELLO_TIME_MAX, Hello, HelloError};

pub(super) struct Dialer {
    pub(super) peer: Peer,
    pub(super) own: Hello,
    pub(super) transport: Rc<dyn Transport>,
    pub(super) policy: LinkPolicy,
    pub(super) line: Rc<Line>,
    pub(super) reach: watch::Sender<Reach>,
}

/// Why a call came to nothing.
struct NotConnected {
    error: LinkError,
    refused: bool,
}

impl Dialer {
    pub(super) async fn run(self, mut requests: mpsc::Receiver<Outgoing>) {
        let node = self.peer.node.as_str();
        let mut backoff = self.policy.backoff_min;
        let mut next_call = Instant::now();
        let mut last_logged = String::new();
        while let Some(first) = self.reason_to_call(&mut requests, next_call).await {
            if first.as_ref().is_some_and(|first| first.waiting.has_given_up()) {
                continue;
            }
            next_call = Instant::now() + backoff;
            match self.connect().await {
                Ok(session) => {
                    info!(node, address = %self.peer.address, "connected");
                    self.reach.send_replace(Reach::Connected);
                    last_logged.clear();
                    let ended = session.run(first, &mut requests, &self.line, &self.policy).await;
                    let Err(error) = ended else { return };
                    warn!(node, %error, "connection lost");
                    // At once, if the connection has lasted: whether somebody listens is news.
                    backoff = self.policy.backoff_min;
                    self.reach.send_replace(Reach::Broken);
                }
                Err(NotConnected { error, refused }) => {
                    backoff = (backoff * 2).min(self.policy.backoff_max);
                    self.reach.send_modify(|reach| *reach = reach.after_failure(refused));
                    // One line for each cause, not for each attempt.
                    let text = error.to_string();
                    if text == last_logged {
                        debug!(node, %error, "can't connect");
                    } else {
                        warn!(node, address = %self.peer.address, %error, "can't connect");
                        last_logged = text;
                    }
                    first.into_iter().for_each(|first| first.waiting.answer(Err(error.clone())));
                    while let Ok(request) = requests.try_recv() {
                        request.waiting.answer(Err(error.clone()));
                    }
                }
            }
        }
    }

    /// Waits for something to ask, or, for those who watch, until a connection that was lost can be
    /// made again, which is `Some(None)`; and in any case until `next_call`. `None` at the end.
    async fn reason_to_call(
        &self,
        requests: &mut mpsc::Receiver<Outgoing>,
        next_call: Instant,
    ) -> Option<Option<Outgoing>> {
        let calls_by_itself =
            self.reach.receiver_count() > 0 && *self.reach.borrow() != Reach::Uncalled;
        let first = select! { biased;
            request = requests.recv() => request?,
            () = sleep_until(next_call), if calls_by_itself => return Some(None),
        };
        sleep_until(next_call).await;
        Some(Some(first))
    }

    async fn connect(&self) -> Result<Session, NotConnected> {
        let address = self.peer.address;
        let connection = timeout(HELLO_TIME_MAX, self.transport.connect(address))
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            .map_err(|error| NotConnected {
                refused: error.kind() == io::ErrorKind::ConnectionRefused,
                error: self.disconnected(error.to_string()),
            })?;
        self.greet(connection).await.map_err(|error| {
            let cause = error.to_string();
            let error = match error.is_mismatch() {
                true => LinkError::Protocol { node: self.peer.node.clone(), cause },
                false => self.disconnected(cause),
            };
            NotConnected { error, refused: false }
        })
    }

    async fn greet(&self, connection: Connection) -> Result<Session, HelloError> {
        let mut session = Session::new(&self.peer.node, connection);
        session.shake_hands(&self.own).await?;
        Ok(session)
    }

    fn disconnected(&self, cause: String) -> LinkError {
        LinkError::Disconnected { node: self.peer.node.clone(), cause }
    }
}

impl Reach {
    fn after_failure(self, refused: bool) -> Self {
        match self {
            _ if !refused => Self::Unreachable,
            Self::Refused { calls } => Self::Refused { calls: calls + 1 },
            _ => Self::Refused { calls: 1 },
        }
    }
}
