//! The coordinator's own node → Coordinator, local: nobody listens at another node's address.

/// A call to the node was refused. Not a proof: a firewall can refuse too.
#[derive(Clone, Debug, PartialEq, Eq, actix::Message)]
#[rtype(result = "()")]
pub struct NodeRefused {
    pub node: String,
}
