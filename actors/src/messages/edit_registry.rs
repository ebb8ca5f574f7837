//! Operator → ModelRegistry: a model or a version is described, tagged, registered or deleted.

use serde::{Deserialize, Serialize};

use crate::catalog::Edit;
use crate::messages::{ChangeError, WireMessage, WirePart};

/// Asks for one change of what people write.
///
/// Safe to repeat, and no log entry is made for what is so already.
#[derive(Clone, Debug, actix::Message, Serialize, Deserialize)]
#[rtype(result = "Result<Edited, ChangeError>")]
pub struct EditRegistry {
    pub edit: Edit,
    /// When it was asked for.
    pub at_unix_ms: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Edited {
    /// The version that the edit is of, if it is of one.
    pub version: Option<u64>,
}

impl WirePart for EditRegistry {}
impl WirePart for Edited {}

impl WireMessage for EditRegistry {
    const KIND: u16 = 0x0209;
    type Reply = Edited;
    type Refusal = ChangeError;
}
