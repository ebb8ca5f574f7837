//! Vectors as long as a model that are used again: a step allocates none.

use crate::messages::Values;

/// Lends vectors as shared values, and takes them back when nobody else holds them any more.
///
/// What is lent counts as shared as long as the pool has it: whoever would change it in place, as
/// [`std::sync::Arc::make_mut`] does, gets a copy.
#[derive(Clone, Debug)]
pub struct Pool {
    /// Oldest first.
    lent: Vec<Values>,
    free: Vec<Vec<f32>>,
    most: usize,
}

impl Pool {
    /// `most`: vectors that it keeps, lent and free.
    pub fn new(most: usize) -> Self {
        Self { lent: Vec::new(), free: Vec::new(), most }
    }

    /// A vector of `len` values, whatever they are; `None` where none is free.
    pub fn take(&mut self, len: usize) -> Option<Vec<f32>> {
        if let Some(at) = self.free.iter().position(|values| values.len() == len) {
            return Some(self.free.swap_remove(at));
        }
        let is_free = |values: &Values| Values::strong_count(values) == 1 && values.len() == len;
        let at = self.lent.iter().position(is_free)?;
        Values::try_unwrap(self.lent.remove(at)).ok()
    }

    /// The same, or a new one of zeros.
    pub fn take_or_new(&mut self, len: usize) -> Vec<f32> {
        self.take(len).unwrap_or_else(|| vec![0.0; len])
    }

    /// Shares a vector until nobody else holds it.
    pub fn lend(&mut self, values: Vec<f32>) -> Values {
        let values = Values::new(values);
        self.lend_shared(&values);
        values
    }

    /// The same of one that is shared already.
    pub fn lend_shared(&mut self, values: &Values) {
        self.make_room();
        self.lent.push(Values::clone(values));
    }

    /// Takes back what nobody else holds; else it was not the pool's.
    pub fn give(&mut self, values: Values) {
        if let Ok(values) = Values::try_unwrap(values) {
            self.make_room();
            self.free.push(values);
        }
    }

    /// Lets go what is least likely to be asked for again: what is free, then what was lent first.
    fn make_room(&mut self) {
        if self.lent.len() + self.free.len() < self.most {
            return;
        }
        if !self.free.is_empty() {
            self.free.remove(0);
            return;
        }
        let is_free = |values: &Values| Values::strong_count(values) == 1;
        let at = self.lent.iter().position(is_free).unwrap_or(0);
        if at < self.lent.len() {
            self.lent.remove(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_lent_comes_again_when_nobody_holds_it_and_never_before() {
        let mut pool = Pool::new(2);
        assert_eq!(pool.take(3), None);
        let lent = pool.lend(vec![1.0; 3]);
        assert_eq!((pool.take(3), &*lent), (None, &vec![1.0; 3]));
        drop(lent);
        assert_eq!((pool.take(2), pool.take(3), pool.take(3)), (None, Some(vec![1.0; 3]), None));
    }

    #[test]
    fn what_is_given_back_comes_again_and_what_others_hold_is_not_taken() {
        let mut pool = Pool::new(2);
        let values = Values::new(vec![1.0; 3]);
        pool.give(Values::clone(&values));
        assert_eq!(pool.take(3), None);
        pool.give(values);
        assert_eq!(pool.take(3), Some(vec![1.0; 3]));
    }

    #[test]
    fn it_keeps_no_more_than_it_may_and_lets_go_what_is_free_first() {
        let mut pool = Pool::new(2);
        let first = pool.lend(vec![1.0; 1]);
        drop(pool.lend(vec![2.0; 2]));
        let third = pool.lend(vec![3.0; 3]);
        assert_eq!(pool.take(2), None);
        drop((first, third));
        assert_eq!((pool.take(1), pool.take(3)), (Some(vec![1.0]), Some(vec![3.0; 3])));
        for len in 0..5 {
            pool.give(Values::new(vec![0.0; len]));
        }
        assert_eq!(pool.free.len(), 2);
    }
}
