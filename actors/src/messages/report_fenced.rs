//! ParameterServer → Coordinator: this primary was refused, another one has taken its place.

use serde::{Deserialize, Serialize};

use super::link::{WireMessage, WirePart};
use super::report_shard::ReportError;
use crate::ids::{ShardCopy, View};

/// For the feed of events only: by then nothing of what this primary does counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, actix::Message, Serialize, Deserialize)]
#[rtype(result = "Result<(), ReportError>")]
pub struct ReportFenced {
    pub copy: ShardCopy,
    /// The view in which it took itself for the primary.
    pub view: View,
    /// The view of the copy that refused its step.
    pub by: View,
}

impl WireMessage for ReportFenced {
    const KIND: u16 = 0x0118;
    type Reply = ();
    type Refusal = ReportError;
}

impl WirePart for ReportFenced {}
