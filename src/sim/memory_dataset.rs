//! Rows in memory: what a simulation reads, it reads once, before it begins.

use std::ops::Range;
use std::sync::Arc;

use gradmesh_actors::dataset::{Dataset, DatasetError, DatasetShape, Rows, Scaling, Split};

/// A data set of which all rows have been loaded. Clones share them.
#[derive(Clone, Debug)]
pub(super) struct MemoryDataset(Arc<Loaded>);

#[derive(Debug)]
struct Loaded {
    shape: DatasetShape,
    scaling: Scaling,
    train: Rows,
    test: Rows,
}

impl MemoryDataset {
    pub(super) fn load(data: &dyn Dataset) -> Result<Self, DatasetError> {
        Self::first(data, data.shape().train_rows, data.shape().test_rows)
    }

    /// The first rows of each split, at most so many.
    pub(super) fn first(
        data: &dyn Dataset,
        train_rows: usize,
        test_rows: usize,
    ) -> Result<Self, DatasetError> {
        let all = data.shape().clone();
        let (train_rows, test_rows) =
            (train_rows.min(all.train_rows), test_rows.min(all.test_rows));
        let digest = match (train_rows, test_rows) == (all.train_rows, all.test_rows) {
            true => all.digest.clone(),
            false => format!("{}, the first {train_rows} and {test_rows} rows", all.digest),
        };
        let shape = DatasetShape { train_rows, test_rows, digest, ..all };
        let train = data.load(Split::Train, 0..shape.train_rows)?;
        let test = data.load(Split::Test, 0..shape.test_rows)?;
        let scaling = data.scaling().clone();
        Ok(Self(Arc::new(Loaded { shape, scaling, train, test })))
    }
}

impl Dataset for MemoryDataset {
    fn shape(&self) -> &DatasetShape {
        &self.0.shape
    }

    fn scaling(&self) -> &Scaling {
        &self.0.scaling
    }

    fn load(&self, split: Split, range: Range<usize>) -> Result<Rows, DatasetError> {
        Ok(match split {
            Split::Train => self.0.train.slice(range),
            Split::Test => self.0.test.slice(range),
        })
    }
}
