//! A data set in files: surveyed once, then read range by range.

use std::mem;
use std::ops::Range;
use std::path::Path;

use gradmesh_actors::dataset::{
    Dataset, DatasetError, DatasetShape, RowTargets, Rows, Scaling, Split,
};
use gradmesh_actors::job::{DataSpec, Loss, ScaleSpec};
use ndarray::Array2;

use super::error::DataError;
use super::rows::{RowReader, Table, Target};
use super::scale::Moments;
use super::split::RowSet;

/// Domain of the digest of a data set: no other hash of the same files is equal to it.
const DIGEST_CONTEXT: &str = "gradmesh 2026-11-24 files of a data set";

/// Inputs that are read at once, 1 MiB: few beside what is kept, and in the second-level cache.
const BLOCK_VALUES: usize = 1 << 18;

/// Rows of IDX or CSV files. In memory are its shape, its scaling and one bit a row; each load
/// reads the files again.
#[derive(Debug)]
pub(super) struct FileDataset {
    train: Table,
    test: TestRows,
    shape: DatasetShape,
    scaling: Scaling,
}

#[derive(Debug)]
enum TestRows {
    Files(Table),
    /// Rows of the training files.
    HeldOut(RowSet),
}

impl FileDataset {
    pub(super) fn open(
        spec: &DataSpec,
        loss: Loss,
        seed: u64,
        folder: &Path,
    ) -> Result<Self, DataError> {
        let train = Table::train(spec, loss, folder)?;
        let test = Table::test(spec, loss, folder)?;

        let mut digest = blake3::Hasher::new_derive_key(DIGEST_CONTEXT);
        let survey = Survey::of(&train, None, &mut digest)?;
        let (test, train_rows, test_rows) = match test {
            Some(test) => {
                let test_survey = Survey::of(&test, survey.classes, &mut digest)?;
                survey.expect_same_inputs(&train, &test, &test_survey)?;
                (TestRows::Files(test), survey.rows, test_survey.rows)
            }
            None => {
                let count = (spec.test_fraction * survey.rows as f64).floor() as usize;
                let held_out = RowSet::draw(survey.rows, count, seed);
                (TestRows::HeldOut(held_out), survey.rows - count, count)
            }
        };
        let shape = DatasetShape {
            train_rows,
            test_rows,
            features: survey.features,
            classes: survey.classes,
            target_width: 1,
            digest: digest.finalize().to_hex().to_string(),
        };
        let mut dataset = Self { train, test, shape, scaling: Scaling::None };
        dataset.scaling = match spec.scale {
            ScaleSpec::None => Scaling::None,
            ScaleSpec::Divide => Scaling::Divide { by: spec.divide_by },
            ScaleSpec::Standard => dataset.measure()?,
        };
        Ok(dataset)
    }

    /// A second pass over the training rows: which ones they are is known only after the first.
    fn measure(&self) -> Result<Scaling, DataError> {
        let mut moments = Moments::new(self.shape.features);
        let mut row = Vec::with_capacity(self.shape.features);
        self.visit(Split::Train, 0..self.shape.train_rows, &mut row, |row, _| {
            moments.add(row);
            row.clear();
            Ok(())
        })?;
        Ok(moments.scaling())
    }

    /// Rows of a split, at most so many in a block.
    fn load_scaled(
        &self,
        split: Split,
        range: Range<usize>,
        block: usize,
        each: &mut dyn FnMut(Rows),
    ) -> Result<(), DataError> {
        let count = match split {
            Split::Train => self.shape.train_rows,
            Split::Test => self.shape.test_rows,
        };
        if range.start > range.end || range.end > count {
            return Err(DataError::Range { split, range, rows: count });
        }
        let Range { start, end } = range;
        let mut next = start;
        let (mut inputs, mut targets) = (Vec::new(), Vec::new());
        self.visit(split, range, &mut inputs, |inputs, target| {
            // The first pass has seen every row: this is no promise of a header. One is there already.
            if targets.is_empty() {
                inputs.reserve_exact((block.min(end - next) - 1) * self.shape.features);
            }
            targets.push(target);
            if targets.len() == block {
                let first = next;
                next += block;
                each(self.rows(split, first, mem::take(inputs), mem::take(&mut targets))?);
            }
            Ok(())
        })?;
        if !targets.is_empty() || next == start {
            each(self.rows(split, next, inputs, targets)?);
        }
        Ok(())
    }

    /// Scales rows that were read, from row `first` of the split on.
    fn rows(
        &self,
        split: Split,
        first: usize,
        inputs: Vec<f32>,
        targets: Vec<Target>,
    ) -> Result<Rows, DataError> {
        let mut inputs = as_array(targets.len(), self.shape.features, inputs);
        self.scaling.apply(&mut inputs);
        for (row, values) in inputs.outer_iter().enumerate() {
            if !values.iter().all(|value| value.is_finite()) {
                return Err(DataError::ScaledNotFinite { split, row: first + row });
            }
        }
        let (mut classes, mut values) = (Vec::new(), Vec::new());
        for target in targets {
            match target {
                Target::Class(class) => classes.push(class),
                Target::Value(value) => values.push(value),
            }
        }
        let targets = match self.shape.classes {
            Some(_) => RowTargets::Classes(classes),
            None => {
                let rows = values.len() / self.shape.target_width;
                RowTargets::Values(as_array(rows, self.shape.target_width, values))
            }
        };
        Ok(Rows { inputs, targets })
    }

