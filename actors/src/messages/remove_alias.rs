//! Operator → ModelRegistry: let a name mean nothing any more.

use serde::{Deserialize, Serialize};

use crate::messages::{ChangeError, WireMessage, WirePart};

/// Asks that `alias` name no version. Safe to repeat: an alias that does not exist is no error, a
/// model that does not exist is.
#[derive(Clone, Debug, actix::Message, Serialize, Deserialize)]
#[rtype(result = "Result<(), ChangeError>")]
pub struct RemoveAlias {
    pub model: String,
    pub alias: String,
}

impl WirePart for RemoveAlias {}

impl WireMessage for RemoveAlias {
    const KIND: u16 = 0x0205;
    type Reply = ();
    type Refusal = ChangeError;
}
