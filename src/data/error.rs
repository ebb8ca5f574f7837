//! What can be wrong with a data set, said so that whoever reads it knows what to change.

use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use gradmesh_actors::dataset::{DatasetError, Split};

/// A file of the data set, and the key of `cluster.toml` that names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataFile {
    pub path: Arc<Path>,
    pub key: &'static str,
}

impl fmt::Display for DataFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.display().fmt(f)
    }
}

/// Where a row stands in its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// IDX: from 0.
    Row(usize),
    /// CSV: from 1, as editors count.
    Line(u64),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Row(row) => write!(f, "row {row} (from 0)"),
            Self::Line(line) => write!(f, "line {line}"),
        }
    }
}

/// A data set can't be opened, or its rows can't be loaded.
///
/// Nothing is repaired or left out: one bad row refuses the whole data set, because rows that only
/// some nodes skip would make them train on different data.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum DataError {
    #[error("expected {expected}, got {got}; change {key}")]
    Setting { key: &'static str, expected: &'static str, got: String },
    #[error("{reason}; set {key}")]
    KeyMissing { key: &'static str, reason: &'static str },
    #[error("{reason}; remove {key}")]
    KeyUseless { key: &'static str, reason: &'static str },

    #[error("{file}: no such file; change {}", .file.key)]
    Missing { file: DataFile },
    #[error("{file}: not a regular file; change {}", .file.key)]
    NotAFile { file: DataFile },
    #[error("{file}: can't be read: {cause}; check the file named by {}", .file.key)]
    Unreadable { file: DataFile, cause: String },
    #[error("{file}: changed since the data set was opened; restore it, or start the job again with what {} names now", .file.key)]
    Changed { file: DataFile },
    #[error("{file}: the gzip stream breaks off, the file is cut short; fetch it again or change {}", .file.key)]
    TruncatedGzip { file: DataFile },
    #[error("{file}: damaged gzip stream: {cause}; fetch it again or change {}", .file.key)]
    CorruptGzip { file: DataFile, cause: String },

    #[error("{file}: begins with bytes {got:02x?}, an IDX file begins with two zero bytes; change {} or job.data.format", .file.key)]
    BadMagic { file: DataFile, got: Vec<u8> },
    #[error("{file}: IDX elements of type {got:#04x}, expected {expected}; change {}", .file.key)]
    ElementType { file: DataFile, expected: &'static str, got: u8 },
    #[error("{file}: IDX array of {got} dimensions, expected {expected}; change {}", .file.key)]
    Rank { file: DataFile, expected: &'static str, got: usize },
    #[error("{file}: more than {limit} values a row; cut the rows down or change {}", .file.key)]
    TooWide { file: DataFile, limit: usize },
    #[error("{file}: ends after {got} of {expected} bytes (unpacked); fetch it again or change {}", .file.key)]
    Truncated { file: DataFile, expected: u64, got: u64 },
    #[error("{file}: goes on after the {expected} bytes (unpacked) that its header announces; fetch it again or change {}", .file.key)]
    Trailing { file: DataFile, expected: u64 },
    #[error("{inputs} has {input_rows} rows, {labels} has {label_rows}; change {} or {}", .inputs.key, .labels.key)]
    RowCounts { inputs: DataFile, input_rows: usize, labels: DataFile, label_rows: usize },
    #[error("{file}: no rows; change {}", .file.key)]
    Empty { file: DataFile },
    #[error("{file}: line {line}: columns are separated by {found}; separate them with commas, or change {}", .file.key)]
    Separator { file: DataFile, line: u64, found: &'static str },
    #[error("{file}: no values in a row beside the target; change {}", .file.key)]
    NoInputs { file: DataFile },

    #[error(
        "{file}: no one column is {column}, there are {columns}; change {key} or job.data.header"
    )]
    NoColumn { file: DataFile, column: String, columns: String, key: &'static str },
    #[error(
        "{file}: column {column} is the target and can't be the text; change job.data.text or job.data.target"
    )]
    TextIsTarget { file: DataFile, column: String },
    #[error("{file}: line {line} has {got} columns, expected {expected}; correct the file named by {}", .file.key)]
    RaggedRow { file: DataFile, line: u64, expected: usize, got: usize },
    #[error("{file}: line {line} is longer than {limit} bytes (an open quote?); correct the file named by {}", .file.key)]
    RowTooLong { file: DataFile, line: u64, limit: usize },
    #[error("{file}: line {line}, column {column}: {text:?} is not a number; correct it, set job.data.header, or change {}", .file.key)]
    NotANumber { file: DataFile, line: u64, column: String, text: String },
    #[error("{file}: line {line}, column {column}: the text is not UTF-8; convert the file named by {}", .file.key)]
    NotText { file: DataFile, line: u64, column: String },
    #[error("{file}: {place}, column {column}: the value is not finite; correct the file named by {}", .file.key)]
    NotFinite { file: DataFile, place: Place, column: String },
    #[error("{file}: line {line}, column {column}: {text:?} is no class (0 to {max}); correct it, or set job.model.loss = \"squared\"", max = MAX_CLASS)]
    NotAClass { file: DataFile, line: u64, column: String, text: String },
    #[error("{file}: {place}: label {label} is out of range, the training labels are 0 to {}; correct the file named by {}", .classes - 1, .file.key)]
    LabelOutOfRange { file: DataFile, place: Place, label: u32, classes: usize },

    #[error("{test} has {got} input values a row, {train} has {expected}; change {} or {}", .test.key, .train.key)]
    Features { train: DataFile, expected: usize, test: DataFile, got: usize },
    #[error("{test} has a column {got:?} where {train} has {expected:?}; change {}", .test.key)]
    Headers { train: DataFile, expected: String, test: DataFile, got: String },

    #[error("rows {}..{} asked for, the {} split has {rows}", .range.start, .range.end, name(*.split))]
    Range { split: Split, range: Range<usize>, rows: usize },
    #[error("row {row} of the {} split is not finite after scaling; change job.data.scale or job.data.divide_by", name(*.split))]
    ScaledNotFinite { split: Split, row: usize },
}

/// A model has one output a class: more classes than this in a column of numbers are measurements,
/// not classes.
pub(super) const MAX_CLASS: u32 = 65_535;

fn name(split: Split) -> &'static str {
    match split {
        Split::Train => "training",
        Split::Test => "test",
    }
}

impl From<DataError> for DatasetError {
    fn from(error: DataError) -> Self {
        Self(error.to_string())
    }
}
