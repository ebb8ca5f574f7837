//! The vocabulary of the cluster: one message a file, request, reply and refusal together.

mod link;

pub use link::{Body, BodyError, LinkError, Values, WireMessage, WirePart, ask};
