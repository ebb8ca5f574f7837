//! Rows as a worker keeps them: a byte for each input where all are whole numbers, as in pictures.

use std::borrow::Cow;
use std::ops::Range;

use ndarray::{Array2, ArrayView2};

use crate::dataset::{Dataset, DatasetError, RowTargets, Rows, Scaling, Split};
use crate::model::Batch;

/// Rows of a data set in memory; each input has the bits that it was loaded with.
#[derive(Debug)]
pub(super) struct KeptRows {
    inputs: Inputs,
    features: usize,
    targets: RowTargets,
}

/// One row after the other.
#[derive(Debug)]
enum Inputs {
    /// Before they were scaled, where they were whole numbers of 0 to 255 then: a quarter of the
    /// memory, and of what is read for each step.
    Unscaled(Vec<u8>, Scaling),
    Scaled(Vec<f32>),
}

impl KeptRows {
    /// Loads rows `range` of a split, a block after the other.
    ///
    /// # Errors
    /// The data set can't give them or gives rows that don't go together, or there is no memory.
    pub(super) fn load(
        data: &dyn Dataset,
        split: Split,
        range: Range<usize>,
    ) -> Result<Self, DatasetError> {
        let (rows, mut kept, mut wrong) = (range.len(), None, None);
        data.load_in_blocks(split, range, &mut |block: Rows| {
            if wrong.is_none() {
                wrong = Self::append(&mut kept, data.scaling(), rows, block).err();
            }
        })?;
        match (kept, wrong) {
            (_, Some(wrong)) => Err(wrong),
            (Some(kept), None) => Ok(kept),
            (None, None) => Err(DatasetError("the data set gave no block of rows".to_owned())),
        }
    }

    /// Appends a block; there are `rows` rows in the end.
    fn append(
        kept: &mut Option<Self>,
        scaling: &Scaling,
        rows: usize,
        block: Rows,
    ) -> Result<(), DatasetError> {
        let Rows { inputs, targets } = block;
        let (of_inputs, of_targets) = (inputs.nrows(), targets.len());
        if of_inputs != of_targets {
            return Err(DatasetError(format!(
                "the data set gave inputs of {of_inputs} rows with targets of {of_targets}"
            )));
        }
        let Some(kept) = kept else {
            let (none, features) = (Inputs::Unscaled(Vec::new(), scaling.clone()), inputs.ncols());
            let begun = kept.insert(Self { inputs: none, features, targets });
            return begun.append_inputs(rows, inputs);
        };
        let (expected, got) = (kept.features, inputs.ncols());
        if got != expected {
            let unlike = format!("the data set gave rows of {got} inputs after some of {expected}");
            return Err(DatasetError(unlike));
        }
        kept.targets.append(targets)?;
        kept.append_inputs(rows, inputs)
    }

    fn append_inputs(&mut self, rows: usize, block: Array2<f32>) -> Result<(), DatasetError> {
        let all = rows.saturating_mul(self.features);
        if let Inputs::Unscaled(numbers, scaling) = &mut self.inputs {
            let before = numbers.len();
            if before == 0 {
                reserve(numbers, all)?;
            }
            let values = block.as_standard_layout();
            let values = values.as_slice().unwrap_or(&[]);
            if append_unscaled(scaling, self.features, values, numbers) {
                return Ok(());
            }
            if before == 0 && block.len() == all && block.is_standard_layout() {
                let (mut values, first) = block.into_raw_vec_and_offset();
                values.drain(..first.unwrap_or(0));
                values.truncate(all);
                self.inputs = Inputs::Scaled(values);
                return Ok(());
            }
            let mut scaled = Vec::new();
            reserve(&mut scaled, all)?;
            scaled.resize(before, 0.0);
            self.read(0..before.checked_div(self.features).unwrap_or(0), &mut scaled);
            self.inputs = Inputs::Scaled(scaled);
        }
        if let Inputs::Scaled(values) = &mut self.inputs {
            values.extend_from_slice(block.as_standard_layout().as_slice().unwrap_or(&[]));
        }
        Ok(())
    }

    pub(super) fn len(&self) -> usize {
        self.targets.len()
    }

    /// Inputs of a row.
    pub(super) fn features(&self) -> usize {
        self.features
    }

    pub(super) fn targets(&self) -> &RowTargets {
        &self.targets
    }

