//! Kinds of models by name: builds a model again from its description.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::{Model, ModelDescription};

type Factory = Arc<dyn Fn(&serde_json::Value) -> Result<Arc<dyn Model>, ModelError> + Send + Sync>;

/// The kinds that this process can build.
#[derive(Clone)]
pub struct ModelKinds {
    factories: BTreeMap<String, Factory>,
}

/// A model can't be built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ModelError {
    #[error("no model of kind {kind:?}; known are {}", known.join(", "))]
    UnknownKind { kind: String, known: Vec<String> },
    #[error("settings of a {kind} model: {cause}")]
    Settings { kind: String, cause: String },
}

impl ModelKinds {
    pub fn builtin() -> Self {
        Self { factories: BTreeMap::new() }
    }

    pub fn register(
        &mut self,
        kind: impl Into<String>,
        factory: impl Fn(&serde_json::Value) -> Result<Arc<dyn Model>, ModelError>
        + Send
        + Sync
        + 'static,
    ) {
        self.factories.insert(kind.into(), Arc::new(factory));
    }

    pub fn build(&self, description: &ModelDescription) -> Result<Arc<dyn Model>, ModelError> {
        match self.factories.get(&description.kind) {
            Some(factory) => factory(&description.settings),
            None => Err(ModelError::UnknownKind {
                kind: description.kind.clone(),
                known: self.factories.keys().cloned().collect(),
            }),
        }
    }
}

impl fmt::Debug for ModelKinds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.factories.keys()).finish()
    }
}
