//! What people change beside publications: models before they have a version, texts and tags, and
//! versions that lie elsewhere.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Catalog, CatalogError, Versions};
use crate::notes::{Notes, check_text};
use crate::version::check_model_name;

/// Models, deleted ones included, that are kept in memory: ten times what the largest registries
/// that are known hold.
const MODELS_MAX: usize = 100_000;

/// One change by a person. Safe to repeat: what is so already is not changed again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Edit {
    /// A model that has no version yet.
    RegisterModel {
        model: String,
        /// Of this request; a repetition has the same.
        key: String,
        notes: Notes,
    },
    /// The next version of a model, whose files lie where the registry does not read: it can be
    /// found and named, and not served.
    LinkVersion {
        model: String,
        /// Of this request; a repetition has the same.
        key: String,
        place: String,
        run: Option<String>,
        notes: Notes,
    },
    /// Of a version, or of the model as a whole.
    Describe { model: String, version: Option<u64>, description: String },
    /// `None` removes the tag.
    Tag { model: String, version: Option<u64>, key: String, value: Option<String> },
    /// The model with its versions, aliases and notes. Numbers of versions are not given again.
    DeleteModel { model: String },
}

/// A version that lies elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Linked {
    pub(super) place: String,
    pub(super) run: Option<String>,
    pub(super) created_unix_ms: u64,
}

/// Notes of a model or a version, and when they were changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Noted {
    pub(super) notes: Notes,
    pub(super) updated_unix_ms: u64,
}

/// What an edit would do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It would change something: the version that it is of, if it is of one.
    Change(Option<u64>),
    /// It was made before, or all is so already.
    Already(Option<u64>),
}

impl Edit {
    pub(super) fn model(&self) -> &str {
        match self {
            Self::RegisterModel { model, .. }
            | Self::LinkVersion { model, .. }
            | Self::Describe { model, .. }
            | Self::Tag { model, .. }
            | Self::DeleteModel { model } => model,
        }
    }
}

/// In a line, for logs; without what people wrote, which may be pages.
impl fmt::Display for Edit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of =
            |version: &Option<u64>| version.map_or(String::new(), |n| format!("version {n} of "));
        match self {
            Self::RegisterModel { model, .. } => write!(f, "{model} is registered"),
            Self::LinkVersion { model, .. } => {
                write!(f, "{model} has a version that lies elsewhere")
            }
            Self::Describe { model, version, .. } => {
                write!(f, "{}{model} is described", of(version))
            }
            Self::Tag { model, version, key, value } => {
                let change = if value.is_some() { "has another" } else { "has no" };
                write!(f, "{}{model} {change} tag {key:.40?}", of(version))
            }
            Self::DeleteModel { model } => write!(f, "{model} is gone with all versions"),
        }
    }
}

impl Catalog {
    /// What an edit would do to the catalog as it is.
    ///
    /// # Errors
    /// The rule that it breaks.
    pub fn outcome(&self, edit: &Edit) -> Result<Outcome, CatalogError> {
        match edit {
            Edit::RegisterModel { model, key, notes } => {
                check_model_name(model)?;
                notes.check()?;
                match self.model(model) {
                    Ok(known) if known.registered_by.as_ref() == Some(key) => {
                        Ok(Outcome::Already(None))
                    }
                    Ok(_) => Err(CatalogError::ModelExists { model: model.clone() }),
                    Err(_) if self.is_full(model) => {
                        Err(CatalogError::ManyModels { limit: MODELS_MAX })
                    }
                    Err(_) => Ok(Outcome::Change(None)),
                }
            }
            Edit::LinkVersion { model, key, place, run, notes } => {
                notes.check()?;
                check_text("the place of the version", place)?;
                check_text("the run of the version", run.as_deref().unwrap_or_default())?;
                let known = self.model(model)?;
                Ok(match known.runs.get(key) {
                    Some(&version) => Outcome::Already(Some(version)),
                    None => Outcome::Change(Some(self.next_version(model))),
                })
            }
            Edit::Describe { model, version, description } => {
                let mut notes = self.notes(model, *version)?.clone();
                notes.description.clone_from(description);
                self.noting(model, *version, &notes)
            }
            Edit::Tag { model, version, key, value } => {
                let notes = self.notes(model, *version)?.clone();
                self.noting(model, *version, &notes.tagged(key, value.as_deref()))
            }
            Edit::DeleteModel { model } => {
                if self.model(model)?.route.is_some() {
                    return Err(CatalogError::HasRoute { model: model.clone() });
                }
                self.parts.check_all_unused(model)?;
                Ok(Outcome::Change(None))
            }
        }
    }

