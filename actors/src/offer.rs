//! Which models a service offers: all that the registry has, but for those that were unloaded.

use std::collections::BTreeMap;

/// Kept by name, for all versions of a model, those that will be published included. Only models
/// that the registry has known get here, so it is as bounded as the registry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Offer {
    /// With the number of the unload.
    unloaded: BTreeMap<String, u64>,
    unloads: u64,
}

impl Offer {
    /// The model is not served until it is loaded.
    pub fn unload(&mut self, model: &str) {
        self.unloads += 1;
        self.unloaded.insert(model.to_owned(), self.unloads);
    }

    /// The model is served again, if it was not.
    pub fn load(&mut self, model: &str) {
        self.unloaded.remove(model);
    }

    /// Whether a request for this model is answered, should there be such a model.
    pub fn has(&self, model: &str) -> bool {
        !self.unloaded.contains_key(model)
    }

    /// Which unload holds for the model; none while it is served. A load that took long compares:
    /// it must not undo an unload that came after it began.
    pub fn unloaded_by(&self, model: &str) -> Option<u64> {
        self.unloaded.get(model).copied()
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
        assert!(offer.has("a") && offer.has("b"));
    }

    #[test]
    fn an_unload_can_be_told_from_the_one_before() {
        let mut offer = Offer::default();
        let served = offer.unloaded_by("a");
        offer.unload("a");
        let first = offer.unloaded_by("a");
        offer.unload("b");
        assert_eq!(offer.unloaded_by("a"), first);
        offer.unload("a");
        assert!(offer.unloaded_by("a") != first && first != served);
    }
}
