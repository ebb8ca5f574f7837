//! Why the registry refuses: to answer a question, or to make a change.

use serde::{Deserialize, Serialize};

use crate::catalog::CatalogError;
use crate::messages::{LinkError, RegistryStoreError, WirePart};
use crate::new_version::NewVersionError;

/// A question about the catalog was not answered.
#[derive(Clone, Debug, PartialEq, thiserror::Error, Serialize, Deserialize)]
pub enum FindError {
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    #[error(transparent)]
    Store(#[from] RegistryStoreError),
    /// Ask again later.
    #[error("{limit} artifacts are being read already")]
    Busy { limit: usize },
    #[error(transparent)]
    Link(#[from] LinkError),
}

/// A change of the catalog was not made, or its outcome is unknown ([`ChangeError::Store`],
/// [`ChangeError::Link`]): send the same message again.
#[derive(Clone, Debug, PartialEq, thiserror::Error, Serialize, Deserialize)]
pub enum ChangeError {
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    #[error(transparent)]
    Values(#[from] NewVersionError),
    #[error(transparent)]
    Store(#[from] RegistryStoreError),
    /// Other registries of the same store wrote faster each time.
    #[error("the log of the registry moved on {attempts} times while this change was written")]
    Contended { attempts: u32 },
    #[error("{limit} changes of the registry are waiting already")]
    Busy { limit: usize },
    #[error(transparent)]
    Link(#[from] LinkError),
}

/// Whether another registry of the same store may answer where this one did not. A refusal is an
/// answer: it is the same everywhere.
pub trait TryAnother {
    fn try_another(&self) -> bool;
}

impl TryAnother for FindError {
    fn try_another(&self) -> bool {
        self.may_pass()
    }
}

impl TryAnother for ChangeError {
    fn try_another(&self) -> bool {
        match self {
            Self::Store(error) => error.may_pass(),
            Self::Busy { .. } | Self::Link(_) => true,
            // The others write the same log.
            Self::Contended { .. } | Self::Catalog(_) | Self::Values(_) => false,
        }
    }
}

impl FindError {
    /// Whether the same question may be answered later.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Store(error) => error.may_pass(),
            Self::Busy { .. } | Self::Link(_) => true,
            Self::Catalog(_) => false,
        }
    }
}

impl ChangeError {
    /// Whether the same change may succeed later.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Store(error) => error.may_pass(),
            Self::Contended { .. } | Self::Busy { .. } | Self::Link(_) => true,
            Self::Catalog(_) | Self::Values(_) => false,
        }
    }
}

impl WirePart for FindError {}
impl WirePart for ChangeError {}
