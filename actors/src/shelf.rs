//! Which models are in memory: within a budget, the least worth leaves first, and none so soon that
//! loading takes the time that answering should have.

use std::collections::BTreeMap;
use std::time::Duration;

/// A version that nobody can have two of: `(model, version)`.
pub(crate) type Key = (String, u64);

/// Entries whatever their size: beside its parameters each has its description and its layout.
const ENTRIES_MAX: usize = 1024;

/// A model stays at least so many times as long as loading it took, so that no more than about a
/// tenth of the time goes into loading where models alternate that don't fit together.
const STAYS: u32 = 10;

/// The longest such stay: who came over a slow link, or waited for its turn, must not keep others out
/// for minutes.
const STAYS_MAX: Duration = Duration::from_secs(30);

/// Models in memory, and those that are being loaded, whose memory is already theirs.
///
/// Who leaves is decided by GreedyDual-Size (Cao and Irani, 1997): an entry is worth the time that
/// loading it again would take for each of its bytes, on top of what the last one that left was
/// worth; so what is dear, small, or was used lately stays. Times are those since any moment that
/// is the same for all calls.
#[derive(Debug)]
pub(crate) struct Shelf<T> {
    budget: u64,
    used: u64,
    /// What the one was worth that left last.
    floor: f64,
    entries: BTreeMap<Key, Entry<T>>,
}

#[derive(Debug)]
struct Entry<T> {
    value: T,
    bytes: u64,
    /// `None` while it is being loaded.
    loaded: Option<Loaded>,
}

#[derive(Clone, Copy, Debug)]
struct Loaded {
    /// Seconds a byte.
    dear: f64,
    worth: f64,
    /// From when on it may leave.
    settled: Duration,
}

/// Whether there is room for a model.
#[derive(Debug, PartialEq)]
pub(crate) enum Room<T> {
    /// It has its place, and is or will be there.
    Here(T),
    /// Those that are there stay until then, or are being loaded (no time is known).
    Wait(Option<Duration>),
    /// It is larger than all there is.
    Never { budget: u64 },
}

impl<T: Clone> Shelf<T> {
    /// `budget`: bytes of all models together.
    pub(crate) fn new(budget: u64) -> Self {
        Self { budget, used: 0, floor: 0.0, entries: BTreeMap::new() }
    }

    /// The model, or a place for it, which `make` fills; others leave for it.
    pub(crate) fn place(
        &mut self,
        now: Duration,
        key: &Key,
        bytes: u64,
        make: impl FnOnce() -> T,
    ) -> Room<T> {
        if let Some(value) = self.used(key) {
            return Room::Here(value);
        }
        let budget = self.budget;
        if bytes > budget {
            return Room::Never { budget };
        }
        let leaving = match self.leaving(now, bytes) {
            Ok(leaving) => leaving,
            Err(when) => return Room::Wait(when),
        };
        for (key, worth) in leaving {
            self.floor = worth;
            self.remove(&key);
        }
        self.used += bytes;
        let value = make();
        self.entries.insert(key.clone(), Entry { value: value.clone(), bytes, loaded: None });
        Room::Here(value)
    }

    /// The model, which is worth more for it.
    pub(crate) fn used(&mut self, key: &Key) -> Option<T> {
        let floor = self.floor;
        let entry = self.entries.get_mut(key)?;
        if let Some(loaded) = &mut entry.loaded {
            loaded.worth = floor + loaded.dear;
        }
        Some(entry.value.clone())
    }

    /// Who leaves for so many bytes, what each is worth, the least first; or when somebody else may.
    /// Nobody leaves where that would not be enough.
    fn leaving(&self, now: Duration, bytes: u64) -> Result<Vec<(Key, f64)>, Option<Duration>> {
        let all = self.entries.iter();
        let loaded = all.filter_map(|(key, entry)| Some((key, entry.bytes, entry.loaded?)));
        let (mut free, settling): (Vec<_>, Vec<_>) =
            loaded.partition(|(_, _, loaded)| loaded.settled <= now);
        free.sort_by(|(_, _, a), (_, _, b)| a.worth.total_cmp(&b.worth));
        let (mut used, mut entries) = (self.used, self.entries.len());
        let mut leaving = Vec::new();
        let mut free = free.into_iter();
        while used.saturating_add(bytes) > self.budget || entries >= ENTRIES_MAX {
            let Some((key, bytes, loaded)) = free.next() else {
                return Err(settling.into_iter().map(|(_, _, loaded)| loaded.settled).min());
            };
            (used, entries) = (used.saturating_sub(bytes), entries - 1);
            leaving.push((key.clone(), loaded.worth));
        }
        Ok(leaving)
    }

    /// Loading it took so long.
    pub(crate) fn loaded(&mut self, now: Duration, key: &Key, took: Duration) {
        let floor = self.floor;
        let Some(entry) = self.entries.get_mut(key) else { return };
        let dear = took.as_secs_f64() / entry.bytes.max(1) as f64;
        let settled = now.saturating_add(took.saturating_mul(STAYS).min(STAYS_MAX));
        entry.loaded = Some(Loaded { dear, worth: floor + dear, settled });
    }

    pub(crate) fn get(&self, key: &Key) -> Option<&T> {
        self.entries.get(key).map(|entry| &entry.value)
    }

