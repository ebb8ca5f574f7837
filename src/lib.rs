//! What makes the actors of gradmesh a cluster, and the service in front of them.

pub mod config;
pub mod curve;
pub mod data;
pub mod metrics;
pub mod node;
pub mod peer;
pub mod progress;
pub mod router;
pub mod service;
pub mod store;
pub mod supervisor;
pub mod transport;
pub mod wire;
