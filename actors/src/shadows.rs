//! What versions would have answered that answer nobody.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};

use crate::messages::{PredictError, Prediction};
use crate::recent::Recent;

/// Shadows that are counted: routes have one each.
const SHADOWS_MAX: usize = 256;

/// Outputs that differ less are the same to whoever compares versions, in parts of one plus the
/// larger.
const SAME: f32 = 1e-3;

/// Counts of a shadow, since the process began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShadowCounts {
    /// It had no answer, or was not asked for want of room.
    pub failed: u64,
    /// Rows that both it and the version that answered have answered.
    pub rows: u64,
    /// Those of them in which the same output is the largest, or, where there is one output, in which
    /// that differs by less than a thousandth.
    pub agreed: u64,
}

/// The shadows of a process, by model and by the name that its route has for them. Clones share
/// them.
#[derive(Clone, Debug)]
pub struct Shadows {
    counts: Arc<Mutex<Recent<(String, String), ShadowCounts>>>,
}

impl Default for Shadows {
    fn default() -> Self {
        Self { counts: Arc::new(Mutex::new(Recent::new(SHADOWS_MAX))) }
    }
}

impl Shadows {
    /// All of them: model, name of the version, counts.
    pub fn counts(&self) -> Vec<(String, String, ShadowCounts)> {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let told = counts
            .iter()
            .map(|((model, version), counts)| (model.clone(), version.clone(), *counts));
        told.collect()
    }

    fn count(&self, key: &(String, String), change: impl FnOnce(&mut ShadowCounts)) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let mut new = *counts.get_or_insert_with(key.clone(), ShadowCounts::default);
        change(&mut new);
        counts.insert(key.clone(), new);
    }
}

/// A request that two versions are asked.
#[derive(Debug)]
pub(crate) struct Comparison {
    shadows: Shadows,
    key: (String, String),
    /// Whoever has answered first.
    first: RefCell<Option<Result<Prediction, PredictError>>>,
}

impl Comparison {
    pub(crate) fn new(shadows: Shadows, model: String, version: String) -> Rc<Self> {
        Rc::new(Self { shadows, key: (model, version), first: RefCell::new(None) })
    }

    /// The version that answers has.
    pub(crate) fn answered(&self, answer: &Result<Prediction, PredictError>) {
        self.told(answer);
    }

    /// The shadow has.
    pub(crate) fn shadowed(&self, answer: &Result<Prediction, PredictError>) {
        if answer.is_err() {
            self.shadows.count(&self.key, |counts| counts.failed += 1);
        }
        self.told(answer);
    }

    fn told(&self, answer: &Result<Prediction, PredictError>) {
        let first = self.first.borrow_mut().take();
        match first {
            None => *self.first.borrow_mut() = Some(answer.clone()),
            Some(Ok(first)) => {
                let Ok(second) = answer else { return };
                let (rows, agreed) = agreement(&first, second);
                self.shadows.count(&self.key, |counts| {
                    counts.rows += rows;
                    counts.agreed += agreed;
                });
            }
            Some(Err(_)) => {}
        }
    }
}

/// Rows, and those in which both say the same.
fn agreement(a: &Prediction, b: &Prediction) -> (u64, u64) {
    let rows = a.rows.min(b.rows);
    let ((a_values, a_width), (b_values, b_width)) = (a.values(), b.values());
    if a_width != b_width || a_width == 0 {
        // What is no FP32 is the same, or it is not.
        let same = a_width == b_width && a.outputs == b.outputs;
        return (rows as u64, if same { rows as u64 } else { 0 });
    }
    let pairs = std::iter::zip(a_values.chunks(a_width), b_values.chunks(b_width));
    let same = |(a, b): &(&[f32], &[f32])| match (a, b) {
        ([a], [b]) => (a - b).abs() <= SAME * (1.0 + a.abs().max(b.abs())),
        _ => largest(a) == largest(b),
    };
    (rows as u64, pairs.filter(same).count() as u64)
}

/// The first of the largest.
fn largest(values: &[f32]) -> Option<usize> {
    let all = values.iter().enumerate();
    all.rev().max_by(|a, b| a.1.total_cmp(b.1)).map(|(at, _)| at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::{OUTPUT, Resolved, Run};
    use crate::tensor::{NamedTensor, Tensor};
    use crate::version::ServedVersion;

    fn prediction(outputs: usize, values: &[f32]) -> Result<Prediction, PredictError> {
        let rows = values.len() / outputs;
        Ok(Prediction {
            model: "m".into(),
            version: ServedVersion::Published(1),
            digest: String::new(),
            classes: None,
            rows,
            resolved: Resolved::Now,
            compute_ns: 0,
            run: Run { rows, first: true },
            outputs: vec![NamedTensor {
                name: OUTPUT.into(),
                tensor: Tensor::of_values(values.to_vec().into(), rows, outputs).unwrap(),
            }],
        })
    }

    fn compared(
        a: Result<Prediction, PredictError>,
        b: Result<Prediction, PredictError>,
    ) -> ShadowCounts {
        let shadows = Shadows::default();
        let comparison = Comparison::new(shadows.clone(), "m".into(), "next".into());
        comparison.answered(&a);
        comparison.shadowed(&b);
        let other = Comparison::new(shadows.clone(), "m".into(), "next".into());
        other.shadowed(&b);
        other.answered(&a);
        let counts = shadows.counts();
        assert!(counts.len() <= 1);
        counts.first().map_or_else(ShadowCounts::default, |(_, _, counts)| *counts)
    }

    #[test]
    fn answers_agree_by_their_largest_output_or_by_their_only_one() {
        let counts = |failed, rows, agreed| ShadowCounts { failed, rows, agreed };
        let (a, b) = ([0.7, 0.3, 0.6, 0.4], [0.9, 0.1, 0.4, 0.6]);
        assert_eq!(compared(prediction(2, &a), prediction(2, &b)), counts(0, 4, 2));
        let (a, b) = ([1.0, 100.0, 0.0], [1.0005, 101.0, 0.0]);
        assert_eq!(compared(prediction(1, &a), prediction(1, &b)), counts(0, 6, 4));
        assert_eq!(compared(prediction(1, &a), prediction(3, &b)), counts(0, 2, 0));
        let failed = Err(PredictError::NoRows);
        assert_eq!(compared(prediction(1, &a), failed.clone()), counts(2, 0, 0));
        assert_eq!(compared(failed, prediction(1, &a)), counts(0, 0, 0));
    }
}