    pub(crate) fn remove(&mut self, key: &Key) {
        if let Some(entry) = self.entries.remove(key) {
            self.used = self.used.saturating_sub(entry.bytes);
        }
    }

    /// Removes what is not to be kept, and says how much that was.
    pub(crate) fn retain(&mut self, mut keep: impl FnMut(&Key) -> bool) -> usize {
        let gone: Vec<Key> = self.entries.keys().filter(|key| !keep(key)).cloned().collect();
        gone.iter().for_each(|key| self.remove(key));
        gone.len()
    }

    /// Bytes of all models that are there.
    pub(crate) fn bytes(&self) -> u64 {
        self.used
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(model: &str) -> Key {
        (model.to_owned(), 1)
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn place(shelf: &mut Shelf<u32>, now: u64, model: &str, bytes: u64) -> Room<u32> {
        shelf.place(at(now), &key(model), bytes, || 7)
    }

    /// Puts it there; loading takes a second.
    fn load(shelf: &mut Shelf<u32>, now: u64, model: &str, bytes: u64) {
        assert_eq!(place(shelf, now, model, bytes), Room::Here(7));
        shelf.loaded(at(now), &key(model), at(1));
    }

    fn there(shelf: &Shelf<u32>) -> Vec<&str> {
        shelf.entries.keys().map(|(model, _)| model.as_str()).collect()
    }

    #[test]
    fn what_was_not_used_for_longest_leaves_first_among_equals() {
        let mut shelf = Shelf::new(30);
        for model in ["a", "b", "c"] {
            load(&mut shelf, 0, model, 10);
        }
        load(&mut shelf, 20, "d", 10);
        assert_eq!(there(&shelf), ["b", "c", "d"]);
        place(&mut shelf, 40, "b", 10);
        load(&mut shelf, 40, "e", 10);
        assert_eq!(there(&shelf), ["b", "d", "e"]);
        assert_eq!((shelf.bytes(), shelf.len()), (30, 3));
    }

    #[test]
    fn what_is_dear_for_its_size_stays() {
        let mut shelf = Shelf::new(30);
        load(&mut shelf, 0, "large", 20);
        load(&mut shelf, 0, "small", 10);
        load(&mut shelf, 20, "new", 10);
        assert_eq!(there(&shelf), ["new", "small"]);
    }

    #[test]
    fn models_that_alternate_and_do_not_fit_together_stay_ten_times_as_long_as_they_load() {
        let mut shelf = Shelf::new(10);
        load(&mut shelf, 0, "a", 10);
        assert_eq!(place(&mut shelf, 3, "b", 10), Room::Wait(Some(at(10))));
        assert_eq!(there(&shelf), ["a"]);
        load(&mut shelf, 10, "b", 10);
        assert_eq!(there(&shelf), ["b"]);
    }

    #[test]
    fn nobody_leaves_for_a_model_that_would_not_fit_all_the_same() {
        let mut shelf = Shelf::new(10);
        load(&mut shelf, 0, "b", 3);
        load(&mut shelf, 15, "a", 6);
        assert_eq!(place(&mut shelf, 16, "c", 8), Room::Wait(Some(at(25))));
        assert_eq!(there(&shelf), ["a", "b"]);
        load(&mut shelf, 25, "c", 8);
        assert_eq!(there(&shelf), ["c"]);
    }

    #[test]
    fn memory_belongs_to_a_model_from_when_it_begins_to_load() {
        let mut shelf = Shelf::new(10);
        assert_eq!(place(&mut shelf, 0, "a", 10), Room::Here(7));
        assert_eq!(place(&mut shelf, 0, "a", 10), Room::Here(7));
        assert_eq!(place(&mut shelf, 99, "b", 1), Room::Wait(None));
        shelf.remove(&key("a"));
        assert_eq!(place(&mut shelf, 99, "b", 1), Room::Here(7));
    }

    #[test]
    fn a_model_larger_than_the_budget_has_no_place() {
        let mut shelf = Shelf::new(10);
        load(&mut shelf, 0, "a", 10);
        assert_eq!(place(&mut shelf, 99, "b", 11), Room::Never { budget: 10 });
        assert_eq!(there(&shelf), ["a"]);
    }

    #[test]
    fn there_are_no_more_entries_than_may_be() {
        let mut shelf = Shelf::new(1 << 40);
        for number in 0..=ENTRIES_MAX as u64 {
            load(&mut shelf, 20 * number, &number.to_string(), 0);
        }
        assert_eq!(shelf.len(), ENTRIES_MAX);
        assert_eq!(shelf.get(&key("0")), None);
    }

    proptest::proptest! {
        #[test]
        fn no_more_memory_is_used_than_there_is(
            steps in proptest::collection::vec((0..9u64, 0..40u64, 0..3u8), 1..200),
        ) {
            let mut shelf = Shelf::new(100);
            for (now, (model, bytes, what)) in (0..).zip(steps) {
                let key = key(&model.to_string());
                match what {
                    0 => drop(shelf.place(at(now), &key, bytes, || 7)),
                    1 => shelf.loaded(at(now), &key, Duration::from_millis(bytes)),
                    _ => shelf.remove(&key),
                }
                let used: u64 = shelf.entries.values().map(|entry| entry.bytes).sum();
                proptest::prop_assert!(used <= 100);
                proptest::prop_assert_eq!(used, shelf.bytes());
            }
        }
    }
}
