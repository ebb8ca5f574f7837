//! Newtypes for the numbers that the cluster speaks of, so that two of them can't be swapped.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty), $prefix:literal) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }
    };
}

id!(
    /// One contiguous range of the flat parameter space; the first is 0.
    ShardId(u32),
    "shard-"
);
id!(
    /// One node with the role server, in the order of `[[nodes]]`; the first is 0.
    ServerId(u32),
    "server-"
);
id!(
    /// One node with the role coordinator, in the order of `[[nodes]]`; the first is 0.
    CoordinatorId(u32),
    "coordinator-"
);
id!(
    /// One Worker actor of the cluster; the first is 0.
    WorkerId(u32),
    "worker-"
);
id!(
    /// A virtual worker: one part of a step's batch. Fixed by the job, leased to real workers.
    Slot(u32),
    "slot "
);
id!(
    /// How many updates the parameters have seen. Step `t` computes on version `t` and makes
    /// version `t + 1`, so one number names both.
    Version(u64),
    "version "
);
id!(
    /// Counts assignments of shards and slots; only the coordinator raises it.
    View(u64),
    "view "
);
id!(
    /// Counts leaderships of the coordination store: whoever leads next has the next one.
    Term(u64),
    "term "
);
id!(
    /// Distinguishes the lives of one actor: a restarted one has a higher number.
    Incarnation(u64),
    "incarnation "
);

/// One server's copy of a shard, whatever it is there for.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct ShardCopy {
    pub shard: ShardId,
    pub server: ServerId,
}

impl fmt::Display for ShardCopy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on {}", self.shard, self.server)
    }
}

impl Version {
    /// The version that the step on this one makes.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// Whether `later` is the version after this one. For numbers of peers, which may be any.
    pub fn comes_before(self, later: Self) -> bool {
        self.0.checked_add(1) == Some(later.0)
    }
}

impl View {
    /// The view after this one; `None` after the last, which only a file can name.
    pub fn next(self) -> Option<Self> {
        self.0.checked_add(1).map(Self)
    }
}

impl Term {
    /// The term after this one; `None` after the last, which only a store can name.
    pub fn next(self) -> Option<Self> {
        self.0.checked_add(1).map(Self)
    }
}
