//! Predictor → ModelRegistry: give me the tensors of a version.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::tensors::{bodies_of, take_all};
use crate::messages::{Body, BodyError, FindError, Values, WireMessage, WirePart};
use crate::version::{TensorShape, VersionDescription, VersionRef};

/// Asks for a version and its tensors, checked against the digest of their file.
#[derive(Clone, Debug, actix::Message, Serialize, Deserialize)]
#[rtype(result = "Result<FetchedModel, FindError>")]
pub struct FetchModel {
    pub model: String,
    pub version: VersionRef,
}

impl WirePart for FetchModel {}

impl WireMessage for FetchModel {
    const KIND: u16 = 0x0202;
    type Reply = FetchedModel;
    type Refusal = FindError;
}

/// A published version, complete.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FetchedModel {
    pub description: VersionDescription,
    /// In the order of `description.tensors`, row-major.
    #[serde(skip)]
    pub tensors: Vec<Values>,
    /// Of a model that was imported, where `description.signature` is.
    #[serde(skip)]
    pub file: Option<Bytes>,
}

impl WirePart for FetchedModel {
    fn bodies(&self) -> Vec<Body> {
        bodies_of(&self.tensors, self.file.as_ref())
    }

    fn attach(&mut self, bodies: Vec<Body>) -> Result<(), BodyError> {
        let lens = self.description.tensors.iter().map(TensorShape::len);
        (self.tensors, self.file) = take_all(bodies, lens, self.description.signature.is_some())?;
        Ok(())
    }
}
