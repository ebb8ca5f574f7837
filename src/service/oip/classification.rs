//! The classification extension: the largest values of a row, as text.

use super::{Tensor, TensorError};

/// A BYTES tensor `[rows, min(largest, outputs)]` of `value:index`, the largest value of each row
/// first, and of equal ones the one with the smaller index.
///
/// `values`: shape `[rows, outputs]`.
pub(super) fn classify(
    values: &[f32],
    outputs: usize,
    largest: usize,
) -> Result<Tensor, TensorError> {
    let largest = largest.min(outputs);
    let rows = values.chunks_exact(outputs.max(1));
    let shape = vec![rows.len(), largest];
    let texts: Vec<String> = rows.flat_map(|row| largest_of(row, largest)).collect();
    Tensor::of_strings(shape, texts.iter().map(String::as_bytes))
}

fn largest_of(row: &[f32], largest: usize) -> impl Iterator<Item = String> {
    let mut order: Vec<usize> = (0..row.len()).collect();
    order.sort_by(|&one, &other| row[other].total_cmp(&row[one]));
    order.truncate(largest);
    order.into_iter().map(|index| format!("{}:{index}", row[index]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(values: &[f32], outputs: usize, largest: usize) -> Vec<String> {
        let tensor = classify(values, outputs, largest).unwrap();
        assert_eq!(tensor.shape(), [values.len() / outputs, largest.min(outputs)]);
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        tensor.strings().map(text).collect()
    }

    #[test]
    fn the_largest_values_of_each_row_come_first_with_their_numbers() {
        let values = [0.25, 0.5, 0.25, -1.0, -3.0, -2.0];
        assert_eq!(texts(&values, 3, 2), ["0.5:1", "0.25:0", "-1:0", "-2:2"]);
    }

    #[test]
    fn no_more_values_are_told_than_there_are() {
        assert_eq!(texts(&[1.0, 2.0], 2, 9), ["2:1", "1:0"]);
    }
}
