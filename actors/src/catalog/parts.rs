//! Versions that others are made of: they stay for as long as those do.

use std::collections::{BTreeMap, BTreeSet};

use super::{Catalog, CatalogError};
use crate::version::{Member, VersionDescription, VersionRef};

type Key = (String, u64);

/// For each part, the versions that are made of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Parts {
    of: BTreeMap<Key, BTreeSet<Key>>,
}

impl Parts {
    pub(super) fn add(&mut self, whole: &VersionDescription) {
        for part in &whole.made_of {
            let wholes = self.of.entry((part.model.clone(), part.version)).or_default();
            wholes.insert((whole.model.clone(), whole.version));
        }
    }

    pub(super) fn remove(&mut self, whole: &VersionDescription) {
        let key = (whole.model.clone(), whole.version);
        for part in &whole.made_of {
            let part = (part.model.clone(), part.version);
            if let Some(wholes) = self.of.get_mut(&part) {
                wholes.remove(&key);
                if wholes.is_empty() {
                    self.of.remove(&part);
                }
            }
        }
    }

    /// Refuses where another version is made of this one.
    pub(super) fn check_unused(&self, model: &str, version: u64) -> Result<(), CatalogError> {
        let wholes = self.of.get(&(model.to_owned(), version));
        match wholes.and_then(BTreeSet::first) {
            None => Ok(()),
            Some(whole) => Err(in_use((model, version), whole)),
        }
    }

    /// Refuses where a version of another model is made of one of this model's.
    pub(super) fn check_all_unused(&self, model: &str) -> Result<(), CatalogError> {
        let all = self.of.range((model.to_owned(), 0)..=(model.to_owned(), u64::MAX));
        for ((_, version), wholes) in all {
            if let Some(whole) = wholes.iter().find(|whole| whole.0 != model) {
                return Err(in_use((model, *version), whole));
            }
        }
        Ok(())
    }
}

impl Catalog {
    /// Whether all that a version is made of is there, as it says.
    pub(super) fn check_parts(&self, model: &str, parts: &[Member]) -> Result<(), CatalogError> {
        for part in parts {
            let found = self.find(&part.model, &VersionRef::Number(part.version))?;
            if found.as_member() != *part {
                return Err(CatalogError::OtherPart {
                    model: model.to_owned(),
                    part: part.model.clone(),
                    version: part.version,
                    published: found.digest.clone(),
                    digest: part.digest.clone(),
                });
            }
        }
        Ok(())
    }
}

fn in_use((model, version): (&str, u64), whole: &Key) -> CatalogError {
    let (whole, whole_version) = whole.clone();
    CatalogError::Part { model: model.to_owned(), version, whole, whole_version }
}
