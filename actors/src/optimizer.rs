//! From the mean gradient of a step to the next parameters.

use crate::allocation::{NoMemory, zeros};
use crate::ids::Version;
use crate::job::{OptimizerKind, OptimizerSpec};
use crate::reading::{Reading, Watch};
use crate::schedule::Schedule;
use crate::vector::wide;

/// The update rule of a job. It holds no state: state belongs to a shard and is passed in.
///
/// With `g ← g + λ·w` first (L2) and η by the schedule:
/// - `sgd`: `w ← w − η·g`.
/// - `momentum` (Polyak): `u ← μ·u + g`, `w ← w − η·u`.
/// - `nesterov` (the form of Sutskever et al., 2013): `u ← μ·u + g`, `w ← w − η·(g + μ·u)`.
/// - `adam` (Kingma and Ba, 2015): `m ← β₁·m + (1−β₁)·g`, `v ← β₂·v + (1−β₂)·g²`,
///   `w ← w − η·m̂ / (√v̂ + ε)` with `m̂ = m / (1−β₁ᵗ)`, `v̂ = v / (1−β₂ᵗ)`, `t = version + 1`.
///
/// Each element is computed alone, with exact division and square root and no fused operations:
/// the bits don't depend on how the space is cut into shards, nor on the width of vectors.
#[derive(Clone, Debug)]
pub struct Optimizer {
    spec: OptimizerSpec,
    schedule: Schedule,
}

impl Optimizer {
    /// `total_steps` is the number of steps of the job, which the schedule needs.
    pub fn new(spec: &OptimizerSpec, total_steps: u64) -> Self {
        Self { spec: spec.clone(), schedule: Schedule::new(&spec.schedule, total_steps) }
    }

