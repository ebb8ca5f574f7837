//! gradmesh: what makes actors a cluster.

pub mod config;
pub mod data;
pub mod peer;
pub mod router;
pub mod supervisor;
pub mod transport;
pub mod wire;
