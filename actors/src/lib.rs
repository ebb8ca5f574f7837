//! The actors of gradmesh, the messages they exchange, and the pure rules that decide for them.

pub mod codec;
pub mod dataset;
pub mod ids;
pub mod job;
pub mod layout;
pub mod messages;
pub mod model;
pub mod restart;
