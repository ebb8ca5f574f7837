//! A folder of small data files, and the specs that name them.

use std::io::Write;
use std::path::Path;

use gradmesh_actors::job::{DataFormat, DataSpec, ScaleSpec};
use tempfile::TempDir;

pub(crate) struct Folder(TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn write(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.0.path().join(name), bytes).unwrap();
    }
}

/// A CSV file without a header, its target in the last column, nothing scaled.
pub(crate) fn csv(train: &str) -> DataSpec {
    DataSpec {
        format: DataFormat::Csv,
        train: train.to_owned(),
        train_labels: None,
        test: None,
        test_labels: None,
        test_fraction: 0.0,
        target: "-1".to_owned(),
        header: false,
        text: None,
        text_buckets: 2048,
        scale: ScaleSpec::None,
        divide_by: 1.0,
    }
}

pub(crate) fn idx(train: &str, labels: &str) -> DataSpec {
    DataSpec { format: DataFormat::Idx, train_labels: Some(labels.to_owned()), ..csv(train) }
}

pub(crate) fn idx_with_test(train: &str, labels: &str, test: &str, test_labels: &str) -> DataSpec {
    DataSpec {
        test: Some(test.to_owned()),
        test_labels: Some(test_labels.to_owned()),
        ..idx(train, labels)
    }
}

/// An IDX file of unsigned bytes; `values` need not be as many as the header says.
pub(crate) fn idx_u8(dimensions: &[u32], values: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 0, 0x08, dimensions.len() as u8];
    bytes.extend(dimensions.iter().flat_map(|dimension| dimension.to_be_bytes()));
    bytes.extend(values);
    bytes
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}
