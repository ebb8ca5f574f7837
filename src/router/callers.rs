//! Which nodes have connections to this one.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use gradmesh_actors::messages::NodeConnected;
use gradmesh_actors::presence::{Presence, WordId};
use tokio::sync::mpsc;
use tokio::time::Instant;

/// News that whoever watches has yet to take: of all nodes of a large cluster at once. What is beyond it
/// is lost, and the next news of the same node is true again.
const NEWS_MAX: usize = 1024;

/// Connections of each node that calls this one.
#[derive(Debug, Default)]
pub(super) struct Callers {
    connections: RefCell<BTreeMap<String, usize>>,
    watching: RefCell<Option<mpsc::Sender<NodeConnected>>>,
    /// Of this node's coordinator, if it has one.
    presence: RefCell<Presence<Instant>>,
}

impl Callers {
    /// What becomes of callers from now on.
    pub(super) fn watch(&self) -> mpsc::Receiver<NodeConnected> {
        let (news, receiver) = mpsc::channel(NEWS_MAX);
        self.watching.replace(Some(news));
        receiver
    }

    /// Their beats go to this one from now on.
    pub(super) fn tell_beats(&self, presence: Presence<Instant>) {
        self.presence.replace(presence);
    }

    /// One more connection of the node, until this is dropped.
    pub(super) fn enter(self: &Rc<Self>, node: &str) -> Present {
        let mut connections = self.connections.borrow_mut();
        let count = connections.entry(node.to_owned()).or_default();
        *count += 1;
        if *count == 1 {
            self.tell(node, true);
        }
        Present { callers: Rc::clone(self), node: node.to_owned() }
    }

    fn leave(&self, node: &str) {
        let mut connections = self.connections.borrow_mut();
        let Some(count) = connections.get_mut(node) else { return };
        *count -= 1;
        if *count == 0 {
            connections.remove(node);
            self.tell(node, false);
        }
    }

    fn tell(&self, node: &str, connected: bool) {
        if let Some(news) = &*self.watching.borrow() {
            let _ = news.try_send(NodeConnected { node: node.to_owned(), connected });
        }
    }
}

/// A connection of a node.
pub(super) struct Present {
    callers: Rc<Callers>,
    node: String,
}

impl Present {
    /// A beat that stands for this word came at this time. Whether the node is to say who is there.
    pub(super) fn beat(&self, word: WordId, at: Instant) -> bool {
        self.callers.presence.borrow().beat(&self.node, word, at)
    }
}

impl Drop for Present {
    fn drop(&mut self) {
        self.callers.leave(&self.node);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_connection_of_a_node_and_the_end_of_its_last_one_are_told() {
        let callers = Rc::new(Callers::default());
        drop(callers.enter("before anybody watches"));
        let mut news = callers.watch();
        let (a, b, again) = (callers.enter("a"), callers.enter("b"), callers.enter("a"));
        drop((b, a));
        drop(again);
        let told: Vec<_> = std::iter::from_fn(|| news.try_recv().ok())
            .map(|NodeConnected { node, connected }| (node, connected))
            .collect();
        let expected = [("a", true), ("b", true), ("b", false), ("a", false)];
        assert_eq!(told, expected.map(|(node, connected)| (node.to_owned(), connected)));
        assert!(callers.connections.borrow().is_empty());
    }
}
