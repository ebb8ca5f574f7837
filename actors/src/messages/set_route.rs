//! Operator → ModelRegistry: how requests that name no version are split. Predictor →
//! ModelRegistry: how they are.

use serde::{Deserialize, Serialize};

use crate::messages::{ChangeError, FindError, WireMessage, WirePart};
use crate::route::Route;

/// Asks that a model's requests be split like this from now on, or go to the newest version again.
///
/// Safe to repeat, and no log entry is made where that is so already.
#[derive(Clone, Debug, actix::Message, Serialize, Deserialize)]
#[rtype(result = "Result<(), ChangeError>")]
pub struct SetRoute {
    pub model: String,
    /// Each version that it names exists.
    pub route: Option<Route>,
}

/// Asks how a model's requests are split.
#[derive(Clone, Debug, actix::Message, Serialize, Deserialize)]
#[rtype(result = "Result<FoundRoute, FindError>")]
pub struct FindRoute {
    pub model: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundRoute {
    /// `None`: they go to the newest version.
    pub route: Option<Route>,
}

impl WirePart for SetRoute {}
impl WirePart for FindRoute {}
impl WirePart for FoundRoute {}

impl WireMessage for SetRoute {
    const KIND: u16 = 0x0207;
    type Reply = ();
    type Refusal = ChangeError;
}

impl WireMessage for FindRoute {
    const KIND: u16 = 0x0208;
    type Reply = FoundRoute;
    type Refusal = FindError;
}
