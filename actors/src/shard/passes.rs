//! A step's passes over memory: everything that is done to a value is done while it is at hand.

use super::{EARLIER_KEPT, Shard};
use crate::finite::first_not_finite;
use crate::messages::{PushError, Values};
use crate::reading::Reading;
use crate::reduction::Total;

/// Values of a part: what is written to its sum or its mean is read again from the nearest cache.
const PART: usize = 4096;
/// Vectors of state that an optimizer keeps at most.
const STATE_MAX: usize = 2;

/// The gradient of a complete step, and what makes the mean of it.
#[derive(Debug)]
pub(super) struct Complete {
    pub(super) sum: Total,
    pub(super) reading: Reading,
}

impl Complete {
    /// A gradient that is added up, and read as it is.
    pub(super) fn as_it_is(values: Values) -> Self {
        Self { sum: Total { left: values, right: None, rows: 0 }, reading: Reading::AS_IT_IS }
    }

    fn first_not_finite(&self) -> Option<usize> {
        let mut sum = [0.0; PART];
        (0..self.sum.left.len()).step_by(PART).find_map(|place| {
            let values = self.sum.part(place, &mut sum);
            self.reading.first_not_finite(values).map(|at| place + at)
        })
    }
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
        let mut mean = self.pool.take_or_new(self.range.len());
        let (mut sum, mut is_finite) = ([0.0; PART], true);
        for (part, mean) in (0..).step_by(PART).zip(mean.chunks_mut(PART)) {
            is_finite &= gradient.reading.read(gradient.sum.part(part, &mut sum), mean);
        }
        if !is_finite {
            let place = gradient.first_not_finite().unwrap_or_default();
            let what = "sums of gradients".to_owned();
            return Err(self.overflows(NotFinite { what, place }));
        }
        self.let_go(gradient);
        Ok(Complete::as_it_is(self.pool.lend(mean)))
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
        if !self.update_parameters(&gradient, &mut next, &mut mean) {
            let found = self.find(&gradient, &next);
            return Err(self.overflows(found));
        }
        let next = self.pool.lend(next);
        self.earlier.push_front(std::mem::replace(&mut self.current, next));
        self.earlier.truncate(EARLIER_KEPT);
        self.version = self.version.next();
        self.let_go(gradient);
        Ok(if is_kept { self.pool.lend(mean) } else { Values::default() })
    }

    /// Part by part, from the sum's halves to the next version; writes the mean gradient where
    /// `mean` is not empty. Whether all was finite.
    fn update_parameters(
        &mut self,
        gradient: &Complete,
        next: &mut [f32],
        mean: &mut [f32],
    ) -> bool {
        let states = self.state.len().min(STATE_MAX);
        let (mut sum, mut is_finite) = ([0.0; PART], true);
        let parts = self.current.chunks(PART).zip(next.chunks_mut(PART));
        for (place, (old, new)) in (0..).step_by(PART).zip(parts) {
            let part = place..place + old.len();
            let (mut values, mut reading) = (gradient.sum.part(place, &mut sum), gradient.reading);
            if let Some(mean) = mean.get_mut(part.clone()) {
                is_finite &= reading.read(values, mean);
                (values, reading) = (mean, Reading::AS_IT_IS);
            }
            let mut state: [&mut [f32]; STATE_MAX] = Default::default();
            for (of, whole) in state.iter_mut().zip(&mut self.state) {
                *of = &mut whole[part.clone()];
            }
            let state = &mut state[..states];
            is_finite &= self.optimizer.apply_read(self.version, values, reading, old, new, state);
        }
        is_finite
    }

    /// Memory of a step that is done.
    fn let_go(&mut self, gradient: Complete) {
        let pool = self.reduction.pool();
        pool.give(gradient.sum.left);
        gradient.sum.right.into_iter().for_each(|right| pool.give(right));
    }

    /// Looks for what was not finite.
    fn find(&self, gradient: &Complete, next: &[f32]) -> NotFinite {
        let found = |what: &str, place| NotFinite { what: what.to_owned(), place };
        if let Some(place) = gradient.first_not_finite() {
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
