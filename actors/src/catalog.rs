//! The rule of the registry: which versions there are, folded from the entries of a log.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

mod edit;
mod entry;
mod error;
mod events;
mod filter;
mod parts;
mod records;

pub use edit::{Edit, Outcome};
pub use entry::LogEntry;
pub use error::CatalogError;
pub(crate) use events::RecentEvents;
pub use events::{EVENTS_PAGE_MAX, Event, Events};
pub use filter::FilterError;
pub use records::{ModelRecord, Origin, PAGE_MAX, Page, Search, VersionRecord};

use crate::new_version::NewVersion;
use crate::planted::{self, Bug};
use crate::route::Route;
use crate::version::{VersionDescription, VersionRef, check_alias, check_model_name};
use edit::{Linked, Noted};
use error::some;
use parts::Parts;

/// All models, their versions and aliases.
///
/// Invariants: the numbers of a model's versions rise from 1 in the order of their publication and
/// none is given twice (one is left out only where its folder held another run's model); an alias
/// names a version that was not deleted, and so do a route, whose versions can be served, and a version that
/// is made of others; a run has
/// at most one version of a model.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Catalog {
    models: BTreeMap<String, Versions>,
    parts: Parts,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Versions {
    /// The highest number ever given, deleted ones included.
    last: u64,
    live: BTreeMap<u64, VersionDescription>,
    aliases: BTreeMap<String, u64>,
    /// Version of each run, deleted ones included, and of each request that linked one.
    runs: BTreeMap<String, u64>,
    route: Option<Route>,
    /// Versions that lie elsewhere.
    linked: BTreeMap<u64, Linked>,
    noted: Noted,
    versions_noted: BTreeMap<u64, Noted>,
    created_unix_ms: Option<u64>,
    /// The request that registered the model, where one did.
    registered_by: Option<String>,
    /// The model as a whole is gone, until it comes again.
    deleted: bool,
}

/// A model that can be served, and the names of its versions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelSummary {
    pub model: String,
    /// Rising, at least one; the last one is `latest`.
    pub versions: Vec<u64>,
    pub aliases: BTreeMap<String, u64>,
    pub route: Option<Route>,
}

/// What publishing a run would do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Publication {
    /// The run makes this version.
    New(u64),
    /// The run has this version already.
    Already(u64),
}

impl Versions {
    fn has(&self, version: u64) -> bool {
        self.live.contains_key(&version) || self.linked.contains_key(&version)
    }

    fn not_routed(&self, model: &str, version: &VersionRef) -> Result<(), CatalogError> {
        let named = |route: &Route| route.versions().any(|named| named == version);
        if self.route.as_ref().is_some_and(named) {
            let (model, version) = (model.to_owned(), version.clone());
            return Err(CatalogError::Routed { model, version });
        }
        Ok(())
    }
}

