//! The remote side of a `Recipient<M>`: an actor here that stands for one on another node.

mod any_of;
mod asked;
mod dialer;
mod line;
mod link;
mod pending;
mod proxy;
mod session;

pub use any_of::{AnyAnswer, AnyOf, Standing};
pub use link::{Link, LinkPolicy, Peer, Reach};
pub use proxy::{Forward, Proxy};

/// Requests whose senders wait for one node. A node asks another for one thing per pair of a shard
/// there and a worker here; sixteen of each fit, and their values are shared, not copied, while
/// they wait.
pub const REQUESTS_MAX: usize = 256;
