//! Requests that wait for their answers.

use std::collections::VecDeque;

use gradmesh_actors::messages::LinkError;

use super::REQUESTS_MAX;
use crate::wire::Frame;

/// Whoever sent a request, whatever its type.
pub(super) trait Waiting {
    fn has_given_up(&self) -> bool;
    fn answer(self: Box<Self>, answer: Result<Frame, LinkError>);
}

/// At most [`REQUESTS_MAX`] whose senders wait, and as many whose senders have given up.
#[derive(Default)]
pub(super) struct Pending {
    last_id: u64,
    /// In the order of their ids.
    waiting: VecDeque<(u64, Box<dyn Waiting>)>,
}

impl Pending {
    /// The id under which the request is to be sent: not 0, never used before on this connection.
    pub(super) fn insert(&mut self, waiting: Box<dyn Waiting>) -> u64 {
        if self.waiting.len() >= 2 * REQUESTS_MAX {
            self.forget_given_up();
        }
        self.last_id += 1;
        self.waiting.push_back((self.last_id, waiting));
        self.last_id
    }

    /// Who waits for the answer to a request; `None` where nobody does any more.
    pub(super) fn take(&mut self, request: u64) -> Option<Box<dyn Waiting>> {
        let at = self.waiting.binary_search_by_key(&request, |(id, _)| *id).ok()?;
        self.waiting.remove(at).map(|(_, waiting)| waiting)
    }

    pub(super) fn forget_given_up(&mut self) {
        self.waiting.retain(|(_, waiting)| !waiting.has_given_up());
    }

    /// All who wait; the next connection counts from 1 again.
    pub(super) fn take_all(&mut self) -> impl Iterator<Item = Box<dyn Waiting>> + use<> {
        std::mem::take(self).waiting.into_iter().map(|(_, waiting)| waiting)
    }
}
