//! Which models a service offers: all that the registry has, but for those that were unloaded.

use std::collections::BTreeSet;

/// Kept by name, for all versions of a model, those that will be published included. Only models
/// that the registry has known get here, so it is as bounded as the registry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Offer {
    unloaded: BTreeSet<String>,
}

impl Offer {
    /// The model is not served until it is loaded.
    pub fn unload(&mut self, model: &str) {
        self.unloaded.insert(model.to_owned());
    }

    /// The model is served again, if it was not.
    pub fn load(&mut self, model: &str) {
        self.unloaded.remove(model);
    }

    /// Whether a request for this model is answered, should there be such a model.
    pub fn has(&self, model: &str) -> bool {
        !self.unloaded.contains(model)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_offered_until_it_is_unloaded_and_again_when_it_is_loaded() {
        let mut offer = Offer::default();
        assert!(offer.has("a"));
        for _ in 0..2 {
            offer.unload("a");
            assert!(!offer.has("a") && offer.has("b"));
        }
        offer.load("a");
        offer.load("b");
        assert_eq!(offer, Offer::default());
    }
}
