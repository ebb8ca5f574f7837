//! Worker → ParameterServer: a version of one shard, for a worker that has none.

use serde::{Deserialize, Serialize};

use super::link::{Body, BodyError, LinkError, Values, WireMessage, WirePart};
use super::push_gradient::one_tensor;
use crate::ids::{ShardId, Version, View};

/// Asks for the shard's parameters at `version`, or at its newest one.
#[derive(Clone, Debug, PartialEq, Eq, actix::Message, Serialize, Deserialize)]
#[rtype(result = "Result<Parameters, PullError>")]
pub struct PullParameters {
    pub view: View,
    pub shard: ShardId,
    /// A shard keeps its newest version and the one before.
    pub version: Option<Version>,
}

/// A shard's parameters at one version.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Parameters {
    pub version: Version,
    #[serde(skip)]
    pub values: Values,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum PullError {
    /// Wait for a new lease.
    #[error("pull of {got} refused, the shard is in {current}")]
    StaleView { got: View, current: View },
    /// Try again.
    #[error("{0} has not been restored yet")]
    NotReady(ShardId),
    #[error("pull for {got} reached {expected}")]
    WrongShard { expected: ShardId, got: ShardId },
    /// Ask all shards for their newest versions again.
    #[error("{wanted} is gone or not there yet, the shard is at {version}")]
    OutOfWindow { wanted: Version, version: Version },
    #[error(transparent)]
    Link(#[from] LinkError),
}

impl WireMessage for PullParameters {
    const KIND: u16 = 0x0102;
    type Reply = Parameters;
    type Refusal = PullError;
}

impl WirePart for PullParameters {
    const POSITIONAL: bool = true;
}
impl WirePart for PullError {}

impl WirePart for Parameters {
    const POSITIONAL: bool = true;

    fn bodies(&self) -> Vec<Body> {
        vec![Body::F32(Values::clone(&self.values))]
    }

    fn attach(&mut self, bodies: Vec<Body>) -> Result<(), BodyError> {
        self.values = one_tensor(bodies)?;
        Ok(())
    }
}
