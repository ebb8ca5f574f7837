//! What a data set is to gradmesh: counted rows, of which any range can be loaded.

use std::fmt;
use std::ops::Range;

use ndarray::{Array2, ArrayView1};
use serde::{Deserialize, Serialize};

use crate::model::{Batch, Targets};
use crate::vector::wide;

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
        let features = inputs.ncols().max(1);
        if let Some(values) = inputs.as_slice_mut() {
            return values.chunks_mut(features).for_each(|row| self.scale(row));
        }
        for mut row in inputs.rows_mut() {
            let mut values = row.to_vec();
            self.scale(&mut values);
            row.assign(&ArrayView1::from(&values));
        }
    }

    /// Scales one row.
    fn scale(&self, row: &mut [f32]) {
        match self {
            Self::None => {}
            Self::Divide { by } => wide(|| row.iter_mut().for_each(|x| *x /= by)),
            Self::Standard { mean, deviation } => {
                let row = row.iter_mut().zip(mean).zip(deviation);
                wide(|| row.for_each(|((x, mean), deviation)| *x = (*x - mean) / deviation));
            }
        }
    }

    /// Scales a row of whole numbers to `row`, with the bits that they get as any others.
    pub(crate) fn scale_whole(&self, numbers: &[u8], row: &mut [f32]) {
        let elements = row.iter_mut().zip(numbers);
        match self {
            // At once: half of the time of a pass for each.
            Self::Divide { by } => {
                wide(|| elements.for_each(|(x, &number)| *x = f32::from(number) / by));
            }
            _ => {
                wide(|| elements.for_each(|(x, &number)| *x = f32::from(number)));
                self.scale(row);
            }
        }
    }

    /// The whole numbers of 0 to 255 that are nearest to what was scaled to `row`.
    pub(crate) fn unscale_whole(&self, row: &[f32], numbers: &mut [u8]) {
        // The conversion saturates, and makes 0 of what is no number.
        let whole = |x: f32| (x + 0.5) as u8;
        let elements = numbers.iter_mut().zip(row);
        match self {
            Self::None => wide(|| elements.for_each(|(number, &x)| *number = whole(x))),
            Self::Divide { by } => {
                wide(|| elements.for_each(|(number, &x)| *number = whole(x * by)));
            }
            Self::Standard { mean, deviation } => {
                let elements = elements.zip(mean.iter().zip(deviation));
                wide(|| {
                    elements.for_each(|((number, &x), (mean, deviation))| {
                        *number = whole(x * deviation + mean);
                    });
                });
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

impl RowTargets {
    /// Of how many rows.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Classes(classes) => classes.len(),
            Self::Values(values) => values.nrows(),
        }
    }

    /// Those of some rows, as a model sees them.
    pub(crate) fn part(&self, range: Range<usize>) -> Targets<'_> {
        match self {
            Self::Classes(classes) => Targets::Classes(&classes[range]),
            Self::Values(values) => {
                Targets::Values(values.slice_axis(ndarray::Axis(0), range.into()))
            }
        }
    }

    pub(crate) fn slice(&self, range: Range<usize>) -> Self {
        match self {
            Self::Classes(classes) => Self::Classes(classes[range].to_vec()),
            Self::Values(values) => {
                Self::Values(values.slice_axis(ndarray::Axis(0), range.into()).to_owned())
            }
        }
    }

    /// Appends the targets of more rows.
    pub(crate) fn append(&mut self, more: Self) -> Result<(), DatasetError> {
        match (self, more) {
            (Self::Classes(classes), Self::Classes(more)) => classes.extend(more),
            (Self::Values(values), Self::Values(more)) => {
                let appended = values.append(ndarray::Axis(0), more.view());
                appended
                    .map_err(|error| DatasetError(format!("targets of unlike rows: {error}")))?;
            }
            _ => return Err(DatasetError("some rows have classes, and some values".to_owned())),
        }
        Ok(())
    }
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
        Batch { inputs: self.inputs.view(), targets: self.targets.part(0..self.targets.len()) }
    }

    /// Copies a range of rows.
    ///
    /// # Panics
    /// If there are fewer rows.
    pub fn slice(&self, range: Range<usize>) -> Self {
        let inputs = self.inputs.slice_axis(ndarray::Axis(0), range.clone().into()).to_owned();
        Self { inputs, targets: self.targets.slice(range) }
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
/// The same range gives the same rows each time and on each node. `load` may block: a Worker loads
/// from its own thread, once the rows of the slots that it has leased.
pub trait Dataset: Send + Sync + fmt::Debug {
    fn shape(&self) -> &DatasetShape;

    /// How the rows that `load` returns were scaled.
    fn scaling(&self) -> &Scaling;

    /// Loads rows `range` of a split, in file order.
    ///
    /// # Errors
    /// The source can't be read, or a row is not what the shape said.
    fn load(&self, split: Split, range: Range<usize>) -> Result<Rows, DatasetError>;

    /// The same, and calls `each` with one block of them after the other, so that they need not all be
    /// in memory as they are loaded: a Worker keeps inputs in a byte each where they were whole numbers
    /// of 0 to 255 before they were scaled. In file order, all with as many inputs and one kind of
    /// targets; at least one block, also where there are no rows. All at once unless this is overridden.
    ///
    /// # Errors
    /// As [`Dataset::load`], perhaps after some blocks.
    fn load_in_blocks(
        &self,
        split: Split,
        range: Range<usize>,
        each: &mut dyn FnMut(Rows),
    ) -> Result<(), DatasetError> {
        each(self.load(split, range)?);
        Ok(())
    }
}

/// A data set could not give its rows: the source's own words, ending with what to change.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("{0}")]
pub struct DatasetError(pub String);
