//! What makes the actors of gradmesh a cluster, and the service in front of them.

pub mod metrics;
pub mod service;
pub mod store;
