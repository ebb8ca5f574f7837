//! Models and versions as people find them, and how they search.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::filter::{Filter, FilterError, Found, Key};
use super::{Catalog, CatalogError, Versions};
use crate::version::VersionRef;

/// The most that one page holds: as many as MLflow's client asks for.
pub const PAGE_MAX: usize = 10_000;

/// Bytes of the texts of one page. The part of a frame that holds them may have a mebibyte.
const PAGE_BYTES_MAX: usize = 256 << 10;

/// A model as people find it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelRecord {
    pub model: String,
    pub created_unix_ms: u64,
    pub updated_unix_ms: u64,
    pub description: String,
    pub tags: BTreeMap<String, String>,
    pub aliases: BTreeMap<String, u64>,
    /// The newest version, whether it can be served or not.
    pub latest: Option<VersionRecord>,
}

/// A version as people find it: what they wrote, and where it came from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VersionRecord {
    pub model: String,
    pub version: u64,
    pub created_unix_ms: u64,
    pub updated_unix_ms: u64,
    pub description: String,
    pub tags: BTreeMap<String, String>,
    /// The aliases that name it.
    pub aliases: Vec<String>,
    pub origin: Origin,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// Its files are the registry's, and it can be served. Digests as in
    /// [`VersionDescription`](crate::version::VersionDescription).
    Published {
        run: String,
        digest: String,
        job_digest: String,
        /// The version that its training began with, as `model/number`.
        parent: Option<String>,
        data_digest: String,
        artifact_blake3: String,
        metrics: BTreeMap<String, f64>,
    },
    /// Its files are elsewhere.
    Linked { place: String, run: Option<String> },
}

/// A question for models or versions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Search {
    /// See `filter.rs`; empty: all.
    pub filter: String,
    /// `KEY`, `KEY ASC` or `KEY DESC`; the first decides.
    pub order: Vec<String>,
    /// Found ones on a page; more than [`PAGE_MAX`] are that many.
    pub max: usize,
    /// How many come before the page.
    pub from: usize,
}

/// A page of what was found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Page<T> {
    pub found: Vec<T>,
    /// Where the next page begins, if there is more.
    pub next: Option<usize>,
}

/// A model, or a version of one, where it lies in the catalog.
#[derive(Clone, Copy, Debug)]
struct View<'a> {
    model: &'a str,
    versions: &'a Versions,
    version: Option<u64>,
}

impl Catalog {
    /// One model.
    ///
    /// # Errors
    /// There is none of this name.
    pub fn model_record(&self, model: &str) -> Result<ModelRecord, CatalogError> {
        let versions = self.model(model)?;
        Ok(View { model, versions, version: None }.model_record())
    }

    /// One version.
    ///
    /// # Errors
    /// There is none that the reference names.
    pub fn version_record(
        &self,
        model: &str,
        version: &VersionRef,
    ) -> Result<VersionRecord, CatalogError> {
        let version = self.resolve(model, version)?;
        let versions = self.model(model)?;
        Ok(View { model, versions, version: Some(version) }.version_record(version))
    }

    /// The models that a filter holds of, in the order of their names where none is asked for.
    ///
    /// # Errors
    /// [`CatalogError::Filter`].
    pub fn search_models(&self, search: &Search) -> Result<Page<ModelRecord>, CatalogError> {
        let page = search.page(self.views(), "name")?;
        Ok(page.map(View::model_record))
    }

    /// The versions that a filter holds of, the one that was changed last first where no order is
    /// asked for.
    ///
    /// # Errors
    /// [`CatalogError::Filter`].
    pub fn search_versions(&self, search: &Search) -> Result<Page<VersionRecord>, CatalogError> {
        let versions = self.views().flat_map(|view| {
            let numbers = view.versions.live.keys().chain(view.versions.linked.keys());
            numbers.map(move |&number| View { version: Some(number), ..view })
        });
        let page = search.page(versions, "last_updated_timestamp DESC")?;
        Ok(page.map(|view| view.version_record(view.version.unwrap_or_default())))
    }

