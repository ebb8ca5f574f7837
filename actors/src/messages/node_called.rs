//! The coordinator's own node → Coordinator, local: what became of calls to another node's address.

/// The link to the node has called it.
#[derive(Clone, Debug, PartialEq, Eq, actix::Message)]
#[rtype(result = "()")]
pub struct NodeCalled {
    pub node: String,
    /// Calls in a row that were refused; 0 where the last one was answered. Not a proof: a firewall can
    /// refuse too.
    pub refused: u64,
}
