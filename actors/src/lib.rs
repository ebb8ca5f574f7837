//! The actors of gradmesh, the messages they exchange, and the pure rules that decide for them.

pub mod assignment;
pub mod checkpoint;
pub mod codec;
pub mod dataset;
pub mod ids;
pub mod job;
pub mod layout;
pub mod ledger;
pub mod membership;
pub mod messages;
pub mod model;
pub mod norm;
pub mod optimizer;
pub mod plan;
pub mod reduction;
pub mod restart;
pub mod schedule;
pub mod shard;
pub mod shuffle;
pub mod training;