    fn views(&self) -> impl Iterator<Item = View<'_>> {
        let there = self.models.iter().filter(|(_, versions)| !versions.deleted);
        there.map(|(model, versions)| View { model, versions, version: None })
    }
}

impl Search {
    fn page<'a>(
        &self,
        all: impl Iterator<Item = View<'a>>,
        order: &str,
    ) -> Result<Page<View<'a>>, CatalogError> {
        let filter = Filter::parse(&self.filter)?;
        let orders = self.order.iter().map(String::as_str);
        let orders: Vec<_> = orders.chain([order]).map(order_of).collect::<Result<_, _>>()?;
        let mut found: Vec<_> = all.filter(|view| filter.holds(|key| view.has(key))).collect();
        found.sort_by(|a, b| {
            let by_order = |(key, down): &(Key, bool)| {
                let order = compared(a.has(key), b.has(key));
                if *down { order.reverse() } else { order }
            };
            let asked = orders.iter().map(by_order).find(|order| order.is_ne());
            // Nothing is left to chance.
            asked.unwrap_or_else(|| (a.model, b.version).cmp(&(b.model, a.version)))
        });
        let rest = found.get(self.from..).unwrap_or_default();
        let mut bytes = 0;
        let fits = |view: &&View<'_>| {
            bytes += view.bytes();
            bytes <= PAGE_BYTES_MAX
        };
        // At least one, so that the pages come to an end.
        let count = rest.iter().take(self.max.clamp(1, PAGE_MAX)).take_while(fits).count();
        let page = &rest[..count.max(1).min(rest.len())];
        let next = self.from.saturating_add(page.len());
        Ok(Page { found: page.to_vec(), next: Some(next).filter(|next| *next < found.len()) })
    }
}

/// `name DESC`: the key, and whether the largest comes first.
fn order_of(order: &str) -> Result<(Key, bool), FilterError> {
    let unknown = || FilterError::Order { order: order.chars().take(80).collect() };
    let mut words = order.split_whitespace();
    let key = words.next().ok_or_else(unknown)?.trim_matches(['`', '"']);
    let down = match words.next().map(str::to_ascii_uppercase).as_deref() {
        None | Some("ASC") => false,
        Some("DESC") => true,
        Some(_) => return Err(unknown()),
    };
    match words.next() {
        None => Ok((Key::parse(key).map_err(|_| unknown())?, down)),
        Some(_) => Err(unknown()),
    }
}

/// What is not there comes last.
fn compared(a: Found<'_>, b: Found<'_>) -> Ordering {
    match (a, b) {
        (Found::Text(a), Found::Text(b)) => a.cmp(b),
        (Found::Number(a), Found::Number(b)) => a.total_cmp(&b),
        (a, b) => (a == Found::Nothing).cmp(&(b == Found::Nothing)),
    }
}

impl<T> Page<T> {
    fn map<R>(self, change: impl FnMut(T) -> R) -> Page<R> {
        Page { found: self.found.into_iter().map(change).collect(), next: self.next }
    }
}

