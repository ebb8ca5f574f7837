//! Optimizers and schedules do what PyTorch's do. `golden/make.py` writes the references.

#![expect(clippy::unwrap_used, reason = "a reference that cannot be read fails the test")]

use gradmesh_actors::ids::Version;
use gradmesh_actors::job::{OptimizerKind, OptimizerSpec, ScheduleKind, ScheduleSpec};
use gradmesh_actors::optimizer::Optimizer;
use gradmesh_actors::schedule::Schedule;
use serde::Deserialize;

/// Relative to the parameter, after 50 steps that each round anew: a factor of 10 over one
/// rounding of `f32`.
const TOLERANCE: f64 = 1e-6;

#[derive(Deserialize)]
struct Trajectory {
    settings: Settings,
    gradients: Vec<Vec<u32>>,
    /// One more than there are gradients: those before the first step come first.
    parameters: Vec<Vec<u32>>,
}

#[derive(Deserialize)]
struct Settings {
    learning_rate: f32,
    weight_decay: f32,
    #[serde(default)]
    momentum: f32,
    #[serde(default)]
    beta1: f32,
    #[serde(default)]
    beta2: f32,
    #[serde(default)]
    epsilon: f32,
}

fn floats(bits: &[u32]) -> Vec<f32> {
    bits.iter().map(|&bits| f32::from_bits(bits)).collect()
}

fn constant() -> ScheduleSpec {
    let kind = ScheduleKind::Constant;
    ScheduleSpec { kind, warmup_steps: 0, every_steps: 1, factor: 1.0, floor: 0.0 }
}

/// Follows a trajectory from its first parameters to its last, comparing after each step.
fn follow(kind: OptimizerKind, json: &str) {
    let Trajectory { settings, gradients, parameters } = serde_json::from_str(json).unwrap();
    let spec = OptimizerSpec {
        kind,
        learning_rate: settings.learning_rate,
        momentum: settings.momentum,
        beta1: settings.beta1,
        beta2: settings.beta2,
        epsilon: settings.epsilon,
        weight_decay: settings.weight_decay,
        schedule: constant(),
    };
    let optimizer = Optimizer::new(&spec, gradients.len() as u64);
    let mut old = floats(&parameters[0]);
    let mut new = vec![0.0; old.len()];
    let mut state = optimizer.new_state(old.len()).unwrap();
    assert_eq!((gradients.len(), parameters.len()), (50, 51));
    for (version, (gradient, expected)) in (0u64..).zip(gradients.iter().zip(&parameters[1..])) {
        optimizer.apply(Version(version), &floats(gradient), &old, &mut new, &mut state);
        for (&got, &expected) in new.iter().zip(&floats(expected)) {
            let error = (f64::from(got) / f64::from(expected) - 1.0).abs();
            assert!(error <= TOLERANCE, "{version}: {got}, PyTorch has {expected} ({error:e})");
        }
        std::mem::swap(&mut old, &mut new);
    }
}

#[test]
fn sgd_follows_pytorch() {
    follow(OptimizerKind::Sgd, include_str!("golden/sgd.json"));
}

#[test]
fn momentum_follows_pytorch() {
    follow(OptimizerKind::Momentum, include_str!("golden/momentum.json"));
}

#[test]
fn nesterov_follows_pytorch() {
    follow(OptimizerKind::Nesterov, include_str!("golden/nesterov.json"));
}

#[test]
fn adam_follows_pytorch() {
    follow(OptimizerKind::Adam, include_str!("golden/adam.json"));
}

#[derive(Deserialize)]
struct Schedules {
    every_steps: u64,
    factor: f32,
    floor: f32,
    cases: Vec<ScheduleCase>,
}

#[derive(Deserialize)]
struct ScheduleCase {
    kind: ScheduleKind,
    warmup_steps: u64,
    factors: Vec<f64>,
}

#[test]
fn schedules_follow_pytorch() {
    let golden: Schedules = serde_json::from_str(include_str!("golden/schedules.json")).unwrap();
    let Schedules { every_steps, factor, floor, cases } = golden;
    assert_eq!(cases.len(), 6);
    for ScheduleCase { kind, warmup_steps, factors } in cases {
        let spec = ScheduleSpec { kind, warmup_steps, every_steps, factor, floor };
        let schedule = Schedule::new(&spec, factors.len() as u64);
        for (version, expected) in (0u64..).zip(factors) {
            let got = schedule.factor(Version(version));
            assert!(
                (got - expected).abs() < 1e-12,
                "{kind:?} after {warmup_steps}: {got} at {version}, PyTorch has {expected}"
            );
        }
    }
}
