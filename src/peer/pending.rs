//! Requests that wait for their answers.

use std::collections::BTreeMap;

use gradmesh_actors::messages::LinkError;
use tokio::sync::oneshot;

use super::REQUESTS_MAX;
use crate::wire::Frame;

type Answer = oneshot::Sender<Result<Frame, LinkError>>;

/// At most [`REQUESTS_MAX`] whose senders wait, and as many whose senders have given up.
#[derive(Debug, Default)]
pub(super) struct Pending {
    last_id: u64,
    waiting: BTreeMap<u64, Answer>,
}

impl Pending {
    /// The id under which the request is to be sent: not 0, never used before on this connection.
    pub(super) fn insert(&mut self, answer: Answer) -> u64 {
        if self.waiting.len() >= 2 * REQUESTS_MAX {
            self.forget_given_up();
        }
        self.last_id += 1;
        self.waiting.insert(self.last_id, answer);
        self.last_id
    }

    /// Wakes the sender of the request that `frame` answers; nothing where it has given up.
    pub(super) fn answer(&mut self, frame: Frame) {
        if let Some(answer) = self.waiting.remove(&frame.request) {
            let _ = answer.send(Ok(frame));
        }
    }

    pub(super) fn forget_given_up(&mut self) {
        self.waiting.retain(|_, answer| !answer.is_closed());
    }

    pub(super) fn fail_all(&mut self, error: &LinkError) {
        for answer in std::mem::take(&mut self.waiting).into_values() {
            let _ = answer.send(Err(error.clone()));
        }
    }
}
