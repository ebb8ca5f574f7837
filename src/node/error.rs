//! Why a node didn't start, or its run didn't end well.

use std::net::SocketAddr;

use gradmesh_actors::model::ModelError;
use gradmesh_actors::plan::PlanError;

use crate::data::DataError;
#[cfg(feature = "grpc")]
use crate::service::GrpcError;
use crate::service::{KeysError, ServiceError};
use crate::store::StoreError;
use crate::store::coordination::PlaceError;

#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    #[error(
        "--name {name} names one of [[nodes]], and the configuration has none; leave --name out"
    )]
    NoNodes { name: String },
    #[error("the configuration has [[nodes]]; say which one this is with --name ({known})")]
    NameMissing { known: String },
    #[error("no node is called {name:?}; --name is one of {known}")]
    UnknownName { name: String, known: String },
    #[error("no node has the role {role}; add it to one of [[nodes]]")]
    RoleMissing { role: String },
    #[error(transparent)]
    Data(#[from] DataError),
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error(
        "with {shards} shards the longest has {longest} parameters, and what processes tell each other of a shard fits into a frame up to {most}; raise servers.shards to {needed} at least"
    )]
    ShardTooLong { longest: u64, most: u64, shards: usize, needed: u64 },
    #[error(
        "the description of the job takes {bytes} bytes for {features} features, and {most} fit into a frame; scale the data before, and set job.data.scale to \"none\""
    )]
    OfferTooLong { bytes: u64, features: usize, most: u64 },
    #[error(
        "the model has {parameters} parameters, and a frame between {node} and a registry has room for {most}; give {node} the role registry too, in [[nodes]]"
    )]
    ModelTooLong { parameters: u64, most: u64, node: String },
    #[error("{key}: {source}")]
    Store { key: &'static str, source: StoreError },
    #[error("coordination.store is the folder of checkpoint.store; give it one of its own")]
    OneStore,
    #[error(transparent)]
    Place(#[from] PlaceError),
    #[error(transparent)]
    Service(#[from] ServiceError),
    #[error(transparent)]
    Keys(#[from] KeysError),
    #[cfg(feature = "grpc")]
    #[error(transparent)]
    Grpc(#[from] GrpcError),
    #[error("can't listen on {address}: {source}; change the address of this node in [[nodes]]")]
    Listen { address: SocketAddr, source: std::io::Error },
    #[error("a thread of the node ended while it was starting")]
    Arbiter,
    #[error("this node has no coordinator; ask the one that has")]
    NoCoordinator,
    #[error("training failed: {cause}")]
    Training { cause: String },
}

impl NodeError {
    /// Of the store of a key of the configuration.
    pub fn store(key: &'static str) -> impl Fn(StoreError) -> Self {
        move |source| match source {
            StoreError::Coordination(place) => Self::Place(place),
            source => Self::Store { key, source },
        }
    }

    /// Whether the node ends like this again however often it is started: something has to be
    /// changed first. What is not lasting may pass, such as a port in use.
    pub fn is_lasting(&self) -> bool {
        match self {
            Self::NoNodes { .. }
            | Self::NameMissing { .. }
            | Self::UnknownName { .. }
            | Self::RoleMissing { .. }
            | Self::ShardTooLong { .. }
            | Self::OfferTooLong { .. }
            | Self::ModelTooLong { .. }
            | Self::Data(_)
            | Self::Model(_)
            | Self::Plan(_)
            | Self::Store {
                source: StoreError::Scheme { .. } | StoreError::FileUrl { .. }, ..
            }
            | Self::Place(_)
            | Self::OneStore
            | Self::NoCoordinator
            | Self::Keys(_)
            | Self::Training { .. } => true,
            Self::Store { .. } | Self::Service(_) | Self::Listen { .. } | Self::Arbiter => false,
            #[cfg(feature = "grpc")]
            Self::Grpc(_) => false,
        }
    }
}
