//! The two losses: from a model's raw outputs to a loss, its gradient, and an answer.

use ndarray::{Array2, ArrayView1, ArrayViewMut1, ArrayViewMut2, Zip};

use super::Targets;
use crate::job::Loss;

impl Loss {
    /// Turns raw outputs `z`, shape `[rows, outputs]`, into the gradient of the rows' losses by
    /// them, and `losses` into the loss of each row.
    ///
    /// - `softmax`: `-Σ tⱼ ln pⱼ` where `p = softmax(z)`; gradient `p - t`. Targets that are
    ///   values are probabilities of the classes.
    /// - `squared`: `½ Σ (zⱼ - tⱼ)²`; gradient `z - t`.
    ///
    /// # Panics
    /// If the targets have another shape, or a class is not one of the outputs.
    pub(super) fn differentiate(
        self,
        mut outputs: ArrayViewMut2<'_, f32>,
        targets: Targets<'_>,
        losses: &mut Vec<f64>,
    ) {
        losses.clear();
        let rows = outputs.nrows();
        match targets {
            Targets::Classes(classes) => {
                assert_eq!(classes.len(), rows, "one class a row");
                let rows = outputs.rows_mut().into_iter().zip(classes);
                losses.extend(rows.map(|(row, &class)| self.of_class(row, class as usize)));
            }
            Targets::Values(values) => {
                assert_eq!(values.nrows(), rows, "one row of values a row");
                let rows = outputs.rows_mut().into_iter().zip(values.rows());
                losses.extend(rows.map(|(row, target)| self.of_values(row, target)));
            }
        }
    }

    /// Turns raw outputs into the answer: `softmax` gives probabilities, `squared` the values
    /// themselves.
    pub(super) fn answer(self, outputs: &mut Array2<f32>) {
        if self == Self::Softmax {
            for mut row in outputs.rows_mut() {
                softmax(&mut row);
            }
        }
    }

    fn of_class(self, mut row: ArrayViewMut1<'_, f32>, class: usize) -> f64 {
        match self {
            Self::Softmax => {
                let score = f64::from(row[class]);
                let normaliser = softmax(&mut row);
                row[class] -= 1.0;
                normaliser - score
            }
            Self::Squared => {
                row[class] -= 1.0;
                half_square(row.view())
            }
        }
    }

    fn of_values(self, mut row: ArrayViewMut1<'_, f32>, target: ArrayView1<'_, f32>) -> f64 {
        match self {
            Self::Softmax => {
                let score = dot(row.view(), target);
                let normaliser = softmax(&mut row);
                row -= &target;
                normaliser * f64::from(target.sum()) - score
            }
            Self::Squared => {
                row -= &target;
                half_square(row.view())
            }
        }
    }
}

/// Softmax in place; returns `ln Σ exp(zⱼ)`. The largest score is subtracted first, so that no
/// exponential overflows and one of them is 1.
fn softmax(row: &mut ArrayViewMut1<'_, f32>) -> f64 {
    let largest = row.iter().fold(f32::NEG_INFINITY, |largest, &z| largest.max(z));
    row.mapv_inplace(|z| (z - largest).exp());
    let sum = row.sum();
    row.mapv_inplace(|e| e / sum);
    f64::from(largest) + f64::from(sum).ln()
}

fn dot(a: ArrayView1<'_, f32>, b: ArrayView1<'_, f32>) -> f64 {
    Zip::from(a).and(b).fold(0.0, |sum, &a, &b| sum + f64::from(a) * f64::from(b))
}

fn half_square(row: ArrayView1<'_, f32>) -> f64 {
    0.5 * dot(row, row)
}

/// The class with the highest output; of equal ones the first.
pub(super) fn best_class(row: ArrayView1<'_, f32>) -> usize {
    let mut best = 0;
    for (class, value) in row.iter().enumerate() {
        if *value > row[best] {
            best = class;
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    /// Of the rows' losses.
    fn sum(loss: Loss, outputs: &mut Array2<f32>, targets: Targets<'_>) -> f64 {
        let mut losses = vec![f64::NAN];
        loss.differentiate(outputs.view_mut(), targets, &mut losses);
        losses.iter().sum()
    }

    #[test]
    fn softmax_of_huge_scores_is_finite() {
        let mut outputs = array![[1e30, -1e30, 1e30]];
        Loss::Softmax.answer(&mut outputs);
        assert_eq!(outputs, array![[0.5, 0.0, 0.5]]);
    }

    #[test]
    fn even_scores_cost_the_logarithm_of_the_number_of_classes() {
        let mut outputs = array![[7.0, 7.0, 7.0, 7.0]];
        let loss = sum(Loss::Softmax, &mut outputs, Targets::Classes(&[2]));
        assert!((loss - 4f64.ln()).abs() < 1e-12, "{loss}");
        assert_eq!(outputs, array![[0.25, 0.25, -0.75, 0.25]]);
    }

    #[test]
    fn half_the_squared_error_is_summed_over_outputs_and_rows() {
        let mut outputs = array![[1.0, 2.0], [0.0, 5.0]];
        let targets = array![[0.0, 4.0], [0.0, 4.0]];
        let loss = sum(Loss::Squared, &mut outputs, Targets::Values(targets.view()));
        assert_eq!(loss, 0.5 * (1.0 + 4.0 + 1.0));
        assert_eq!(outputs, array![[1.0, -2.0], [0.0, 1.0]]);
    }

    #[test]
    fn a_class_means_what_its_one_hot_row_means() {
        let scores = array![[0.5, -1.0, 2.0], [3.0, 0.0, 1.0]];
        let one_hot = array![[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]];
        for loss in [Loss::Softmax, Loss::Squared] {
            let (mut by_class, mut by_row) = (scores.clone(), scores.clone());
            let a = sum(loss, &mut by_class, Targets::Classes(&[1, 0]));
            let b = sum(loss, &mut by_row, Targets::Values(one_hot.view()));
            assert_eq!(by_class, by_row, "{loss:?}");
            assert!((a - b).abs() < 1e-12, "{loss:?}: {a} and {b}");
        }
    }

    #[test]
    fn a_score_that_is_not_finite_gives_a_loss_that_is_not() {
        for bad in [f32::NAN, f32::INFINITY] {
            let mut outputs = array![[0.0, bad]];
            let loss = sum(Loss::Softmax, &mut outputs, Targets::Classes(&[0]));
            assert!(!loss.is_finite() && outputs.iter().any(|x| !x.is_finite()), "{bad}");
        }
    }

    #[test]
    fn of_equal_outputs_the_first_class_is_best() {
        assert_eq!(best_class(array![1.0, 3.0, 3.0].view()), 1);
    }
}
