//! A request of one type, and who waits for its answer.

use std::rc::Rc;

use gradmesh_actors::messages::{LinkError, WireMessage};
use tokio::sync::{mpsc, oneshot};

use super::link::Outgoing;
use super::pending::Waiting;
use crate::wire::{Class, Fault, Frame, decode};

/// Answers its sender however it ends.
pub(super) struct Asked<M: WireMessage> {
    node: Rc<str>,
    /// `None` where nobody waits: the sending is what counts.
    sender: Option<oneshot::Sender<M::Result>>,
    /// Keeps the connection up until the answer is there.
    _queue: mpsc::Sender<Outgoing>,
    _place: Option<Rc<()>>,
}

impl<M: WireMessage> Asked<M> {
    pub(super) fn new(
        node: &Rc<str>,
        queue: &mpsc::Sender<Outgoing>,
        place: Option<Rc<()>>,
        sender: Option<oneshot::Sender<M::Result>>,
    ) -> Self {
        Self { node: Rc::clone(node), sender, _queue: queue.clone(), _place: place }
    }

    fn read(&self, frame: Frame) -> M::Result {
        let unreadable = |error: crate::wire::MessageError| LinkError::Protocol {
            node: self.node.to_string(),
            cause: error.to_string(),
        };
        match frame.class {
            Class::Reply => Ok(decode(&frame.meta, frame.bodies).map_err(unreadable)?),
            Class::Refusal => {
                let refusal: M::Refusal = decode(&frame.meta, frame.bodies).map_err(unreadable)?;
                Err(refusal)
            }
            _ => Err(Fault::from_frame(frame).into_link_error(&self.node).into()),
        }
    }
}

impl<M: WireMessage> Waiting for Asked<M> {
    fn has_given_up(&self) -> bool {
        self.sender.as_ref().is_some_and(oneshot::Sender::is_closed)
    }

    fn answer(mut self: Box<Self>, answer: Result<Frame, LinkError>) {
        if let Some(sender) = self.sender.take() {
            // One that has given up needs no answer.
            let _ =
                sender.send(answer.map_err(M::Refusal::from).and_then(|frame| self.read(frame)));
        }
    }
}

impl<M: WireMessage> Drop for Asked<M> {
    fn drop(&mut self) {
        if let Some(sender) = self.sender.take() {
            let cause = "this node shuts down".to_owned();
            let error = LinkError::Disconnected { node: self.node.to_string(), cause };
            let _ = sender.send(Err(error.into()));
        }
    }
}
