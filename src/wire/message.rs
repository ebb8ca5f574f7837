//! Messages to frames and back: the typed part as MessagePack, bulk data beside it.

use gradmesh_actors::messages::{Body, BodyError, WirePart};
use rmp_serde::decode::Error;
use serde::Deserialize;

/// Nesting of a typed part: our messages have single digits; a bomb of nested arrays ends here.
const DEPTH_MAX: usize = 64;
/// Room for most typed parts; a longer one grows.
const USUAL_BYTES: usize = 512;

/// Why a message can't be made from a frame, or a frame from a message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    #[error("the typed part can't be encoded: {cause}")]
    Encode { cause: String },
    #[error("the typed part can't be read: {cause}")]
    Decode { cause: String },
    #[error("there are bytes after the end of the typed part")]
    Trailing,
    #[error(transparent)]
    Bodies(#[from] BodyError),
}

/// The typed part and the bodies of a message.
///
/// Fields are encoded by name: a message whose fields two releases order or skip differently is
/// refused or understood, never read shifted. Not those of [`WirePart::POSITIONAL`] types, for which
/// names are half of the work and of the bytes; two releases that order these differently have other versions
/// of the [protocol](super::PROTOCOL), so that they don't shake hands.
///
/// # Errors
/// [`MessageError::Encode`]: the type has no MessagePack form.
pub fn encode<P: WirePart>(part: &P) -> Result<(Vec<u8>, Vec<Body>), MessageError> {
    let mut meta = Vec::with_capacity(USUAL_BYTES);
    let mut serializer = rmp_serde::Serializer::new(&mut meta);
    let written = match P::POSITIONAL {
        true => part.serialize(&mut serializer),
        false => part.serialize(&mut serializer.with_struct_map()),
    };
    written.map_err(|error| MessageError::Encode { cause: error.to_string() })?;
    Ok((meta, part.bodies()))
}

/// A message from what [`encode`] made of it.
///
/// # Errors
/// The bytes are not exactly one `P`, or the bodies are not the ones that it announces.
pub fn decode<P: WirePart>(meta: &[u8], bodies: Vec<Body>) -> Result<P, MessageError> {
    let mut deserializer = rmp_serde::Deserializer::from_read_ref(meta);
    deserializer.set_max_depth(DEPTH_MAX);
    let mut part: P = P::deserialize(&mut deserializer)
        .map_err(|error| MessageError::Decode { cause: error.to_string() })?;
    // A reader of borrowed bytes, which copies no field's name, doesn't tell how many are left. This one
    // reads one marker and nothing behind it, which fails where there is none.
    if !matches!(<()>::deserialize(&mut deserializer), Err(Error::InvalidMarkerRead(_))) {
        return Err(MessageError::Trailing);
    }
    part.attach(bodies)?;
    Ok(part)
}
