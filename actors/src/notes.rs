//! What people write about a model or a version: a text, and tags.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Bytes of a description, and of a tag's value: some pages of text, as MLflow has it.
pub const TEXT_MAX: usize = 5000;
/// Bytes of a tag's key, as MLflow has it.
pub const TAG_KEY_MAX: usize = 250;
/// Bytes of all that is written about one model or version: many of them go into one answer.
pub const NOTES_MAX: usize = 64 << 10;

/// How the keys of tags begin that say what the registry itself knows.
pub const RESERVED: &str = "gradmesh.";

/// A description and tags; both may be empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notes {
    pub description: String,
    pub tags: BTreeMap<String, String>,
}

/// Notes are longer than they may be, or not theirs to write.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum NotesError {
    #[error("{what} has {got} bytes, it can have {max}")]
    Long { what: String, got: usize, max: usize },
    #[error("description and tags together have {got} bytes, they can have {max}; remove a tag")]
    Full { got: usize, max: usize },
    #[error("the key of a tag is empty")]
    NoKey,
    #[error(
        "tags that begin with {RESERVED:?} say what the registry knows; use another key than {key:?}"
    )]
    Reserved { key: String },
}

impl Notes {
    /// # Errors
    /// The first limit that they break.
    pub fn check(&self) -> Result<(), NotesError> {
        check_text("the description", &self.description)?;
        self.tags.iter().try_for_each(|(key, value)| check_tag(key, value))?;
        let tags = self.tags.iter().map(|(key, value)| key.len() + value.len());
        let got = self.description.len() + tags.sum::<usize>();
        if got > NOTES_MAX {
            return Err(NotesError::Full { got, max: NOTES_MAX });
        }
        Ok(())
    }

    /// With this tag, or without it.
    #[must_use]
    pub fn tagged(mut self, key: &str, value: Option<&str>) -> Self {
        match value {
            Some(value) => drop(self.tags.insert(key.to_owned(), value.to_owned())),
            None => drop(self.tags.remove(key)),
        }
        self
    }
}

/// # Errors
/// The text has more than [`TEXT_MAX`] bytes.
pub(crate) fn check_text(what: &str, text: &str) -> Result<(), NotesError> {
    limited(what, text, TEXT_MAX)
}

fn check_tag(key: &str, value: &str) -> Result<(), NotesError> {
    if key.is_empty() {
        return Err(NotesError::NoKey);
    }
    if key.starts_with(RESERVED) {
        return Err(NotesError::Reserved { key: key.chars().take(TAG_KEY_MAX).collect() });
    }
    limited("the key of a tag", key, TAG_KEY_MAX)?;
    limited(&format!("tag {key:?}"), value, TEXT_MAX)
}

fn limited(what: &str, text: &str, max: usize) -> Result<(), NotesError> {
    if text.len() <= max {
        return Ok(());
    }
    Err(NotesError::Long { what: what.to_owned(), got: text.len(), max })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_beyond_their_limits_are_refused_with_the_numbers() {
        let long = "x".repeat(TEXT_MAX + 1);
        let told = |notes: Notes| notes.check().unwrap_err().to_string();
        let described = Notes { description: long.clone(), ..Notes::default() };
        assert_eq!(told(described), "the description has 5001 bytes, it can have 5000");
        let tag = |key: &str, value: &str| Notes::default().tagged(key, Some(value));
        assert_eq!(told(tag("k", &long)), "tag \"k\" has 5001 bytes, it can have 5000");
        assert!(told(tag(&"k".repeat(251), "")).starts_with("the key of a tag has 251 bytes"));
        assert_eq!(tag("", "v").check(), Err(NotesError::NoKey));
        assert_eq!(
            tag("gradmesh.digest", "v").check(),
            Err(NotesError::Reserved { key: "gradmesh.digest".into() })
        );
        let many = (0..14).fold(Notes::default(), |notes, at| {
            notes.tagged(&format!("tag-{at}"), Some(&long[..TEXT_MAX]))
        });
        assert!(matches!(many.check(), Err(NotesError::Full { max: NOTES_MAX, .. })));
        assert_eq!(many.tagged("tag-3", None).check(), Ok(()));
    }
}
