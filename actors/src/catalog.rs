//! The rule of the registry: which versions there are, folded from the entries of a log.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::new_version::{NewVersion, NewVersionError};
use crate::planted::{self, Bug};
use crate::route::{Route, RouteError};
use crate::version::{NameError, VersionDescription, VersionRef, check_alias, check_model_name};

/// How many known names an error lists: enough to spot a misspelling, short enough for a log line.
const KNOWN_MAX: usize = 12;

/// One change of the catalog. The log of them is its whole history.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(clippy::large_enum_variant, reason = "most entries are publications")]
pub enum LogEntry {
    Published {
        description: VersionDescription,
    },
    /// `alias` names `version` from here on, whatever it named before.
    Aliased {
        model: String,
        alias: String,
        version: u64,
    },
    AliasRemoved {
        model: String,
        alias: String,
    },
    Deleted {
        model: String,
        version: u64,
    },
    /// Requests that name no version are split like this from here on.
    Routed {
        model: String,
        route: Option<Route>,
    },
}

/// All models, their versions and aliases.
///
/// Invariants: the numbers of a model's versions rise from 1 in the order of their publication and
/// none is given twice (one is left out only where its folder held another run's model); an alias
/// names a version that was not deleted, and so does a route; a run has at most one version of a
/// model.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Catalog {
    models: BTreeMap<String, Versions>,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Versions {
    /// The highest number ever given, deleted ones included.
    last: u64,
    live: BTreeMap<u64, VersionDescription>,
    aliases: BTreeMap<String, u64>,
    /// Version of each run, deleted ones included.
    runs: BTreeMap<String, u64>,
    route: Option<Route>,
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

/// The catalog refuses. It has not changed.
#[derive(Clone, Debug, PartialEq, thiserror::Error, Serialize, Deserialize)]
pub enum CatalogError {
    #[error(transparent)]
    Name(#[from] NameError),
    #[error("no model {model:?}; {}", known_names("models", known))]
    NoModel { model: String, known: Vec<String> },
    #[error("{model} has no version {version}; {}", known_names("versions", known))]
    NoVersion { model: String, version: u64, known: Vec<String> },
    #[error("all versions of {model} were deleted")]
    NoVersions { model: String },
    #[error("{model} has no alias {alias:?}; {}", known_names("aliases", known))]
    NoAlias { model: String, alias: String, known: Vec<String> },
    #[error(
        "version {version} of {model} is named by alias {alias:?}; move or remove the alias first"
    )]
    InUse { model: String, version: u64, alias: String },
    #[error("version {version} of {model} is in its route; change the route first")]
    Routed { model: String, version: VersionRef },
    #[error(transparent)]
    Route(#[from] RouteError),
    #[error("run {run} was published as version {version} of {model}, which was deleted")]
    RunDeleted { model: String, run: String, version: u64 },
    #[error(
        "run {run} is version {version} of {model} with state {published}, not {digest}; a run has one final state"
    )]
    RunDiffers { model: String, run: String, version: u64, published: String, digest: String },
    #[error("run {run} already made version {version} of {model}")]
    RunTaken { model: String, run: String, version: u64 },
    #[error("the next version of {model} is {expected}, not {got}")]
    OutOfOrder { model: String, expected: u64, got: u64 },
    #[error(transparent)]
    Values(#[from] NewVersionError),
}

impl CatalogError {
    /// Whether the thing that was asked for does not exist.
    pub fn is_not_found(&self) -> bool {
        matches!(
            self,
            Self::NoModel { .. }
                | Self::NoVersion { .. }
                | Self::NoVersions { .. }
                | Self::NoAlias { .. }
        )
    }
}

impl Versions {
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
                let versions = self.models.entry(description.model.clone()).or_default();
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
                self.models.entry(model.clone()).or_default().live.remove(version);
            }
            LogEntry::Routed { model, route } => {
                self.models.entry(model.clone()).or_default().route.clone_from(route);
            }
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
                self.number(self.model(model)?, model, *version).map(drop)
            }
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
                self.number(versions, model, *version)?;
                versions.not_routed(model, &VersionRef::Number(*version))?;
                if versions.live.len() == 1 {
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
            (1..=versions.last).contains(&version) && !versions.live.contains_key(&version)
        })
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
        self.models.get(model).ok_or_else(|| CatalogError::NoModel {
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
        versions.live.get(&version).ok_or_else(|| CatalogError::NoVersion {
            model: model.to_owned(),
            version,
            known: some(versions.live.keys().rev().map(u64::to_string)),
        })
    }

    fn alias(&self, versions: &Versions, model: &str, alias: &str) -> Result<u64, CatalogError> {
        versions.aliases.get(alias).copied().ok_or_else(|| CatalogError::NoAlias {
            model: model.to_owned(),
            alias: alias.to_owned(),
            known: some(versions.aliases.keys().cloned()),
        })
    }
}

fn some(mut known: impl Iterator<Item = String>) -> Vec<String> {
    let mut some: Vec<_> = known.by_ref().take(KNOWN_MAX).collect();
    if known.next().is_some() {
        some.push("…".to_owned());
    }
    some
}

fn known_names(what: &str, known: &[String]) -> String {
    match known {
        [] => format!("there are no {what}"),
        known => format!("known {what}: {}", known.join(", ")),
    }
}

#[cfg(test)]
mod tests;
