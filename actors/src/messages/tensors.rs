//! The bodies of a frame with a whole model: its tensors, and its file where it was imported.

use bytes::Bytes;

use crate::messages::{Body, BodyError, Values};

/// The values of each body, if they are as many and as long as `lens` says. A length of `None` is
/// a shape that no frame can hold.
pub(crate) fn take_f32(
    bodies: Vec<Body>,
    lens: impl ExactSizeIterator<Item = Option<usize>>,
) -> Result<Vec<Values>, BodyError> {
    if bodies.len() != lens.len() {
        let (expected, got) = (lens.len(), bodies.len());
        return Err(BodyError {
            expected: format!("{expected} bodies"),
            got: format!("{got} bodies"),
        });
    }
    let mut tensors = Vec::with_capacity(bodies.len());
    for (body, len) in bodies.into_iter().zip(lens) {
        match body {
            Body::F32(values) if Some(values.len()) == len => tensors.push(values),
            other => {
                let expected = len.map_or_else(|| "less than memory".to_owned(), |n| n.to_string());
                let kind = if matches!(other, Body::F32(_)) { "f32" } else { "plain" };
                return Err(BodyError {
                    expected: format!("a body of {expected} f32 values"),
                    got: format!("{} {kind} bytes", other.byte_len()),
                });
            }
        }
    }
    Ok(tensors)
}

pub(crate) fn bodies_of(tensors: &[Values], file: Option<&Bytes>) -> Vec<Body> {
    let tensors = tensors.iter().cloned().map(Body::F32);
    tensors.chain(file.cloned().map(Body::Bytes)).collect()
}

/// The same with a file behind the tensors, where there is one.
pub(crate) fn take_all(
    mut bodies: Vec<Body>,
    lens: impl ExactSizeIterator<Item = Option<usize>>,
    has_file: bool,
) -> Result<(Vec<Values>, Option<Bytes>), BodyError> {
    let file = match bodies.pop_if(|last| has_file && matches!(last, Body::Bytes(_))) {
        Some(Body::Bytes(file)) => Some(file),
        _ if has_file => {
            let (expected, got) = ("a file".to_owned(), "none".to_owned());
            return Err(BodyError { expected, got });
        }
        _ => None,
    };
    Ok((take_f32(bodies, lens)?, file))
}