    /// Makes an edit that follows.
    pub(super) fn edit(&mut self, edit: &Edit, at_unix_ms: u64) -> Result<(), CatalogError> {
        if let Outcome::Already(_) = self.outcome(edit)? {
            return Ok(());
        }
        let next = self.next_version(edit.model());
        let known = self.models.entry(edit.model().to_owned()).or_default();
        match edit {
            Edit::RegisterModel { key, notes, .. } => {
                known.created(at_unix_ms);
                known.registered_by = Some(key.clone());
                known.noted = Noted { notes: notes.clone(), updated_unix_ms: at_unix_ms };
            }
            Edit::LinkVersion { key, place, run, notes, .. } => {
                known.last = next;
                known.runs.insert(key.clone(), next);
                let (place, run) = (place.clone(), run.clone());
                known.linked.insert(next, Linked { place, run, created_unix_ms: at_unix_ms });
                let noted = Noted { notes: notes.clone(), updated_unix_ms: at_unix_ms };
                known.versions_noted.insert(next, noted);
                known.noted.updated_unix_ms = known.noted.updated_unix_ms.max(at_unix_ms);
            }
            Edit::Describe { version, description, .. } => {
                let noted = known.noted_mut(*version, at_unix_ms);
                noted.notes.description.clone_from(description);
            }
            Edit::Tag { version, key, value, .. } => {
                let noted = known.noted_mut(*version, at_unix_ms);
                noted.notes = std::mem::take(&mut noted.notes).tagged(key, value.as_deref());
            }
            Edit::DeleteModel { .. } => {
                known.live.values().for_each(|gone| self.parts.remove(gone));
                let (last, runs) = (known.last, std::mem::take(&mut known.runs));
                *known = Versions { last, runs, deleted: true, ..Versions::default() };
            }
        }
        Ok(())
    }

    fn noting(
        &self,
        model: &str,
        version: Option<u64>,
        notes: &Notes,
    ) -> Result<Outcome, CatalogError> {
        notes.check()?;
        let already = self.notes(model, version)? == notes;
        Ok(if already { Outcome::Already(version) } else { Outcome::Change(version) })
    }

    fn notes(&self, model: &str, version: Option<u64>) -> Result<&Notes, CatalogError> {
        static NONE: Notes =
            Notes { description: String::new(), tags: std::collections::BTreeMap::new() };
        let known = self.model(model)?;
        let Some(version) = version else { return Ok(&known.noted.notes) };
        self.known_number(known, model, version)?;
        Ok(known.versions_noted.get(&version).map_or(&NONE, |noted| &noted.notes))
    }

    fn is_full(&self, model: &str) -> bool {
        self.models.len() >= MODELS_MAX && !self.models.contains_key(model)
    }
}

impl Versions {
    /// The model is there from now on, if it was not.
    pub(super) fn created(&mut self, at_unix_ms: u64) {
        if self.deleted || self.created_unix_ms.is_none() {
            self.deleted = false;
            self.created_unix_ms = Some(at_unix_ms);
        }
        self.noted.updated_unix_ms = self.noted.updated_unix_ms.max(at_unix_ms);
    }

    fn noted_mut(&mut self, version: Option<u64>, at_unix_ms: u64) -> &mut Noted {
        let noted = match version {
            None => &mut self.noted,
            Some(version) => self.versions_noted.entry(version).or_default(),
        };
        noted.updated_unix_ms = noted.updated_unix_ms.max(at_unix_ms);
        noted
    }
}
