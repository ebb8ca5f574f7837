//! Vectors as long as a model, asked for so that a refusal is an answer: the usual way to allocate
//! ends the process, and with it every other actor in it.

/// There is no room for so many values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("can't allocate {bytes} bytes for a model of this size; lower job.model.hidden")]
pub struct NoMemory {
    pub bytes: u64,
}

/// An empty vector with room for `len` values.
///
/// # Errors
/// The system refuses it.
pub fn with_room(len: usize) -> Result<Vec<f32>, NoMemory> {
    let mut values = Vec::new();
    match values.try_reserve_exact(len) {
        Ok(()) => Ok(values),
        Err(_) => Err(NoMemory { bytes: (len as u64).saturating_mul(size_of::<f32>() as u64) }),
    }
}

/// `len` zeros.
///
/// # Errors
/// The system refuses it.
pub fn zeros(len: usize) -> Result<Vec<f32>, NoMemory> {
    let mut values = with_room(len)?;
    values.resize(len, 0.0);
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_there_can_be_is_an_error_that_says_how_much() {
        let refused = zeros(usize::MAX / 8).unwrap_err();
        assert_eq!(refused.bytes, (usize::MAX / 8) as u64 * 4);
        assert!(refused.to_string().ends_with("lower job.model.hidden"), "{refused}");
    }

    #[test]
    fn what_there_is_room_for_is_zeros() {
        assert_eq!(zeros(3), Ok(vec![0.0; 3]));
    }
}
