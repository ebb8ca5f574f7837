//! Values by number, found without a search.

/// Values by the order in which they came; a number is never used again.
pub(super) struct Numbered<T>(Vec<Option<T>>);

impl<T> Default for Numbered<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Numbered<T> {
    pub(super) fn insert(&mut self, value: T) -> u64 {
        self.0.push(Some(value));
        self.0.len() as u64 - 1
    }

    pub(super) fn get(&self, number: u64) -> Option<&T> {
        self.0.get(number as usize)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, number: u64) -> Option<&mut T> {
        self.0.get_mut(number as usize)?.as_mut()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &T)> {
        (0..).zip(&self.0).filter_map(|(number, value)| Some((number, value.as_ref()?)))
    }

    pub(super) fn retain(&mut self, keeps: impl Fn(&T) -> bool) {
        for value in &mut self.0 {
            value.take_if(|value| !keeps(value));
        }
    }
}

/// Values that are put down and taken up once; numbers are used again.
pub(super) struct Shelf<T> {
    places: Vec<Option<T>>,
    free: Vec<u64>,
}

impl<T> Default for Shelf<T> {
    fn default() -> Self {
        Self { places: Vec::new(), free: Vec::new() }
    }
}

impl<T> Shelf<T> {
    pub(super) fn put(&mut self, value: T) -> u64 {
        let free = self.free.pop();
        let place = free.unwrap_or(self.places.len() as u64);
        match self.places.get_mut(place as usize) {
            Some(empty) => *empty = Some(value),
            None => self.places.push(Some(value)),
        }
        place
    }

    pub(super) fn take(&mut self, place: u64) -> Option<T> {
        let value = self.places.get_mut(place as usize)?.take()?;
        self.free.push(place);
        Some(value)
    }
}
