//! Which version answers a request that names none: weights, and a shadow that answers nobody.

use serde::{Deserialize, Serialize};

use crate::version::VersionRef;

/// Versions among which a model's requests are split: an experiment has two, a slow rollout three.
const SPLITS_MAX: usize = 16;

/// Weights are per mille in practice; sums of these stay exact.
const WEIGHT_MAX: u32 = 1_000_000;

/// How the requests of a model that name no version are split.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// 1 to 16, each version once, and one at least of a weight above 0.
    pub splits: Vec<Split>,
    /// Is asked what the chosen one is asked, behind all others. Its answers are compared and dropped.
    pub shadow: Option<VersionRef>,
}

/// A version and its part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Split {
    /// A name that moves moves its part along.
    pub version: VersionRef,
    /// In proportion to those of the others; 0 to 10⁶.
    pub weight: u32,
}

/// A route that splits nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum RouteError {
    #[error("a route has {got} versions; 1 to {SPLITS_MAX} can be named")]
    Splits { got: usize },
    #[error("version {version} has weight {weight}; {WEIGHT_MAX} is the most")]
    Weight { version: VersionRef, weight: u32 },
    #[error("no version of the route has a weight above 0")]
    Nothing,
    #[error("version {version} is named twice in the route")]
    Twice { version: VersionRef },
}

impl Route {
    /// # Errors
    /// See [`RouteError`].
    pub fn check(&self) -> Result<(), RouteError> {
        let got = self.splits.len();
        if !(1..=SPLITS_MAX).contains(&got) {
            return Err(RouteError::Splits { got });
        }
        for (at, Split { version, weight }) in self.splits.iter().enumerate() {
            let version = || version.clone();
            if *weight > WEIGHT_MAX {
                return Err(RouteError::Weight { version: version(), weight: *weight });
            }
            if self.splits[..at].iter().any(|split| split.version == version()) {
                return Err(RouteError::Twice { version: version() });
            }
        }
        let nothing = self.splits.iter().all(|split| split.weight == 0);
        if nothing { Err(RouteError::Nothing) } else { Ok(()) }
    }

    /// All versions that it names.
    pub fn versions(&self) -> impl Iterator<Item = &VersionRef> {
        self.splits.iter().map(|split| &split.version).chain(&self.shadow)
    }

    /// The version for a key: the same for the same key, everywhere and for as long as the weights
    /// are. Where a weight rises, keys move to its version alone, and where it falls, from it alone:
    /// weighted rendezvous hashing (Schindelhauer and Schomaker, 2005).
    ///
    /// `None` for a route that does not keep [`Route::check`].
    pub fn choose(&self, key: &[u8]) -> Option<&VersionRef> {
        let parts = self.splits.iter().filter(|split| split.weight > 0);
        let cost = |split: &Split| -uniform(key, &split.version).ln() / f64::from(split.weight);
        let costs = parts.map(|split| (cost(split), &split.version));
        costs.min_by(|(a, _), (b, _)| a.total_cmp(b)).map(|(_, version)| version)
    }
}

/// In (0, 1), by key and version.
fn uniform(key: &[u8], version: &VersionRef) -> f64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(key.len() as u64).to_le_bytes()).update(key);
    hasher.update(version.to_string().as_bytes());
    let [first, second, third, fourth, fifth, sixth, ..] = *hasher.finalize().as_bytes();
    let bits = u64::from_le_bytes([first, second, third, fourth, fifth, sixth, 0, 0]);
    (bits as f64 + 0.5) / (1u64 << 48) as f64
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn route(weights: &[(&str, u32)]) -> Route {
        let split = |(version, weight): &(&str, u32)| Split {
            version: version.parse().unwrap(),
            weight: *weight,
        };
        Route { splits: weights.iter().map(split).collect(), shadow: None }
    }

    fn chosen(route: &Route, keys: u32) -> Vec<String> {
        (0..keys).map(|key| route.choose(&key.to_le_bytes()).unwrap().to_string()).collect()
    }

    #[test]
    fn keys_are_split_by_weight() {
        let mut counts = BTreeMap::new();
        for version in chosen(&route(&[("production", 90), ("7", 9), ("latest", 1)]), 20_000) {
            *counts.entry(version).or_insert(0) += 1;
        }
        let share = |version: &str| f64::from(counts[version]) / 20_000.0;
        // Four standard deviations.
        assert!((share("production") - 0.9).abs() < 0.009, "{counts:?}");
        assert!((share("7") - 0.09).abs() < 0.009, "{counts:?}");
        assert!((share("latest") - 0.01).abs() < 0.003, "{counts:?}");
    }

    #[test]
    fn a_weight_that_rises_takes_keys_and_moves_no_others() {
        let before = chosen(&route(&[("1", 80), ("2", 15), ("3", 5)]), 5_000);
        let after = chosen(&route(&[("1", 80), ("2", 15), ("3", 50)]), 5_000);
        let moved: Vec<_> = before.iter().zip(&after).filter(|(a, b)| a != b).collect();
        assert!(moved.iter().all(|(_, to)| *to == "3") && moved.len() > 1_000);
        let reordered = chosen(&route(&[("3", 50), ("2", 15), ("1", 80)]), 5_000);
        assert_eq!(after, reordered);
    }

    #[test]
    fn a_version_without_weight_gets_nothing() {
        let all = chosen(&route(&[("1", 0), ("2", 1)]), 1_000);
        assert!(all.iter().all(|version| version == "2"));
        assert_eq!(route(&[("1", 0)]).choose(b""), None);
    }

    #[test]
    fn routes_that_split_nothing_are_refused() {
        let refused = |weights: &[(&str, u32)]| route(weights).check().unwrap_err().to_string();
        assert_eq!(refused(&[]), "a route has 0 versions; 1 to 16 can be named");
        assert_eq!(refused(&[("1", 0)]), "no version of the route has a weight above 0");
        assert_eq!(refused(&[("1", 1), ("1", 2)]), "version 1 is named twice in the route");
        let heavy = refused(&[("latest", 1_000_001)]);
        assert_eq!(heavy, "version latest has weight 1000001; 1000000 is the most");
        assert_eq!(route(&[("1", 0), ("production", 3)]).check(), Ok(()));
    }
}
