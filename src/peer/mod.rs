//! The remote side of a `Recipient<M>`: an actor here that stands for one on another node.

mod dialer;
mod link;
mod pending;
mod proxy;
mod session;

pub use link::{Link, LinkPolicy, Peer};
pub use proxy::{Answer, Proxy};

/// Requests under way to one node, also what its router takes from one connection. A node asks
/// another for a few things per shard and worker that it runs; sixteen of each fit, and their
/// values are shared, not copied, while they wait.
pub const REQUESTS_MAX: usize = 256;
