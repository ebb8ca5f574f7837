//! JSON files that tell when a byte of them has changed.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// A value beside the BLAKE3 of its compact JSON, in hexadecimal. White space between them is free:
/// the seal is of the value, and the file stays one that people can read.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Sealed<T> {
    blake3: String,
    value: T,
}

/// A file holds no value, or another one than was sealed.
#[derive(Debug, thiserror::Error)]
pub(super) enum SealError {
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    #[error("the BLAKE3 of its value is {got}, its seal says {expected}")]
    Broken { expected: String, got: String },
}

impl<T: Serialize + DeserializeOwned> Sealed<T> {
    /// The text of a file.
    ///
    /// # Errors
    /// JSON has no words for the value.
    pub(super) fn write(value: T) -> Result<Vec<u8>, SealError> {
        let sealed = Self { blake3: digest(&value)?, value };
        Ok(serde_json::to_vec_pretty(&sealed)?)
    }

    /// The value of a file, if it is the one that was sealed.
    ///
    /// # Errors
    /// No JSON of this form, or a broken seal.
    pub(super) fn read(text: &[u8]) -> Result<T, SealError> {
        Self::read_with_seal(text).map(|(value, _)| value)
    }

    /// The same with the seal, in hexadecimal.
    ///
    /// # Errors
    /// As [`Sealed::read`].
    pub(super) fn read_with_seal(text: &[u8]) -> Result<(T, String), SealError> {
        let Self { blake3: expected, value } = serde_json::from_slice(text)?;
        let got = digest(&value)?;
        if got != expected {
            return Err(SealError::Broken { expected, got });
        }
        Ok((value, got))
    }
}

fn digest<T: Serialize>(value: &T) -> Result<String, serde_json::Error> {
    Ok(blake3::hash(&serde_json::to_vec(value)?).to_hex().to_string())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Value = (Option<u64>, Vec<f64>, String);

    proptest! {
        #[test]
        fn what_was_sealed_is_read_back_to_the_last_bit(
            floats in prop::collection::vec(prop::num::f64::NORMAL | prop::num::f64::SUBNORMAL, 0..9),
        ) {
            let value: Value = (Some(u64::MAX), floats, "\"é\n".to_owned());
            let text = Sealed::write(value.clone()).unwrap();
            let read = Sealed::<Value>::read(&text).unwrap();
            prop_assert_eq!(format!("{:?}", read), format!("{:?}", value));
        }
    }

    #[test]
    fn any_changed_byte_breaks_the_seal_or_changes_nothing() {
        let value: Value = (Some(7), vec![0.1, -2.5e-300], "abc".to_owned());
        let text = Sealed::write(value.clone()).unwrap();
        let mut broken = 0;
        for place in 0..text.len() {
            for bit in 0..8 {
                let mut flipped = text.clone();
                flipped[place] ^= 1 << bit;
                match Sealed::<Value>::read(&flipped) {
                    Ok(read) => assert_eq!(read, value, "bit {bit} of byte {place}"),
                    Err(_) => broken += 1,
                }
            }
        }
        assert!(broken > 6 * text.len(), "{broken}");
    }
}
