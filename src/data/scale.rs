//! Mean and deviation of each feature, in one pass.

use gradmesh_actors::dataset::Scaling;

/// Running moments by Welford's method (Technometrics 4 (3), 1962): no loss of digits where the
/// mean is large and the deviation small. In `f64` and row after row, so that the bits depend on
/// the rows and their order alone.
#[derive(Debug)]
pub(super) struct Moments {
    rows: f64,
    mean: Vec<f64>,
    /// Σ (x - mean)², by feature.
    squares: Vec<f64>,
}

impl Moments {
    pub(super) fn new(features: usize) -> Self {
        Self { rows: 0.0, mean: vec![0.0; features], squares: vec![0.0; features] }
    }

    /// Takes a row of as many values as there are features.
    pub(super) fn add(&mut self, row: &[f32]) {
        assert_eq!(row.len(), self.mean.len(), "a row has as many values as there are features");
        self.rows += 1.0;
        for ((&value, mean), squares) in row.iter().zip(&mut self.mean).zip(&mut self.squares) {
            let value = f64::from(value);
            let before = value - *mean;
            *mean += before / self.rows;
            *squares += before * (value - *mean);
        }
    }

    /// Zero mean and unit deviation (of the population, divisor n); deviation 1 for a feature that
    /// never varies, or by less than an `f32` can express.
    pub(super) fn scaling(&self) -> Scaling {
        let deviation = self.squares.iter().map(|squares| (squares / self.rows).sqrt() as f32);
        Scaling::Standard {
            mean: self.mean.iter().map(|&mean| mean as f32).collect(),
            deviation: deviation.map(|value| if value > 0.0 { value } else { 1.0 }).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scaling(rows: &[[f32; 2]]) -> (Vec<f32>, Vec<f32>) {
        let mut moments = Moments::new(2);
        rows.iter().for_each(|row| moments.add(row));
        match moments.scaling() {
            Scaling::Standard { mean, deviation } => (mean, deviation),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_feature_that_never_varies_has_deviation_one() {
        // 0.1 has no exact binary form: sums of it would leave a deviation of rounding errors.
        let (mean, deviation) = scaling(&[[0.1, 1.0], [0.1, 2.0], [0.1, 6.0]]);
        assert_eq!((mean[0], deviation[0]), (0.1, 1.0));
        assert_eq!(mean[1], 3.0);
    }

    #[test]
    fn the_deviation_is_that_of_the_population() {
        let (_, deviation) = scaling(&[[1.0, 0.0], [3.0, 0.0]]);
        assert_eq!(deviation[0], 1.0);
    }

    #[test]
    fn a_small_deviation_beside_a_large_mean_is_not_lost() {
        let (mean, deviation) = scaling(&[[16_777_214.0, 0.0], [16_777_216.0, 0.0]]);
        assert_eq!((mean[0], deviation[0]), (16_777_215.0, 1.0));
    }
}