    /// Reads rows of a split in file order: appends the inputs of each to `inputs`, then calls
    /// `each`, which may take them out.
    fn visit(
        &self,
        split: Split,
        range: Range<usize>,
        inputs: &mut Vec<f32>,
        mut each: impl FnMut(&mut Vec<f32>, Target) -> Result<(), DataError>,
    ) -> Result<(), DataError> {
        let (table, rows) = self.locate(split, range);
        let changed = || DataError::Changed { file: table.name().clone() };
        let mut reader = table.open(false)?;
        if reader.features() != self.shape.features {
            return Err(changed());
        }
        let mut position = 0;
        for row in rows {
            reader.skip(row - position)?;
            let target = reader.next(inputs)?.ok_or_else(changed)?;
            check_class(reader.as_ref(), target, self.shape.classes)?;
            each(inputs, target)?;
            position = row + 1;
        }
        Ok(())
    }

    /// The files that hold a split, and the numbers of its rows there, ascending.
    fn locate(
        &self,
        split: Split,
        range: Range<usize>,
    ) -> (&Table, Box<dyn Iterator<Item = usize> + '_>) {
        match (&self.test, split) {
            (TestRows::Files(test), Split::Test) => (test, Box::new(range)),
            (TestRows::Files(_), Split::Train) => (&self.train, Box::new(range)),
            (TestRows::HeldOut(rows), _) => {
                let split_rows = rows.rows(split == Split::Test);
                (&self.train, Box::new(split_rows.skip(range.start).take(range.len())))
            }
        }
    }
}

impl Dataset for FileDataset {
    fn shape(&self) -> &DatasetShape {
        &self.shape
    }

    fn scaling(&self) -> &Scaling {
        &self.scaling
    }

    fn load(&self, split: Split, range: Range<usize>) -> Result<Rows, DatasetError> {
        let (all, mut loaded) = (range.len().max(1), None);
        self.load_scaled(split, range, all, &mut |rows| loaded = Some(rows))?;
        loaded.ok_or_else(|| DatasetError("no block of rows was read".to_owned()))
    }

    fn load_in_blocks(
        &self,
        split: Split,
        range: Range<usize>,
        each: &mut dyn FnMut(Rows),
    ) -> Result<(), DatasetError> {
        let rows = (BLOCK_VALUES / self.shape.features).max(1);
        Ok(self.load_scaled(split, range, rows, each)?)
    }
}

/// What one pass over a table tells.
#[derive(Debug)]
struct Survey {
    rows: usize,
    features: usize,
    /// Largest class + 1.
    classes: Option<usize>,
    names: Vec<String>,
}

impl Survey {
    /// Reads each row, so that later loads meet no bad one, and adds the files to the digest.
    /// `classes`: those that there may be.
    fn of(
        table: &Table,
        classes: Option<usize>,
        digest: &mut blake3::Hasher,
    ) -> Result<Self, DataError> {
        let mut reader = table.open(true)?;
        let mut survey = Self {
            rows: 0,
            features: reader.features(),
            classes: None,
            names: reader.names().into_iter().map(str::to_owned).collect(),
        };
        let mut inputs = Vec::with_capacity(survey.features);
        while let Some(target) = reader.next(&mut inputs)? {
            check_class(reader.as_ref(), target, classes)?;
            if let Target::Class(class) = target {
                survey.classes = survey.classes.max(Some(class as usize + 1));
            }
            survey.rows += 1;
            inputs.clear();
        }
        reader.finish()?;
        if survey.rows == 0 {
            return Err(DataError::Empty { file: table.name().clone() });
        }
        for source in reader.sources() {
            let (bytes, hash) = source.content();
            digest.update(&bytes.to_le_bytes());
            digest.update(hash.as_bytes());
        }
        Ok(survey)
    }

    fn expect_same_inputs(&self, train: &Table, test: &Table, got: &Self) -> Result<(), DataError> {
        let (train, test) = (train.name().clone(), test.name().clone());
        if got.features != self.features {
            return Err(DataError::Features {
                train,
                expected: self.features,
                test,
                got: got.features,
            });
        }
        let mut names = self.names.iter().zip(&got.names);
        if let Some((expected, got)) = names.find(|(expected, got)| expected != got) {
            let (expected, got) = (expected.clone(), got.clone());
            return Err(DataError::Headers { train, expected, test, got });
        }
        Ok(())
    }
}

/// A class that the model has no output for must not reach it.
fn check_class(
    reader: &dyn RowReader,
    target: Target,
    classes: Option<usize>,
) -> Result<(), DataError> {
    match (target, classes) {
        (Target::Class(label), Some(classes)) if label as usize >= classes => {
            let (file, place) = reader.target_place();
            Err(DataError::LabelOutOfRange { file: file.clone(), place, label, classes })
        }
        _ => Ok(()),
    }
}

#[expect(clippy::expect_used, reason = "each row was read whole, so their values fill the shape")]
fn as_array(rows: usize, columns: usize, values: Vec<f32>) -> Array2<f32> {
    Array2::from_shape_vec((rows, columns), values).expect("rows of equal length")
}
