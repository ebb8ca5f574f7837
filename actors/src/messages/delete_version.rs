//! Operator → ModelRegistry: this version is served no more.

use serde::{Deserialize, Serialize};

use crate::messages::{ChangeError, WireMessage, WirePart};

/// Asks that a version be deleted, together with its tensors. Its number is never given again.
///
/// Safe to repeat: a version that was deleted before is no error.
#[derive(Clone, Debug, actix::Message, Serialize, Deserialize)]
#[rtype(result = "Result<(), ChangeError>")]
pub struct DeleteVersion {
    pub model: String,
    pub version: u64,
}

impl WirePart for DeleteVersion {}

impl WireMessage for DeleteVersion {
    const KIND: u16 = 0x0206;
    type Reply = ();
    type Refusal = ChangeError;
}
