//! A map that keeps what was used last.

use std::borrow::Borrow;
use std::collections::BTreeMap;

/// At most `capacity` entries; the one that was not used for longest makes room for a new one.
#[derive(Debug)]
pub(crate) struct Recent<K, V> {
    capacity: usize,
    /// Counts uses; the value beside an entry is the count at its last use.
    uses: u64,
    entries: BTreeMap<K, (u64, V)>,
}

impl<K: Ord + Clone, V> Recent<K, V> {
    pub(crate) fn new(capacity: usize) -> Self {
        assert!(capacity > 0, "a map without room keeps nothing");
        Self { capacity, uses: 0, entries: BTreeMap::new() }
    }

    /// The value of a key, made if there is none.
    pub(crate) fn get_or_insert_with(&mut self, key: K, make: impl FnOnce() -> V) -> &V {
        self.uses += 1;
        if !self.entries.contains_key(&key) && self.entries.len() == self.capacity {
            let oldest = self.entries.iter().min_by_key(|(_, (used, _))| *used);
            if let Some(oldest) = oldest.map(|(key, _)| key.clone()) {
                self.entries.remove(&oldest);
            }
        }
        let entry = self.entries.entry(key).or_insert_with(|| (0, make()));
        entry.0 = self.uses;
        &entry.1
    }

    /// Sets the value of a key.
    pub(crate) fn insert(&mut self, key: K, value: V) {
        self.entries.remove(&key);
        self.get_or_insert_with(key, || value);
    }

    pub(crate) fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.entries.get(key).map(|(_, value)| value)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.entries.iter().map(|(key, (_, value))| (key, value))
    }

    pub(crate) fn remove(&mut self, key: &K) {
        self.entries.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_entry_unused_for_longest_makes_room() {
        let mut recent = Recent::new(2);
        recent.insert("a", 1);
        recent.insert("b", 2);
        recent.get_or_insert_with("a", || 0);
        recent.insert("c", 3);
        assert_eq!(recent.get(&"a"), Some(&1));
        assert_eq!(recent.get(&"b"), None);
        assert_eq!(recent.get(&"c"), Some(&3));
    }
}
