//! Data sets in files: IDX and CSV, plain or gzip.
//!
//! [`open`] reads every file once, from end to end, and refuses what is not right; after that a
//! [`Dataset`] loads any range of rows by reading the files again, so a worker's memory holds the
//! rows of its leases only.

mod csv;
mod error;
mod file_dataset;
mod idx;
mod rows;
mod scale;
mod source;
mod split;

use std::path::Path;
use std::sync::Arc;

use gradmesh_actors::dataset::Dataset;
use gradmesh_actors::hashing::BUCKETS_MAX;
use gradmesh_actors::job::{DataSpec, Loss, ScaleSpec};

pub use error::{DataError, DataFile, Place};

/// Opens the data set of a job. Paths are relative to `folder`, the one of `cluster.toml`.
///
/// # Targets
/// IDX labels are classes. A CSV target is a class with [`Loss::Softmax`], a value with
/// [`Loss::Squared`]. There are as many classes as the largest label of the file `job.data.train`
/// plus one.
///
/// # Test rows
/// Those of `job.data.test`; without it ⌊`test_fraction` · n⌋ of the n rows of `job.data.train`,
/// drawn from `seed`. The others are the training rows, in file order.
///
/// # Digest
/// BLAKE3 over lengths and hashes of the files as they are (a file and its gzip differ): train,
/// train labels, test, test labels.
///
/// # Errors
/// A key doesn't fit the format, or a file is missing or wrong at any place.
pub fn open(
    spec: &DataSpec,
    loss: Loss,
    seed: u64,
    folder: &Path,
) -> Result<Arc<dyn Dataset>, DataError> {
    check(spec)?;
    Ok(Arc::new(file_dataset::FileDataset::open(spec, loss, seed, folder)?))
}

/// The numbers that arithmetic below relies on. NaN is outside of both ranges.
fn check(spec: &DataSpec) -> Result<(), DataError> {
    if !(0.0..1.0).contains(&spec.test_fraction) {
        return Err(DataError::Setting {
            expected: "a part of the rows, 0 or more and less than 1",
            got: spec.test_fraction.to_string(),
            key: "job.data.test_fraction",
        });
    }
    if !(1..=BUCKETS_MAX).contains(&spec.text_buckets) {
        return Err(DataError::Setting {
            expected: "1 to 4194304 inputs",
            got: spec.text_buckets.to_string(),
            key: "job.data.text_buckets",
        });
    }
    let divides = spec.scale == ScaleSpec::Divide;
    if divides && !(spec.divide_by.is_finite() && spec.divide_by > 0.0) {
        return Err(DataError::Setting {
            expected: "a finite divisor greater than 0",
            got: spec.divide_by.to_string(),
            key: "job.data.divide_by",
        });
    }
    Ok(())
}