    /// Names of the vectors of state, each as long as the parameters, in the order of
    /// [`Optimizer::new_state`].
    pub fn state_names(&self) -> &'static [&'static str] {
        match self.spec.kind {
            OptimizerKind::Sgd => &[],
            OptimizerKind::Momentum | OptimizerKind::Nesterov => &["momentum"],
            OptimizerKind::Adam => &["mean", "variance"],
        }
    }

    /// The state before step 0, for `len` parameters: zeros.
    ///
    /// # Errors
    /// There is no memory for it.
    pub fn new_state(&self, len: usize) -> Result<Vec<Vec<f32>>, NoMemory> {
        self.state_names().iter().map(|_| zeros(len)).collect()
    }

    /// η of the step on `version`.
    pub fn learning_rate(&self, version: Version) -> f32 {
        (f64::from(self.spec.learning_rate) * self.schedule.factor(version)) as f32
    }

    /// Writes the parameters of `version + 1` into `new`, from those of `version` in `old`, and
    /// brings `state` from one to the other.
    ///
    /// The gradient is expected to be finite; what is not goes into parameters and state.
    ///
    /// # Panics
    /// If the slices differ in length, or `state` is not of [`Optimizer::new_state`].
    pub fn apply(
        &self,
        version: Version,
        gradient: &[f32],
        old: &[f32],
        new: &mut [f32],
        state: &mut [impl AsMut<[f32]>],
    ) {
        self.apply_read(version, gradient, Reading::AS_IT_IS, old, new, state);
    }

    /// The same with a gradient that is still to be read so, in one pass. Returns whether all that
    /// went in and came out is finite: the gradient before it was limited, parameters, state.
    ///
    /// # Panics
    /// As [`Optimizer::apply`].
    pub fn apply_read(
        &self,
        version: Version,
        gradient: &[f32],
        reading: Reading,
        old: &[f32],
        new: &mut [f32],
        state: &mut [impl AsMut<[f32]>],
    ) -> bool {
        let len = old.len();
        assert!(
            gradient.len() == len
                && new.len() == len
                && state.iter_mut().all(|s| s.as_mut().len() == len),
            "an update of {len} parameters got {} gradients",
            gradient.len()
        );
        let rate = self.learning_rate(version);
        let decay = self.spec.weight_decay;
        let momentum = self.spec.momentum;
        let elements = new.iter_mut().zip(old).zip(gradient);
        match (self.spec.kind, state) {
            (OptimizerKind::Sgd, []) => wide(|| {
                // Inside: what a loop changes elsewhere keeps it from becoming vector code.
                let mut watch = Watch::default();
                for ((new, &old), &gradient) in elements {
                    let gradient = reading.of(gradient, &mut watch);
                    *new = old - rate * (gradient + decay * old);
                    watch.see(*new);
                }
                watch.is_finite()
            }),
            // A velocity that is not finite makes a parameter that isn't.
            (OptimizerKind::Momentum, [velocity]) => {
                let elements = elements.zip(velocity.as_mut());
                wide(|| {
                    let mut watch = Watch::default();
                    for (((new, &old), &gradient), velocity) in elements {
                        let gradient = reading.of(gradient, &mut watch);
                        *velocity = momentum * *velocity + (gradient + decay * old);
                        *new = old - rate * *velocity;
                        watch.see(*new);
                    }
                    watch.is_finite()
                })
            }
            (OptimizerKind::Nesterov, [velocity]) => {
                let elements = elements.zip(velocity.as_mut());
                wide(|| {
                    let mut watch = Watch::default();
                    for (((new, &old), &gradient), velocity) in elements {
                        let gradient = reading.of(gradient, &mut watch) + decay * old;
                        *velocity = momentum * *velocity + gradient;
                        *new = old - rate * (gradient + momentum * *velocity);
                        watch.see(*new);
                        watch.see(*velocity);
                    }
                    watch.is_finite()
                })
            }
            (OptimizerKind::Adam, [mean, variance]) => {
                let (beta1, beta2) = (self.spec.beta1, self.spec.beta2);
                let Corrected { rate, epsilon } = self.corrected(version);
                let elements = elements.zip(mean.as_mut().iter_mut().zip(variance.as_mut()));
                wide(|| {
                    let mut watch = Watch::default();
                    for (((new, &old), &gradient), (mean, variance)) in elements {
                        let gradient = reading.of(gradient, &mut watch) + decay * old;
                        *mean = beta1 * *mean + (1.0 - beta1) * gradient;
                        *variance = beta2 * *variance + (1.0 - beta2) * (gradient * gradient);
                        *new = old - rate * *mean / (variance.sqrt() + epsilon);
                        watch.see(*new);
                        // An infinite one only makes the parameter stand still.
                        watch.see(*variance);
                    }
                    watch.is_finite()
                })
            }
            (kind, state) => panic!("{kind:?} doesn't keep {} vectors of state", state.len()),
        }
    }

    /// Adam's bias corrections for the step on `version`.
    fn corrected(&self, version: Version) -> Corrected {
        let beta1 = f64::from(self.spec.beta1);
        let beta2 = f64::from(self.spec.beta2);
        let steps = version.0 as f64 + 1.0;
        let correction1 = 1.0 - beta1.powf(steps);
        let correction2 = (1.0 - beta2.powf(steps)).sqrt();
        Corrected {
            rate: (f64::from(self.learning_rate(version)) * correction2 / correction1) as f32,
            epsilon: (f64::from(self.spec.epsilon) * correction2) as f32,
        }
    }
}

/// η and ε of Adam with both bias corrections moved into them (numerator and denominator
/// multiplied by `√(1−β₂ᵗ)`): that saves a division an element and changes nothing but rounding.
struct Corrected {
    rate: f32,
    epsilon: f32,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::{ScheduleKind, ScheduleSpec};

    const KINDS: [OptimizerKind; 4] =
        [OptimizerKind::Sgd, OptimizerKind::Momentum, OptimizerKind::Nesterov, OptimizerKind::Adam];

