//! Coordinator → ModelRegistry: publish what a run trained.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::tensors::{bodies_of, take_all};
use crate::messages::{Body, BodyError, ChangeError, Values, WireMessage, WirePart};
use crate::new_version::NewVersion;
use crate::version::TensorShape;

/// Asks for a version with these tensors.
///
/// Safe to repeat: a run is published once, and a repetition is answered with the version that it
/// has.
#[derive(Clone, Debug, actix::Message, Serialize, Deserialize)]
#[rtype(result = "Result<Published, ChangeError>")]
pub struct PublishModel {
    pub description: NewVersion,
    /// In the order of `description.tensors`, row-major.
    #[serde(skip)]
    pub tensors: Vec<Values>,
    /// Of a model that is imported, where `description.signature` is.
    #[serde(skip)]
    pub file: Option<Bytes>,
}

impl WirePart for PublishModel {
    fn bodies(&self) -> Vec<Body> {
        bodies_of(&self.tensors, self.file.as_ref())
    }

    fn attach(&mut self, bodies: Vec<Body>) -> Result<(), BodyError> {
        let lens = self.description.tensors.iter().map(TensorShape::len);
        (self.tensors, self.file) = take_all(bodies, lens, self.description.signature.is_some())?;
        Ok(())
    }
}

impl WireMessage for PublishModel {
    const KIND: u16 = 0x0200;
    type Reply = Published;
    type Refusal = ChangeError;
}

/// The run is published, durably.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    pub version: u64,
    /// Whether it had been before this message.
    pub already: bool,
}

impl WirePart for Published {}
