//! Operator → ModelRegistry: let a name mean this version from now on.

use serde::{Deserialize, Serialize};

use crate::messages::{ChangeError, WireMessage, WirePart};
use crate::version::VersionRef;

/// Asks that `alias` name the version that `version` means now. It does not follow `version`
/// later: `latest` and other aliases are resolved once.
///
/// Safe to repeat, and no log entry is made where the alias names that version already.
#[derive(Clone, Debug, actix::Message, Serialize, Deserialize)]
#[rtype(result = "Result<AliasSet, ChangeError>")]
pub struct SetAlias {
    pub model: String,
    /// Keeps the rule of [`check_alias`](crate::version::check_alias).
    pub alias: String,
    pub version: VersionRef,
}

impl WirePart for SetAlias {}

impl WireMessage for SetAlias {
    const KIND: u16 = 0x0204;
    type Reply = AliasSet;
    type Refusal = ChangeError;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AliasSet {
    pub version: u64,
}

impl WirePart for AliasSet {}