impl Catalog {
    /// The catalog that a log tells of.
    ///
    /// # Errors
    /// The first entry that does not follow from those before it.
    pub fn fold<'a>(entries: impl IntoIterator<Item = &'a LogEntry>) -> Result<Self, CatalogError> {
        let mut catalog = Self::default();
        for entry in entries {
            catalog.apply(entry)?;
        }
        Ok(catalog)
    }

    /// Makes one change.
    ///
    /// # Errors
    /// As [`Catalog::check`].
    pub fn apply(&mut self, entry: &LogEntry) -> Result<(), CatalogError> {
        self.check(entry)?;
        match entry {
            LogEntry::Published { description } => {
                self.parts.add(description);
                let versions = self.models.entry(description.model.clone()).or_default();
                versions.created(description.created_unix_ms);
                versions.last = description.version;
                if !planted::is(Bug::PublishedTwice) {
                    versions.runs.insert(description.run.clone(), description.version);
                }
                versions.live.insert(description.version, description.clone());
            }
            LogEntry::Aliased { model, alias, version } => {
                let versions = self.models.entry(model.clone()).or_default();
                versions.aliases.insert(alias.clone(), *version);
            }
            LogEntry::AliasRemoved { model, alias } => {
                self.models.entry(model.clone()).or_default().aliases.remove(alias);
            }
            LogEntry::Deleted { model, version } => {
                let versions = self.models.entry(model.clone()).or_default();
                if let Some(gone) = versions.live.remove(version) {
                    self.parts.remove(&gone);
                }
                versions.linked.remove(version);
                versions.versions_noted.remove(version);
            }
            LogEntry::Routed { model, route } => {
                self.models.entry(model.clone()).or_default().route.clone_from(route);
            }
            LogEntry::Edited { edit, at_unix_ms } => self.edit(edit, *at_unix_ms)?,
        }
        Ok(())
    }

    /// Whether the change follows from the catalog as it is.
    ///
    /// # Errors
    /// The rule that it breaks.
    pub fn check(&self, entry: &LogEntry) -> Result<(), CatalogError> {
        match entry {
            LogEntry::Published { description } => self.check_published(description),
            LogEntry::Aliased { model, alias, version } => {
                check_alias(alias)?;
                let versions = self.model(model)?;
                self.known_number(versions, model, *version)?;
                if versions.linked.contains_key(version) {
                    // Requests that go by this name would find nothing that answers.
                    versions.not_routed(model, &VersionRef::Alias(alias.clone()))?;
                }
                Ok(())
            }
            LogEntry::Edited { edit, .. } => self.outcome(edit).map(drop),
            LogEntry::AliasRemoved { model, alias } => {
                let versions = self.model(model)?;
                self.alias(versions, model, alias)?;
                versions.not_routed(model, &VersionRef::Alias(alias.clone()))
            }
            LogEntry::Routed { model, route } => {
                self.model(model)?;
                let Some(route) = route else { return Ok(()) };
                route.check()?;
                route.versions().try_for_each(|version| self.find(model, version).map(drop))
            }
            LogEntry::Deleted { model, version } => {
                let versions = self.model(model)?;
                self.known_number(versions, model, *version)?;
                self.parts.check_unused(model, *version)?;
                versions.not_routed(model, &VersionRef::Number(*version))?;
                if versions.live.len() == 1 && versions.live.contains_key(version) {
                    versions.not_routed(model, &VersionRef::Latest)?;
                }
                match versions.aliases.iter().find(|(_, named)| *named == version) {
                    None => Ok(()),
                    Some((alias, _)) => Err(CatalogError::InUse {
                        model: model.clone(),
                        version: *version,
                        alias: alias.clone(),
                    }),
                }
            }
        }
    }

    /// The version that a reference names.
    ///
    /// # Errors
    /// There is none; the error lists those that there are.
    pub fn find(
        &self,
        model: &str,
        version: &VersionRef,
    ) -> Result<&VersionDescription, CatalogError> {
        let versions = self.model(model)?;
        match version {
            VersionRef::Number(number) => self.number(versions, model, *number),
            VersionRef::Alias(alias) => {
                self.number(versions, model, self.alias(versions, model, alias)?)
            }
            VersionRef::Latest => match versions.live.last_key_value() {
                Some((_, description)) => Ok(description),
                None => Err(CatalogError::NoVersions { model: model.to_owned() }),
            },
        }
    }

    /// The number that a reference names, also of a version that can't be served.
    ///
    /// # Errors
    /// There is none; the error lists those that there are.
    pub fn resolve(&self, model: &str, version: &VersionRef) -> Result<u64, CatalogError> {
        let versions = self.model(model)?;
        let number = match version {
            VersionRef::Number(number) => *number,
            VersionRef::Alias(alias) => self.alias(versions, model, alias)?,
            VersionRef::Latest => return self.find(model, version).map(|found| found.version),
        };
        self.known_number(versions, model, number).map(|()| number)
    }

    /// The version that a training run made, if it was published and not deleted.
    pub fn find_run(&self, model: &str, run: &str) -> Option<&VersionDescription> {
        let versions = self.models.get(model)?;
        versions.live.get(versions.runs.get(run)?)
    }

    /// What publishing this would do.
    ///
    /// # Errors
    /// It can't be published: a name, a value, or a run that ended otherwise before.
    pub fn publication(&self, new: &NewVersion) -> Result<Publication, CatalogError> {
        check_model_name(&new.model)?;
        new.check()?;
        let Some(&version) = self.models.get(&new.model).and_then(|known| known.runs.get(&new.run))
        else {
            self.check_parts(&new.model, &new.made_of)?;
            return Ok(Publication::New(self.next_version(&new.model)));
        };
        let (model, run) = (new.model.clone(), new.run.clone());
        match self.find_run(&new.model, &new.run) {
            None => Err(CatalogError::RunDeleted { model, run, version }),
            Some(known) if known.digest == new.digest => Ok(Publication::Already(version)),
            Some(known) => Err(CatalogError::RunDiffers {
                model,
                run,
                version,
                published: known.digest.clone(),
                digest: new.digest.clone(),
            }),
        }
    }

    /// The number that the next publication of a model gets.
    pub fn next_version(&self, model: &str) -> u64 {
        self.models.get(model).map_or(0, |versions| versions.last) + 1
    }

    /// Whether this version was published and deleted.
    pub fn was_deleted(&self, model: &str, version: u64) -> bool {
        self.models.get(model).is_some_and(|versions| {
            (1..=versions.last).contains(&version) && !versions.has(version)
        })
    }

    /// Versions beyond the newest `keep` of a model that no alias, no route and no other version names, oldest
    /// first.
    pub fn expired(&self, model: &str, keep: usize) -> Vec<u64> {
        let Some(versions) = self.models.get(model) else { return Vec::new() };
        let older = versions.live.len().saturating_sub(keep);
        let unnamed = |version: &u64| {
            let deleted = LogEntry::Deleted { model: model.to_owned(), version: *version };
            self.check(&deleted).is_ok()
        };
        versions.live.keys().copied().take(older).filter(unnamed).collect()
    }

    /// The version that an alias names, if there is such an alias.
    pub fn aliased(&self, model: &str, alias: &str) -> Option<u64> {
        self.models.get(model)?.aliases.get(alias).copied()
    }

    /// How a model's requests are split.
    ///
    /// # Errors
    /// No such model was ever published.
    pub fn route(&self, model: &str) -> Result<Option<&Route>, CatalogError> {
        Ok(self.model(model)?.route.as_ref())
    }

    /// The models that have a version, by name.
    pub fn list(&self) -> Vec<ModelSummary> {
        let live = self.models.iter().filter(|(_, versions)| !versions.live.is_empty());
        live.map(|(model, versions)| ModelSummary {
            model: model.clone(),
            versions: versions.live.keys().copied().collect(),
            aliases: versions.aliases.clone(),
            route: versions.route.clone(),
        })
        .collect()
    }

    /// The versions of a model, oldest first.
    ///
    /// # Errors
    /// No such model was ever published.
    pub fn versions(
        &self,
        model: &str,
    ) -> Result<impl Iterator<Item = &VersionDescription>, CatalogError> {
        Ok(self.model(model)?.live.values())
    }

    fn check_published(&self, description: &VersionDescription) -> Result<(), CatalogError> {
        let model = &description.model;
        check_model_name(model)?;
        let expected = self.next_version(model);
        // The largest number would have none after it.
        if description.version < expected || description.version == u64::MAX {
            let (model, got) = (model.clone(), description.version);
            return Err(CatalogError::OutOfOrder { model, expected, got });
        }
        self.check_parts(model, &description.made_of)?;
        match self.models.get(model).and_then(|versions| versions.runs.get(&description.run)) {
            None => Ok(()),
            Some(&version) => Err(CatalogError::RunTaken {
                model: model.clone(),
                run: description.run.clone(),
                version,
            }),
        }
    }

    fn model(&self, model: &str) -> Result<&Versions, CatalogError> {
        let known = self.models.get(model).filter(|versions| !versions.deleted);
        known.ok_or_else(|| CatalogError::NoModel {
            model: model.to_owned(),
            known: some(self.list().into_iter().map(|summary| summary.model)),
        })
    }

    fn number<'a>(
        &self,
        versions: &'a Versions,
        model: &str,
        version: u64,
    ) -> Result<&'a VersionDescription, CatalogError> {
        if let Some(Linked { place, .. }) = versions.linked.get(&version) {
            let (model, place) = (model.to_owned(), place.clone());
            return Err(CatalogError::Linked { model, version, place });
        }
        versions.live.get(&version).ok_or_else(|| Self::no_version(versions, model, version))
    }

    /// Whether there is such a version, also one that can't be served.
    fn known_number(
        &self,
        versions: &Versions,
        model: &str,
        version: u64,
    ) -> Result<(), CatalogError> {
        match versions.has(version) {
            true => Ok(()),
            false => Err(Self::no_version(versions, model, version)),
        }
    }

    fn no_version(versions: &Versions, model: &str, version: u64) -> CatalogError {
        let known = some(versions.live.keys().rev().map(u64::to_string));
        CatalogError::NoVersion { model: model.to_owned(), version, known }
    }

    fn alias(&self, versions: &Versions, model: &str, alias: &str) -> Result<u64, CatalogError> {
        versions.aliases.get(alias).copied().ok_or_else(|| CatalogError::NoAlias {
            model: model.to_owned(),
            alias: alias.to_owned(),
            known: some(versions.aliases.keys().cloned()),
        })
    }
}

#[cfg(test)]
mod tests;
