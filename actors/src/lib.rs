//! The actors of gradmesh, the messages they exchange, and the pure rules that decide for them.

pub mod catalog;
pub mod codec;
pub mod dataset;
pub mod ids;
pub mod job;
pub mod layout;
pub mod messages;
pub mod model;
pub mod model_registry;
pub mod new_version;
pub mod predictor;
mod recent;
mod registry_log;
pub mod serving;
pub mod version;
