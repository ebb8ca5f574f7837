//! A step's passes over memory: everything that is done to a value is done while it is in the
//! nearest cache.

use super::{EARLIER_KEPT, Shard};
use crate::finite::first_not_finite;
use crate::messages::{PushError, Values};
use crate::vector::wide;

/// Values of a pass: with those of the versions and of the optimizer half of the nearest cache.
const PASS: usize = 1024;
/// Vectors of state that an optimizer keeps at most.
const STATE_MAX: usize = 2;

/// The gradient of a complete step, and what makes the mean of it.
#[derive(Debug)]
pub(super) struct Complete {
    pub(super) values: Values,
    /// Multiplies each value first.
    pub(super) scale: f32,
    /// Then limits it, either sign; 0 doesn't.
    pub(super) clip: f32,
}

/// What is not finite.
struct NotFinite {
    what: String,
    /// In the shard.
    place: usize,
}

impl Complete {
    /// The values of one pass.
    ///
    /// # Errors
    /// One isn't finite before it is limited, which would make a number of an infinity.
    fn read(&self, first: usize, out: &mut [f32]) -> Result<(), NotFinite> {
        let from = &self.values[first..first + out.len()];
        wide(|| out.iter_mut().zip(from).for_each(|(out, value)| *out = value * self.scale));
        if let Some(place) = first_not_finite(out) {
            return Err(NotFinite { what: "sums of gradients".to_owned(), place: first + place });
        }
        if self.clip > 0.0 {
            wide(|| out.iter_mut().for_each(|value| *value = value.clamp(-self.clip, self.clip)));
        }
        Ok(())
    }
}

impl Shard {
    /// The mean gradient itself.
    ///
    /// # Errors
    /// [`PushError::Overflow`].
    pub(super) fn mean(&mut self, gradient: Complete) -> Result<Complete, PushError> {
        let mut mean = self.pool.take_or_new(gradient.values.len());
        let read = mean
            .chunks_mut(PASS)
            .enumerate()
            .try_for_each(|(pass, out)| gradient.read(pass * PASS, out));
        read.map_err(|found| self.overflows(found))?;
        self.reduction.pool().give(gradient.values);
        Ok(Complete { values: self.pool.lend(mean), scale: 1.0, clip: 0.0 })
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
        self.pass_over(&gradient, &mut next, &mut mean).map_err(|found| self.overflows(found))?;
        let next = self.pool.lend(next);
        self.earlier.push_front(std::mem::replace(&mut self.current, next));
        self.earlier.truncate(EARLIER_KEPT);
        self.version = self.version.next();
        self.reduction.pool().give(gradient.values);
        Ok(if is_kept { self.pool.lend(mean) } else { Values::default() })
    }

    fn pass_over(
        &mut self,
        gradient: &Complete,
        next: &mut [f32],
        mean: &mut [f32],
    ) -> Result<(), NotFinite> {
        let (step, names) = (self.version, self.optimizer.state_names());
        let mut block = [0.0; PASS];
        let passes = self.current.chunks(PASS).zip(next.chunks_mut(PASS));
        for (pass, (old, new)) in passes.enumerate() {
            let (first, len) = (pass * PASS, old.len());
            let block = &mut block[..len];
            gradient.read(first, block)?;
            if let Some(mean) = mean.get_mut(first..first + len) {
                mean.copy_from_slice(block);
            }
            let mut state: [&mut [f32]; STATE_MAX] = Default::default();
            for (of, whole) in state.iter_mut().zip(&mut self.state) {
                *of = &mut whole[first..first + len];
            }
            let state = &mut state[..names.len()];
            self.optimizer.apply(step, block, old, new, state);
            let found = |what: String| move |place| NotFinite { what, place: first + place };
            if let Some(place) = first_not_finite(new) {
                return Err(found("new parameters".to_owned())(place));
            }
            for (name, values) in names.iter().zip(state) {
                if let Some(place) = first_not_finite(values) {
                    return Err(found(format!("{name} values of the optimizer"))(place));
                }
            }
        }
        Ok(())
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
