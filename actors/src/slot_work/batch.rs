//! The rows that a step takes, side by side in memory that is kept.

use std::ops::Range;

use ndarray::{Array2, Axis, Slice};

use super::kept_rows::KeptRows;
use crate::dataset::RowTargets;
use crate::ids::{Slot, Version};
use crate::model::{Batch, Targets};

/// Rows that are computed together: a product of so many takes about as long a row as one of more,
/// and what the layers put out for them stays in a core's cache where the layers are small. A slot
/// that has more is computed alone.
const ROWS_TOGETHER: usize = 512;

/// Slots that are computed together, and the rows of each in this step.
pub(super) type Group = Vec<(Slot, usize)>;

/// Cuts slots with their rows into groups, in their order.
pub(super) fn groups(slots: impl Iterator<Item = (Slot, usize)>) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    let mut room = 0;
    for (slot, rows) in slots {
        match groups.last_mut() {
            Some(group) if rows <= room => group.push((slot, rows)),
            _ => {
                groups.push(vec![(slot, rows)]);
                room = ROWS_TOGETHER;
            }
        }
        room = room.saturating_sub(rows);
    }
    groups
}

/// The rows of one group.
#[derive(Debug, Default)]
pub(super) struct SharedBatch {
    /// Shape `[rows or more, features]`.
    inputs: Array2<f32>,
    classes: Vec<u32>,
    /// Shape `[rows or more, width]`; `None` where there are classes.
    values: Option<Array2<f32>>,
    /// Whose rows these are, in which step.
    of: Option<(Version, Group)>,
    rows: usize,
}

impl SharedBatch {
    pub(super) fn is_of(&self, step: Version, group: &Group) -> bool {
        self.of.as_ref().is_some_and(|(at, slots)| *at == step && slots == group)
    }

    /// Whether it has the rows of all `slots` slots that there are.
    pub(super) fn has_all_of(&self, step: Version, slots: usize) -> bool {
        self.of.as_ref().is_some_and(|(at, group)| *at == step && group.len() == slots)
    }

    /// What it holds is of no use any more; its memory is.
    pub(super) fn forget(&mut self) {
        self.of = None;
        self.rows = 0;
        self.classes.clear();
    }

    /// Begins with room for `rows` rows as these are.
    pub(super) fn begin(&mut self, rows: usize, like: &KeptRows) {
        self.forget();
        make_room(&mut self.inputs, rows, like.features());
        match like.targets() {
            RowTargets::Classes(_) => self.values = None,
            RowTargets::Values(values) => {
                make_room(self.values.get_or_insert_default(), rows, values.ncols());
            }
        }
    }

    /// Appends the rows of these numbers, counted from row `first`, in this order.
    pub(super) fn append(&mut self, from: &KeptRows, first: usize, order: &[u32]) {
        let order = order.iter().map(|&number| first + number as usize);
        let end = self.rows + order.len();
        let to = Slice::from(self.rows..end);
        let mut rows = self.inputs.slice_axis_mut(Axis(0), to);
        for (mut row, number) in rows.rows_mut().into_iter().zip(order.clone()) {
            if let Some(row) = row.as_slice_mut() {
                from.read(number..number + 1, row);
            }
        }
        match (from.targets(), &mut self.values) {
            (RowTargets::Classes(classes), _) => {
                self.classes.extend(order.map(|number| classes[number]));
            }
            (RowTargets::Values(values), Some(to_values)) => {
                let mut rows = to_values.slice_axis_mut(Axis(0), to);
                for (mut row, number) in rows.rows_mut().into_iter().zip(order) {
                    row.assign(&values.row(number));
                }
            }
            (RowTargets::Values(_), None) => {}
        }
        self.rows = end;
    }

    pub(super) fn end(&mut self, step: Version, group: Group) {
        self.of = Some((step, group));
    }

    /// The slots whose rows these are, with where they lie.
    pub(super) fn parts(&self) -> impl Iterator<Item = (Slot, Range<usize>)> {
        let group = self.of.iter().flat_map(|(_, group)| group);
        group.scan(0, |first, &(slot, rows)| {
            *first += rows;
            Some((slot, *first - rows..*first))
        })
    }

    pub(super) fn batch(&self) -> Batch<'_> {
        let rows = Slice::from(..self.rows);
        let inputs = self.inputs.slice_axis(Axis(0), rows);
        let targets = match &self.values {
            None => Targets::Classes(&self.classes),
            Some(values) => Targets::Values(values.slice_axis(Axis(0), rows)),
        };
        Batch { inputs, targets }
    }
}

fn make_room(array: &mut Array2<f32>, rows: usize, width: usize) {
    if array.nrows() < rows || array.ncols() != width {
        *array = Array2::zeros((rows, width));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_together_as_long_as_their_rows_are_few() {
        let of = |rows: &[usize]| {
            let slots = (0..).map(Slot).zip(rows.iter().copied());
            groups(slots).iter().map(Vec::len).collect::<Vec<_>>()
        };
        assert_eq!(of(&[]), Vec::<usize>::new());
        assert_eq!(of(&[16; 8]), [8]);
        assert_eq!(of(&[256, 256, 0, 1, 511, 1]), [3, 2, 1]);
        assert_eq!(of(&[1000, 1, 2]), [1, 2]);
    }
}
