//! The task behind a link: calls the node when there is something to ask, again after a break.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;

use gradmesh_actors::messages::LinkError;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{debug, info, warn};

use super::link::{LinkPolicy, Outgoing, Peer};
use super::pending::Pending;
use super::session::Session;
use crate::transport::{Connection, Transport};
use crate::wire::{HELLO_TIME_MAX, Hello, HelloError};

pub(super) struct Dialer {
    pub(super) peer: Peer,
    pub(super) own: Hello,
    pub(super) transport: Rc<dyn Transport>,
    pub(super) policy: LinkPolicy,
    pub(super) sent: Rc<RefCell<Pending>>,
}

impl Dialer {
    pub(super) async fn run(self, mut requests: mpsc::Receiver<Outgoing>) {
        let node = self.peer.node.as_str();
        let mut backoff = self.policy.backoff_min;
        let mut next_call = Instant::now();
        let mut last_logged = String::new();
        while let Some(first) = requests.recv().await {
            sleep_until(next_call).await;
            if first.waiting.has_given_up() {
                continue;
            }
            next_call = Instant::now() + backoff;
            match self.connect().await {
                Ok(session) => {
                    info!(node, address = %self.peer.address, "connected");
                    backoff = self.policy.backoff_min;
                    last_logged.clear();
                    let ended = session.run(first, &mut requests, &self.sent, &self.policy).await;
                    let Err(error) = ended else { return };
                    warn!(node, %error, "connection lost");
                }
                Err(error) => {
                    backoff = (backoff * 2).min(self.policy.backoff_max);
                    // One line for each cause, not for each attempt.
                    let text = error.to_string();
                    if text == last_logged {
                        debug!(node, %error, "can't connect");
                    } else {
                        warn!(node, address = %self.peer.address, %error, "can't connect");
                        last_logged = text;
                    }
                    first.waiting.answer(Err(error.clone()));
                    while let Ok(request) = requests.try_recv() {
                        request.waiting.answer(Err(error.clone()));
                    }
                }
            }
        }
    }

    async fn connect(&self) -> Result<Session, LinkError> {
        let address = self.peer.address;
        let connection = timeout(HELLO_TIME_MAX, self.transport.connect(address))
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            .map_err(|error| self.disconnected(error.to_string()))?;
        self.greet(connection).await.map_err(|error| {
            let cause = error.to_string();
            match error.is_mismatch() {
                true => LinkError::Protocol { node: self.peer.node.clone(), cause },
                false => self.disconnected(cause),
            }
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