impl<'a> View<'a> {
    #[expect(clippy::cast_precision_loss, reason = "times in ms and versions are far below 2^53")]
    fn has(&self, key: &Key) -> Found<'a> {
        let text = |text: Option<&'a str>| text.map_or(Found::Nothing, Found::Text);
        let number =
            |number: Option<u64>| number.map_or(Found::Nothing, |n| Found::Number(n as f64));
        let versions = self.versions;
        let live = self.version.and_then(|version| versions.live.get(&version));
        let linked = self.version.and_then(|version| versions.linked.get(&version));
        match key {
            Key::Name => Found::Text(self.model),
            Key::Number => number(self.version),
            Key::Run => text(
                live.map(|live| live.run.as_str()).or(linked.and_then(|link| link.run.as_deref())),
            ),
            Key::Place => text(linked.map(|link| link.place.as_str())),
            Key::Created => number(Some(self.created())),
            Key::Updated => number(Some(self.updated())),
            Key::Tag(key) => text(self.tags().and_then(|tags| tags.get(key)).map(String::as_str)),
            Key::Metric(name) => {
                let metric = live.and_then(|live| live.metrics.get(name));
                metric.map_or(Found::Nothing, |&value| Found::Number(value))
            }
        }
    }

    fn tags(&self) -> Option<&'a BTreeMap<String, String>> {
        match self.version {
            None => Some(&self.versions.noted.notes.tags),
            Some(version) => {
                self.versions.versions_noted.get(&version).map(|noted| &noted.notes.tags)
            }
        }
    }

    fn created(&self) -> u64 {
        let of_model = || self.versions.created_unix_ms.unwrap_or_default();
        let Some(version) = self.version else { return of_model() };
        let live = self.versions.live.get(&version).map(|live| live.created_unix_ms);
        let linked = || self.versions.linked.get(&version).map(|link| link.created_unix_ms);
        live.or_else(linked).unwrap_or_default()
    }

    fn updated(&self) -> u64 {
        let noted = match self.version {
            None => Some(&self.versions.noted),
            Some(version) => self.versions.versions_noted.get(&version),
        };
        noted.map_or(0, |noted| noted.updated_unix_ms).max(self.created())
    }

    /// About as many as its record takes in a message; with the newest version where it is a
    /// model's.
    fn bytes(&self) -> usize {
        let newest = || self.newest().map(|version| View { version: Some(version), ..*self });
        let of_newest =
            if self.version.is_none() { newest().map_or(0, |it| it.bytes()) } else { 0 };
        let noted = match self.version {
            None => Some(&self.versions.noted),
            Some(version) => self.versions.versions_noted.get(&version),
        };
        let notes = noted.map_or(0, |noted| {
            let tags = noted.notes.tags.iter().map(|(key, value)| key.len() + value.len() + 16);
            noted.notes.description.len() + tags.sum::<usize>()
        });
        let live = self.version.and_then(|version| self.versions.live.get(&version));
        let metrics = live.map_or(0, |live| live.metrics.len() * 64);
        let linked = self.version.and_then(|version| self.versions.linked.get(&version));
        let place = linked.map_or(0, |link| link.place.len());
        // Names, times and digests.
        512 + notes + metrics + place + self.versions.aliases.len() * 80 + of_newest
    }

    fn newest(&self) -> Option<u64> {
        let live = self.versions.live.last_key_value().map(|(&version, _)| version);
        live.max(self.versions.linked.last_key_value().map(|(&version, _)| version))
    }

    fn model_record(self) -> ModelRecord {
        let newest = self.newest();
        let notes = self.versions.noted.notes.clone();
        ModelRecord {
            model: self.model.to_owned(),
            created_unix_ms: self.created(),
            updated_unix_ms: self.updated(),
            description: notes.description,
            tags: notes.tags,
            aliases: self.versions.aliases.clone(),
            latest: newest
                .map(|number| View { version: Some(number), ..self }.version_record(number)),
        }
    }

    fn version_record(self, version: u64) -> VersionRecord {
        let versions = self.versions;
        let notes = versions.versions_noted.get(&version);
        let notes = notes.map(|noted| noted.notes.clone()).unwrap_or_default();
        let named = versions.aliases.iter().filter(|(_, named)| **named == version);
        let origin = match (versions.live.get(&version), versions.linked.get(&version)) {
            (Some(live), _) => Origin::Published {
                run: live.run.clone(),
                digest: live.digest.clone(),
                job_digest: live.job_digest.clone(),
                parent: live.parent.as_ref().map(|of| format!("{}/{}", of.model, of.version)),
                data_digest: live.data_digest.clone(),
                artifact_blake3: live.artifact.blake3.clone(),
                metrics: live.metrics.clone(),
            },
            (None, Some(link)) => {
                Origin::Linked { place: link.place.clone(), run: link.run.clone() }
            }
            // A view is of what is there.
            (None, None) => Origin::Linked { place: String::new(), run: None },
        };
        VersionRecord {
            model: self.model.to_owned(),
            version,
            created_unix_ms: self.created(),
            updated_unix_ms: self.updated(),
            description: notes.description,
            tags: notes.tags,
            aliases: named.map(|(alias, _)| alias.clone()).collect(),
            origin,
        }
    }
}
