//! Anyone → ModelRegistry: which version does this name mean?

use serde::{Deserialize, Serialize};

use crate::messages::{FindError, WireMessage, WirePart};
use crate::version::{VersionDescription, VersionRef};

/// Asks for the description of one version. Its tensors come with
/// [`FetchModel`](crate::messages::FetchModel).
#[derive(Clone, Debug, actix::Message, Serialize, Deserialize)]
#[rtype(result = "Result<VersionDescription, FindError>")]
pub struct FindModel {
    pub model: String,
    pub version: VersionRef,
}

impl WirePart for FindModel {}

impl WireMessage for FindModel {
    const KIND: u16 = 0x0201;
    type Reply = VersionDescription;
    type Refusal = FindError;
}

impl WirePart for VersionDescription {}
