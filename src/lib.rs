//! What makes the actors of gradmesh a cluster, and the service in front of them.

pub mod store;