    fn optimizer(kind: OptimizerKind) -> Optimizer {
        let spec = OptimizerSpec {
            kind,
            learning_rate: 0.5,
            momentum: 0.5,
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            weight_decay: 0.25,
            schedule: ScheduleSpec {
                kind: ScheduleKind::Constant,
                warmup_steps: 1,
                every_steps: 1,
                factor: 1.0,
                floor: 0.0,
            },
        };
        Optimizer::new(&spec, 10)
    }

    /// Two steps on one parameter that starts at 4, with gradients 1 and 2.
    fn two_steps(kind: OptimizerKind) -> [f32; 2] {
        let optimizer = optimizer(kind);
        let mut state = optimizer.new_state(1).unwrap();
        let (mut first, mut second) = ([0.0], [0.0]);
        optimizer.apply(Version(0), &[1.0], &[4.0], &mut first, &mut state);
        optimizer.apply(Version(1), &[2.0], &first, &mut second, &mut state);
        [first[0], second[0]]
    }

    // With decay 0.25 the gradients are 1 + 0.25·4 = 2, then 2 + 0.25·w; η is 0.25, then 0.5.
    #[test]
    fn sgd_steps_against_the_decayed_gradient() {
        assert_eq!(two_steps(OptimizerKind::Sgd), [3.5, 3.5 - 0.5 * 2.875]);
    }

    #[test]
    fn momentum_keeps_a_part_of_the_last_step() {
        assert_eq!(two_steps(OptimizerKind::Momentum), [3.5, 3.5 - 0.5 * (1.0 + 2.875)]);
    }

    #[test]
    fn nesterov_looks_one_step_ahead() {
        let first = 4.0 - 0.25 * (2.0 + 0.5 * 2.0);
        let gradient = 2.0 + 0.25 * first;
        let velocity = 0.5 * 2.0 + gradient;
        let second = first - 0.5 * (gradient + 0.5 * velocity);
        assert_eq!(two_steps(OptimizerKind::Nesterov), [first, second]);
    }

    #[test]
    fn adam_steps_by_the_learning_rate_at_first() {
        let [first, _] = two_steps(OptimizerKind::Adam);
        assert!((first - 3.75).abs() < 1e-6, "{first}");
    }

    #[test]
    fn the_cut_into_shards_changes_no_bit() {
        let gradient: Vec<f32> = (0..1000).map(|i| (i as f32 * 0.37).sin()).collect();
        let old: Vec<f32> = (0..1000).map(|i| (i as f32 * 0.11).cos()).collect();
        for kind in KINDS {
            let optimizer = optimizer(kind);
            let run = |cut: usize| {
                let mut new = vec![0.0; old.len()];
                for range in [0..cut, cut..old.len()] {
                    let mut state = optimizer.new_state(range.len()).unwrap();
                    let part = &mut new[range.clone()];
                    optimizer.apply(
                        Version(3),
                        &gradient[range.clone()],
                        &old[range],
                        part,
                        &mut state,
                    );
                }
                new.iter().map(|x| x.to_bits()).collect::<Vec<_>>()
            };
            assert_eq!(run(0), run(333), "{kind:?}");
        }
    }

    #[test]
    fn a_zero_gradient_and_no_decay_leave_parameters_alone() {
        for kind in KINDS {
            let mut optimizer = optimizer(kind);
            optimizer.spec.weight_decay = 0.0;
            let mut state = optimizer.new_state(2).unwrap();
            let mut new = [0.0; 2];
            optimizer.apply(Version(0), &[0.0; 2], &[1.5, -2.5], &mut new, &mut state);
            assert_eq!(new, [1.5, -2.5], "{kind:?}");
        }
    }

    #[test]
    fn state_has_a_vector_for_each_name() {
        for kind in KINDS {
            let optimizer = optimizer(kind);
            let state = optimizer.new_state(3).unwrap();
            assert_eq!(state.len(), optimizer.state_names().len());
            assert!(state.iter().all(|vector| vector == &[0.0; 3]));
        }
    }
}
