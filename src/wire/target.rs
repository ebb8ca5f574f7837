//! Who on a node a frame is for.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What kind of actor a frame is for. The numbers are part of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum Role {
    Coordinator = 1,
    ParameterServer = 2,
    Worker = 3,
    Registry = 4,
    Predictor = 5,
    /// The node itself: status and shutdown.
    Node = 6,
    /// An actor that an application has of its own.
    Own = 7,
}

impl Role {
    /// The role with this number on the wire.
    #[must_use]
    pub fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Coordinator,
            2 => Self::ParameterServer,
            3 => Self::Worker,
            4 => Self::Registry,
            5 => Self::Predictor,
            6 => Self::Node,
            7 => Self::Own,
            _ => return None,
        })
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Coordinator => "coordinator",
            Self::ParameterServer => "parameter-server",
            Self::Worker => "worker",
            Self::Registry => "registry",
            Self::Predictor => "predictor",
            Self::Node => "node",
            Self::Own => "own",
        })
    }
}

/// One actor of a node. An address never crosses the wire; this name does, and the router of the
/// receiving node resolves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Target {
    pub role: Role,
    /// Number of the actor among those of its role: its shard, worker or replica number.
    pub index: u32,
}

impl Target {
    /// What frames that concern the connection itself (hello, ping) carry.
    pub const NODE: Self = Self { role: Role::Node, index: 0 };

    #[must_use]
    pub fn new(role: Role, index: u32) -> Self {
        Self { role, index }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.role, self.index)
    }
}
