//! The coordinator's own node → Coordinator, local: whether another node has a connection to this one.

/// The first connection of the node stands, or its last one has ended. Not a proof of anything: networks
/// end connections too.
#[derive(Clone, Debug, PartialEq, Eq, actix::Message)]
#[rtype(result = "()")]
pub struct NodeConnected {
    pub node: String,
    pub connected: bool,
}
