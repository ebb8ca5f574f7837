//! What a data set is to gradmesh: counted rows, of which any range can be loaded.

use std::fmt;
use std::ops::Range;

use ndarray::{Array1, Array2};
use serde::{Deserialize, Serialize};

use crate::model::{Batch, Targets};

/// Training rows or test rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Split {
    Train,
    Test,
}

/// The shape of a data set, known before any row is loaded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatasetShape {
    pub train_rows: usize,
    pub test_rows: usize,
    /// Input values of a row.
    pub features: usize,
    /// Classes (labels are `0..classes`), or `None` where the targets are values.
    pub classes: Option<usize>,
    /// Target values of a row where there are no classes; 1 otherwise.
    pub target_width: usize,
    /// BLAKE3 over the content that decides the rows, in hexadecimal: two nodes whose files differ
    /// must not train together.
    pub digest: String,
}

/// How raw inputs become what the model sees; kept with each version so that a served model gets
/// the raw inputs that its users have.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Scaling {
    None,
    /// `x / by`.
    Divide {
        by: f32,
    },
    /// `(x - mean) / deviation`, by feature; a feature that never varies has deviation 1.
    Standard {
        mean: Vec<f32>,
        deviation: Vec<f32>,
    },
}

impl Scaling {
    /// Scales rows in place. A row has as many features as the statistics.
    pub fn apply(&self, inputs: &mut Array2<f32>) {
        match self {
            Self::None => {}
            Self::Divide { by } => inputs.mapv_inplace(|x| x / by),
            Self::Standard { mean, deviation } => {
                let mean = Array1::from(mean.clone());
                let deviation = Array1::from(deviation.clone());
                *inputs -= &mean;
                *inputs /= &deviation;
            }
        }
    }
}

/// Rows in memory, scaled.
#[derive(Clone, Debug, PartialEq)]
pub struct Rows {
    /// Shape `[rows, features]`.
    pub inputs: Array2<f32>,
    pub targets: RowTargets,
}

/// The owned form of [`Targets`].
#[derive(Clone, Debug, PartialEq)]
pub enum RowTargets {
    Classes(Vec<u32>),
    /// Shape `[rows, target_width]`.
    Values(Array2<f32>),
}

impl Rows {
    pub fn len(&self) -> usize {
        self.inputs.nrows()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All rows, as a model sees them.
    pub fn batch(&self) -> Batch<'_> {
        let targets = match &self.targets {
            RowTargets::Classes(classes) => Targets::Classes(classes),
            RowTargets::Values(values) => Targets::Values(values.view()),
        };
        Batch { inputs: self.inputs.view(), targets }
    }

    /// Copies a range of rows.
    ///
    /// # Panics
    /// If there are fewer rows.
    pub fn slice(&self, range: Range<usize>) -> Self {
        let axis = ndarray::Axis(0);
        let inputs = self.inputs.slice_axis(axis, range.clone().into()).to_owned();
        let targets = match &self.targets {
            RowTargets::Classes(classes) => RowTargets::Classes(classes[range].to_vec()),
            RowTargets::Values(values) => {
                RowTargets::Values(values.slice_axis(axis, range.into()).to_owned())
            }
        };
        Self { inputs, targets }
    }

    /// Copies the rows of these numbers, in this order.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn select(&self, rows: &[usize]) -> Self {
        let mut inputs = Array2::zeros((rows.len(), self.inputs.ncols()));
        for (mut to, &row) in inputs.rows_mut().into_iter().zip(rows) {
            to.assign(&self.inputs.row(row));
        }
        let targets = match &self.targets {
            RowTargets::Classes(classes) => {
                RowTargets::Classes(rows.iter().map(|&row| classes[row]).collect())
            }
            RowTargets::Values(values) => RowTargets::Values(values.select(ndarray::Axis(0), rows)),
        };
        Self { inputs, targets }
    }
}

/// Where training and test rows come from. gradmesh reads IDX and CSV; implement it for your own.
///
/// # What an implementation promises
/// The same range gives the same rows each time and on each node. `load` may block: a Worker calls
/// it from its own thread, once for the rows of the slots that it has leased.
pub trait Dataset: Send + Sync + fmt::Debug {
    fn shape(&self) -> &DatasetShape;

    /// How the rows that `load` returns were scaled.
    fn scaling(&self) -> &Scaling;

    /// Loads rows `range` of a split, in file order.
    ///
    /// # Errors
    /// The source can't be read, or a row is not what the shape said.
    fn load(&self, split: Split, range: Range<usize>) -> Result<Rows, DatasetError>;
}

/// A data set could not give its rows: the source's own words, ending with what to change.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("{0}")]
pub struct DatasetError(pub String);