    /// Writes the inputs of rows side by side to `to`, which has as many.
    pub(super) fn read(&self, rows: Range<usize>, to: &mut [f32]) {
        let range = rows.start * self.features..rows.end * self.features;
        match &self.inputs {
            Inputs::Scaled(values) => to.copy_from_slice(&values[range]),
            Inputs::Unscaled(numbers, scaling) => {
                let features = self.features.max(1);
                let rows = numbers[range].chunks(features).zip(to.chunks_mut(features));
                rows.for_each(|(numbers, to)| scaling.scale_whole(numbers, to));
            }
        }
    }

    /// Has rows side by side looked at, as a model takes them.
    #[expect(clippy::expect_used, reason = "as many inputs as rows have were taken")]
    pub(super) fn visit<T>(&self, rows: Range<usize>, visit: impl FnOnce(Batch<'_>) -> T) -> T {
        let inputs = match &self.inputs {
            Inputs::Scaled(values) => {
                Cow::Borrowed(&values[rows.start * self.features..rows.end * self.features])
            }
            Inputs::Unscaled(..) => {
                let mut inputs = vec![0.0; rows.len() * self.features];
                self.read(rows.clone(), &mut inputs);
                Cow::Owned(inputs)
            }
        };
        let shape = (rows.len(), self.features);
        let inputs = ArrayView2::from_shape(shape, &inputs).expect("inputs of this shape");
        visit(Batch { inputs, targets: self.targets.part(rows) })
    }

    #[cfg(test)]
    fn is_unscaled(&self) -> bool {
        matches!(self.inputs, Inputs::Unscaled(..))
    }
}

/// Room for so many, which a data set has promised.
fn reserve<T>(values: &mut Vec<T>, all: usize) -> Result<(), DatasetError> {
    let no_memory = |_| DatasetError(format!("no memory for {all} inputs; start more workers"));
    values.try_reserve_exact(all).map_err(no_memory)
}

/// Appends what was scaled to these rows, if that gives their bits again.
fn append_unscaled(
    scaling: &Scaling,
    features: usize,
    scaled: &[f32],
    numbers: &mut Vec<u8>,
) -> bool {
    let mut again = vec![0.0; features];
    scaled.chunks(features.max(1)).all(|row| {
        let first = numbers.len();
        numbers.resize(first + row.len(), 0);
        scaling.unscale_whole(row, &mut numbers[first..]);
        scaling.scale_whole(&numbers[first..], &mut again);
        let is_same = |(x, y): (&f32, &f32)| x.to_bits() == y.to_bits();
        // Not `all`, which looks at one after the other.
        row.iter().zip(&again).map(is_same).fold(true, |all, same| all & same)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::DatasetShape;
    use crate::model::Targets;

    /// Gives its rows in blocks of so many.
    #[derive(Debug)]
    struct Blocks {
        rows: Vec<Rows>,
        scaling: Scaling,
    }

    impl Dataset for Blocks {
        fn shape(&self) -> &DatasetShape {
            unreachable!("nobody asks for it here")
        }

        fn scaling(&self) -> &Scaling {
            &self.scaling
        }

        fn load(&self, _: Split, _: Range<usize>) -> Result<Rows, DatasetError> {
            unreachable!("nobody asks for it here")
        }

        fn load_in_blocks(
            &self,
            _: Split,
            _: Range<usize>,
            each: &mut dyn FnMut(Rows),
        ) -> Result<(), DatasetError> {
            self.rows.iter().cloned().for_each(each);
            Ok(())
        }
    }

    fn block(rows: usize, features: usize, value: impl Fn(usize) -> f32) -> Rows {
        let inputs =
            Array2::from_shape_fn((rows, features), |(row, at)| value(row * features + at));
        Rows { inputs, targets: RowTargets::Classes((0..).take(rows).collect()) }
    }

    fn load_scaled(mut rows: Vec<Rows>, scaling: Scaling) -> (Vec<Rows>, KeptRows) {
        rows.iter_mut().for_each(|rows| scaling.apply(&mut rows.inputs));
        let all = rows.iter().map(Rows::len).sum();
        let data = Blocks { rows, scaling };
        let kept = KeptRows::load(&data, Split::Train, 0..all).unwrap();
        (data.rows, kept)
    }

    fn load(rows: Vec<Rows>) -> Result<KeptRows, DatasetError> {
        let all = rows.iter().map(Rows::len).sum();
        KeptRows::load(&Blocks { rows, scaling: Scaling::None }, Split::Train, 0..all)
    }

    fn bits(values: &Array2<f32>) -> Vec<u32> {
        values.iter().map(|value| value.to_bits()).collect()
    }

    fn inputs(kept: &KeptRows, rows: Range<usize>) -> Array2<f32> {
        kept.visit(rows, |batch| batch.inputs.to_owned())
    }

    #[test]
    fn whole_numbers_take_a_byte_each_and_keep_their_bits_however_they_are_scaled() {
        let mean: Vec<f32> = (0..100u8).map(|at| f32::from(at) * 1.7 - 20.3).collect();
        let deviation: Vec<f32> = (0..100u8).map(|at| f32::from(at) * 0.37 + 0.01).collect();
        let divides = [255.0, 16.0, 3.0, 0.1, 1e-3, 1e6].map(|by| Scaling::Divide { by });
        let standard = Scaling::Standard { mean, deviation };
        for scaling in divides.into_iter().chain([Scaling::None, standard]) {
            let blocks =
                vec![block(20, 100, |at| (at % 256) as f32), block(1, 100, |at| (255 - at) as f32)];
            let (blocks, kept) = load_scaled(blocks, scaling.clone());
            assert!(kept.is_unscaled(), "{scaling:?}");
            assert_eq!((kept.len(), kept.features()), (21, 100));
            assert_eq!(bits(&inputs(&kept, 0..20)), bits(&blocks[0].inputs), "{scaling:?}");
            assert_eq!(bits(&inputs(&kept, 20..21)), bits(&blocks[1].inputs), "{scaling:?}");
            kept.visit(19..21, |batch| {
                assert!(matches!(batch.targets, Targets::Classes([19, 0])), "{:?}", batch.targets);
            });
        }
    }

    #[test]
    fn a_number_that_is_not_whole_or_too_large_makes_all_of_them_plain() {
        for other in [0.5, 256.0, -1.0, -0.0, f32::NAN, f32::INFINITY, 1e-30] {
            for scaling in [Scaling::None, Scaling::Divide { by: 255.0 }] {
                let few = block(2, 128, |at| at as f32);
                let more = block(2, 128, |at| if at == 200 { other } else { 255.0 - at as f32 });
                let (blocks, kept) = load_scaled(vec![few, more], scaling);
                assert!(!kept.is_unscaled(), "{other}");
                assert_eq!(bits(&inputs(&kept, 0..2)), bits(&blocks[0].inputs));
                assert_eq!(bits(&inputs(&kept, 2..4)), bits(&blocks[1].inputs));
            }
        }
    }

    #[test]
    fn rows_without_inputs_are_rows() {
        let kept = load(vec![block(3, 0, |_| 0.0), block(1, 0, |_| 0.0)]).unwrap();
        assert_eq!((kept.len(), inputs(&kept, 1..3).dim()), (4, (2, 0)));
    }

    #[test]
    fn blocks_that_dont_go_together_are_an_error() {
        let refused = load(vec![block(1, 3, |_| 0.0), block(1, 4, |_| 0.0)]).unwrap_err();
        assert_eq!(refused.0, "the data set gave rows of 4 inputs after some of 3");
        let values =
            Rows { targets: RowTargets::Values(Array2::zeros((1, 1))), ..block(1, 3, |_| 0.0) };
        let refused = load(vec![block(1, 3, |_| 0.0), values]).unwrap_err();
        assert!(refused.0.contains("classes"), "{refused}");
        assert!(load(Vec::new()).is_err());
        let few = RowTargets::Classes(vec![1]);
        let refused = load(vec![Rows { targets: few, ..block(2, 3, |_| 0.0) }]).unwrap_err();
        assert_eq!(refused.0, "the data set gave inputs of 2 rows with targets of 1");
    }

    #[test]
    fn rows_that_no_memory_could_hold_are_an_error() {
        let data = Blocks { rows: vec![block(1, 3, |_| 0.0)], scaling: Scaling::None };
        let refused = KeptRows::load(&data, Split::Train, 0..usize::MAX / 2).unwrap_err();
        assert!(refused.0.starts_with("no memory for"), "{refused}");
    }

    #[test]
    fn rows_that_come_as_a_whole_and_stay_scaled_are_not_copied() {
        let rows = block(4, 5, |at| at as f32 + 0.5);
        let place = rows.inputs.as_ptr();
        let mut kept = None;
        KeptRows::append(&mut kept, &Scaling::None, 4, rows).unwrap();
        let kept = kept.unwrap();
        assert_eq!(kept.visit(0..4, |batch| batch.inputs.as_ptr()), place);
    }

    /// A matrix that lies in memory column after column.
    #[test]
    fn rows_are_read_in_their_order_however_they_lie() {
        let mut rows = block(3, 5, |at| at as f32);
        rows.inputs = block(5, 3, |at| at as f32).inputs.reversed_axes();
        assert_eq!(inputs(&load(vec![rows.clone()]).unwrap(), 0..3), rows.inputs);
    }
}
