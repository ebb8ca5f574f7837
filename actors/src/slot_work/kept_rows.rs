//! Rows as a worker keeps them: a byte for each input where all are whole numbers, as in pictures.

use std::ops::Range;

use ndarray::Array2;

use crate::dataset::{Dataset, DatasetError, RowTargets, Rows, Scaling, Split};

/// Rows of a data set in memory; each input has the bits that it was loaded with.
#[derive(Debug)]
pub(super) struct KeptRows {
    inputs: Inputs,
    features: usize,
    scaling: Scaling,
    targets: RowTargets,
}

/// One row after the other.
#[derive(Debug)]
enum Inputs {
    /// Before they were scaled, where they were whole numbers of 0 to 255 then: a quarter of the
    /// memory, and of what is read for each step.
    Unscaled(Vec<u8>),
    Scaled(Vec<f32>),
}

impl KeptRows {
    /// Loads rows `range` of a split, a block after the other.
    ///
    /// # Errors
    /// The data set can't give them, or gives rows that don't go together.
    pub(super) fn load(
        data: &dyn Dataset,
        split: Split,
        range: Range<usize>,
    ) -> Result<Self, DatasetError> {
        let (rows, scaling) = (range.len(), data.scaling());
        let (mut kept, mut unlike) = (None, None);
        data.load_in_blocks(split, range, &mut |block: Rows| match &mut kept {
            None => kept = Some(Self::begin(rows, scaling.clone(), block)),
            Some(kept) => unlike = unlike.take().or(kept.append(rows, block).err()),
        })?;
        match (kept, unlike) {
            (Some(kept), None) => Ok(kept),
            (_, Some(unlike)) => Err(unlike),
            (None, None) => Err(DatasetError("the data set gave no block of rows".to_owned())),
        }
    }

    /// The first block, of so many rows in all.
    fn begin(rows: usize, scaling: Scaling, block: Rows) -> Self {
        let features = block.inputs.ncols();
        let numbers = Vec::with_capacity(rows.saturating_mul(features));
        let inputs = Inputs::Unscaled(numbers);
        let mut kept = Self { inputs, features, scaling, targets: block.targets };
        kept.append_inputs(rows, &block.inputs);
        kept
    }

    fn append(&mut self, rows: usize, block: Rows) -> Result<(), DatasetError> {
        let (expected, got) = (self.features, block.inputs.ncols());
        if got != expected {
            let unlike = format!("the data set gave rows of {got} inputs after some of {expected}");
            return Err(DatasetError(unlike));
        }
        self.targets.append(block.targets)?;
        self.append_inputs(rows, &block.inputs);
        Ok(())
    }

    /// Appends a block; there are `rows` rows in the end.
    fn append_inputs(&mut self, rows: usize, block: &Array2<f32>) {
        let block = block.as_standard_layout();
        let block = block.as_slice().unwrap_or(&[]);
        if let Inputs::Unscaled(numbers) = &mut self.inputs {
            let before = numbers.len();
            if append_unscaled(&self.scaling, self.features, block, numbers) {
                return;
            }
            let mut scaled = Vec::with_capacity(rows.saturating_mul(self.features));
            scaled.resize(before, 0.0);
            if let Some(rows) = before.checked_div(self.features) {
                self.read(0..rows, &mut scaled);
            }
            self.inputs = Inputs::Scaled(scaled);
        }
        if let Inputs::Scaled(values) = &mut self.inputs {
            values.extend_from_slice(block);
        }
    }

    pub(super) fn len(&self) -> usize {
        match &self.targets {
            RowTargets::Classes(classes) => classes.len(),
            RowTargets::Values(values) => values.nrows(),
        }
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
            Inputs::Unscaled(numbers) => {
                let features = self.features.max(1);
                let rows = numbers[range].chunks(features).zip(to.chunks_mut(features));
                rows.for_each(|(numbers, to)| self.scaling.scale_whole(numbers, to));
            }
        }
    }

    /// A copy of rows side by side, as a model takes them.
    pub(super) fn rows(&self, rows: Range<usize>) -> Rows {
        let mut inputs = Array2::zeros((rows.len(), self.features));
        if let Some(to) = inputs.as_slice_mut() {
            self.read(rows.clone(), to);
        }
        Rows { inputs, targets: self.targets.slice(rows) }
    }

    #[cfg(test)]
    fn is_unscaled(&self) -> bool {
        matches!(self.inputs, Inputs::Unscaled(_))
    }
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
    use crate::dataset::{DatasetShape, Scaling};

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
            assert_eq!(bits(&kept.rows(0..20).inputs), bits(&blocks[0].inputs), "{scaling:?}");
            assert_eq!(bits(&kept.rows(20..21).inputs), bits(&blocks[1].inputs), "{scaling:?}");
            assert_eq!(kept.rows(19..21).targets, RowTargets::Classes(vec![19, 0]));
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
                assert_eq!(bits(&kept.rows(0..2).inputs), bits(&blocks[0].inputs));
                assert_eq!(bits(&kept.rows(2..4).inputs), bits(&blocks[1].inputs));
            }
        }
    }

    #[test]
    fn rows_without_inputs_are_rows() {
        let kept = load(vec![block(3, 0, |_| 0.0), block(1, 0, |_| 0.0)]).unwrap();
        assert_eq!((kept.len(), kept.rows(1..3).inputs.dim()), (4, (2, 0)));
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
    }

    /// A matrix that lies in memory column after column.
    #[test]
    fn rows_are_read_in_their_order_however_they_lie() {
        let mut rows = block(3, 5, |at| at as f32);
        rows.inputs = block(5, 3, |at| at as f32).inputs.reversed_axes();
        assert_eq!(load(vec![rows.clone()]).unwrap().rows(0..3).inputs, rows.inputs);
    }
}
