//! Worker → Coordinator: how long its computations took.

use serde::{Deserialize, Serialize};

use super::link::{WireMessage, WirePart};
use super::report_shard::ReportError;
use crate::ids::WorkerId;

/// What a worker has measured since its last report, about each second. A sample: one that is lost
/// is not sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, actix::Message, Serialize, Deserialize)]
#[rtype(result = "Result<(), ReportError>")]
pub struct ReportSpeed {
    pub worker: WorkerId,
    pub pace: Pace,
}

/// Steps, and the time that they took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pace {
    pub steps: u32,
    /// Slots that were computed in all these steps.
    pub slots: u32,
    /// Of these computations, in nanoseconds.
    pub computing_ns: u64,
    /// Of the steps from their beginnings to their ends: with the time for which shards and slower
    /// workers are waited for.
    pub passed_ns: u64,
}

impl WireMessage for ReportSpeed {
    const KIND: u16 = 0x0119;
    type Reply = ();
    type Refusal = ReportError;
}

impl WirePart for ReportSpeed {}
