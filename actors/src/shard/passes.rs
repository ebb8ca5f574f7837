//! A step's passes over memory: everything that is done to a value is done while it is at hand.

use super::{EARLIER_KEPT, Shard};
use crate::finite::first_not_finite;
use crate::messages::{PushError, Values};
use crate::reading::Reading;

/// Values of a part, where the mean gradient is kept: it is read again from the nearest cache.
const PART: usize = 4096;
/// Vectors of state that an optimizer keeps at most.
const STATE_MAX: usize = 2;

/// The gradient of a complete step, and what makes the mean of it.
#[derive(Debug)]
pub(super) struct Complete {
    pub(super) values: Values,
    pub(super) reading: Reading,
}

/// What is not finite.
struct NotFinite {
    what: String,
    /// In the shard.
    place: usize,
}

impl Shard {
    /// The mean gradient itself.
    ///
    /// # Errors
    /// [`PushError::Overflow`].
    pub(super) fn mean(&mut self, gradient: Complete) -> Result<Complete, PushError> {
        let Complete { values, reading } = gradient;
        let mut mean = self.pool.take_or_new(values.len());
        if !reading.read(&values, &mut mean) {
            let place = reading.first_not_finite(&values).unwrap_or_default();
            let what = "sums of gradients".to_owned();
            return Err(self.overflows(NotFinite { what, place }));
        }
        self.reduction.pool().give(values);
        Ok(Complete { values: self.pool.lend(mean), reading: Reading::AS_IT_IS })
    }

    /// The next version. Returns the mean gradient where it `is_kept`.
    ///
    /// # Errors
    /// [`PushError::Overflow`]: it is of no use any more; the version stays.
    pub(super) fn advance(
        &mut self,
        gradient: Complete,
        is_kept: bool,
    ) -> Result<Values, PushError> {
        let len = self.range.len();
        let mut next = self.pool.take_or_new(len);
        let mut mean = if is_kept { self.pool.take_or_new(len) } else { Vec::new() };
        let is_finite = if is_kept {
            self.update_and_keep(&gradient, &mut next, &mut mean)
        } else {
            let Complete { values, reading } = &gradient;
            let (old, state) = (&self.current, &mut self.state);
            self.optimizer.apply_read(self.version, values, *reading, old, &mut next, state)
        };
        if !is_finite {
            let found = self.find(&gradient, &next);
            return Err(self.overflows(found));
        }
        let next = self.pool.lend(next);
        self.earlier.push_front(std::mem::replace(&mut self.current, next));
        self.earlier.truncate(EARLIER_KEPT);
        self.version = self.version.next();
        self.reduction.pool().give(gradient.values);
        Ok(if is_kept { self.pool.lend(mean) } else { Values::default() })
    }

    /// Part by part, so that what is written to `mean` is at hand for the update.
    fn update_and_keep(&mut self, gradient: &Complete, next: &mut [f32], mean: &mut [f32]) -> bool {
        let states = self.state.len().min(STATE_MAX);
        let mut is_finite = true;
        let parts = self.current.chunks(PART).zip(next.chunks_mut(PART));
        for (index, (old, new)) in parts.enumerate() {
            let part = index * PART..index * PART + old.len();
            let mean = &mut mean[part.clone()];
            is_finite &= gradient.reading.read(&gradient.values[part.clone()], mean);
            let mut state: [&mut [f32]; STATE_MAX] = Default::default();
            for (of, whole) in state.iter_mut().zip(&mut self.state) {
                *of = &mut whole[part.clone()];
            }
            let (read, state) = (Reading::AS_IT_IS, &mut state[..states]);
            is_finite &= self.optimizer.apply_read(self.version, mean, read, old, new, state);
        }
        is_finite
    }

    /// Looks for what was not finite.
    fn find(&self, gradient: &Complete, next: &[f32]) -> NotFinite {
        let found = |what: &str, place| NotFinite { what: what.to_owned(), place };
        if let Some(place) = gradient.reading.first_not_finite(&gradient.values) {
            return found("sums of gradients", place);
        }
        if let Some(place) = first_not_finite(next) {
            return found("new parameters", place);
        }
        let names = self.optimizer.state_names().iter().zip(&self.state);
        let mut bad = names.filter_map(|(name, values)| Some((name, first_not_finite(values)?)));
        let (name, place) = bad.next().unwrap_or((&"", 0));
        found(&format!("{name} values of the optimizer"), place)
    }

    /// Ends the step.
    fn overflows(&mut self, found: NotFinite) -> PushError {
        let NotFinite { what, place } = found;
        let index = self.range.start + place;
        let tensor = self.plan.layout.tensor_at(index).map_or("", |tensor| tensor.name.as_str());
        let (shard, step, tensor) = (self.id, self.version, tensor.to_owned());
        let overflow = PushError::Overflow { shard, step, what, tensor, index };
        self.overflow = Some(overflow.clone());
        overflow
    }
}
