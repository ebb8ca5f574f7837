//! Rows one after the other, whatever the format.

use std::fmt;
use std::path::Path;

use gradmesh_actors::job::{DataFormat, DataSpec, Loss};

use super::csv::{CsvLayout, CsvReader};
use super::error::{DataError, DataFile, Place};
use super::idx::IdxReader;
use super::source::{FoundFile, Source};

/// Values a row at most: 16 MiB as `f32`, a picture of 1024 × 1024 points in four colours. A
/// header that lies can make a reader take this much memory, and no more.
pub(super) const MAX_FEATURES: usize = 1 << 22;

/// Reads the rows of a [`Table`] in file order.
pub(super) trait RowReader: fmt::Debug {
    /// Input values of each row, 1 to [`MAX_FEATURES`].
    fn features(&self) -> usize;

    /// Names of the input columns, where the file names them.
    fn names(&self) -> Vec<&str>;

    /// Appends the inputs of the next row to `inputs`; they are finite, and as many as
    /// [`RowReader::features`]. `None` after the last row.
    fn next(&mut self, inputs: &mut Vec<f32>) -> Result<Option<Target>, DataError>;

    /// Leaves out rows without looking at their values. They may be fewer than there are.
    fn skip(&mut self, rows: usize) -> Result<(), DataError>;

    /// File and place of the target that [`RowReader::next`] returned last.
    fn target_place(&self) -> (&DataFile, Place);

    /// After the last row: checks that the files end there.
    fn finish(&mut self) -> Result<(), DataError>;

    /// The files that were read, in the order of their keys.
    fn sources(&self) -> Vec<&Source>;
}

/// What a row should be answered with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Target {
    Class(u32),
    /// Finite.
    Value(f32),
}

/// The file, or the two files, that rows with their targets stand in.
#[derive(Clone, Debug)]
pub(super) enum Table {
    Idx { inputs: FoundFile, labels: FoundFile },
    Csv { file: FoundFile, layout: CsvLayout },
}

impl Table {
    /// The files of `job.data.train` and `job.data.train_labels`.
    pub(super) fn train(spec: &DataSpec, loss: Loss, folder: &Path) -> Result<Self, DataError> {
        let keys = ("job.data.train", "job.data.train_labels");
        Self::find(spec, loss, folder, &spec.train, spec.train_labels.as_deref(), keys)
    }

    /// The files of `job.data.test` and `job.data.test_labels`, where the test rows have their own.
    pub(super) fn test(
        spec: &DataSpec,
        loss: Loss,
        folder: &Path,
    ) -> Result<Option<Self>, DataError> {
        let keys = ("job.data.test", "job.data.test_labels");
        match (&spec.test, &spec.test_labels) {
            (Some(test), labels) => {
                Self::find(spec, loss, folder, test, labels.as_deref(), keys).map(Some)
            }
            (None, Some(_)) => {
                let reason = "test labels without the rows that they belong to";
                Err(DataError::KeyMissing { key: keys.0, reason })
            }
            (None, None) => Ok(None),
        }
    }

    fn find(
        spec: &DataSpec,
        loss: Loss,
        folder: &Path,
        inputs: &str,
        labels: Option<&str>,
        keys: (&'static str, &'static str),
    ) -> Result<Self, DataError> {
        match (spec.format, labels) {
            (DataFormat::Idx, _) if spec.text.is_some() => {
                let reason = "IDX has no texts; set job.data.format to csv";
                Err(DataError::KeyUseless { key: "job.data.text", reason })
            }
            (DataFormat::Idx, Some(labels)) => Ok(Self::Idx {
                inputs: FoundFile::find(folder, inputs, keys.0)?,
                labels: FoundFile::find(folder, labels, keys.1)?,
            }),
            (DataFormat::Idx, None) => {
                let reason = "IDX keeps the labels in a file of their own";
                Err(DataError::KeyMissing { key: keys.1, reason })
            }
            (DataFormat::Csv, None) => Ok(Self::Csv {
                file: FoundFile::find(folder, inputs, keys.0)?,
                layout: CsvLayout {
                    header: spec.header,
                    target: spec.target.clone(),
                    text: spec.text.clone().map(|text| (text, spec.text_buckets)),
                    classes: loss == Loss::Softmax,
                },
            }),
            (DataFormat::Csv, Some(_)) => {
                let reason = "CSV keeps the targets in a column (job.data.target)";
                Err(DataError::KeyUseless { key: keys.1, reason })
            }
        }
    }

    /// Opens the files before their first row. `hashed`: to ask the sources for their content.
    pub(super) fn open(&self, hashed: bool) -> Result<Box<dyn RowReader>, DataError> {
        Ok(match self {
            Self::Idx { inputs, labels } => {
                Box::new(IdxReader::open(inputs.open(hashed)?, labels.open(hashed)?)?)
            }
            Self::Csv { file, layout } => Box::new(CsvReader::open(file.open(hashed)?, layout)?),
        })
    }

    /// The file with the inputs.
    pub(super) fn name(&self) -> &DataFile {
        match self {
            Self::Idx { inputs, .. } => &inputs.name,
            Self::Csv { file, .. } => &file.name,
        }
    }
}
