//! What becomes of several tensors, or of texts.

use crate::hashing::hash_text;
use crate::tensor::Tensor;
use crate::tensor_model::RunError;

/// Values that a step makes at most, 64 MiB: a few empty texts and many buckets, or the same tensor many
/// times side by side, would else take far more memory than the request that asks for it.
const VALUES_MAX: usize = 1 << 24;

/// How several FP32 tensors become one. Weights: as many as tensors, finite and > 0.
#[derive(Clone, Debug, PartialEq)]
pub enum Fusion {
    /// Side by side.
    Concatenate,
    /// The weighted mean.
    Average(Vec<f64>),
    /// The part of the weights whose largest value is in that column.
    Vote(Vec<f64>),
}

/// Fuses tensors of shape `[rows, columns]`. Sums are taken in f64, in the order of the tensors.
///
/// # Errors
/// A value is not finite; they don't have as many rows, or not as many columns where that is needed, or there would be too many
/// values.
pub fn fuse(how: &Fusion, tensors: &[&Tensor]) -> Result<Tensor, RunError> {
    let mut parts = Vec::with_capacity(tensors.len());
    for tensor in tensors {
        let &[rows, columns] = tensor.shape() else {
            return Err(refused(format!("shape {:?} is not [rows, columns]", tensor.shape())));
        };
        parts.push((rows, columns, tensor.f32s()));
    }
    for (_, columns, values) in &parts {
        // Nobody means one: it would win a vote by its place, and is no number in JSON.
        if let Some(index) = values.iter().position(|value| !value.is_finite()) {
            let (row, column, value) = (index / columns, index % columns, values[index]);
            return Err(refused(format!("column {column} of row {row} is {value}")));
        }
    }
    let Some(&(rows, columns, _)) = parts.first() else {
        return Err(refused("there is nothing to fuse".to_owned()));
    };
    let same_width = *how != Fusion::Concatenate;
    for &(others, width, _) in &parts {
        if others != rows || (same_width && width != columns) {
            let (first, other) = ([rows, columns], [others, width]);
            return Err(refused(format!("shapes {first:?} and {other:?} can't be fused")));
        }
    }
    let columns = if same_width { columns } else { parts.iter().map(|part| part.1).sum() };
    check_len(rows, columns)?;
    let mut values = Vec::with_capacity(rows * columns);
    for row in 0..rows {
        let rows = parts.iter().map(|(_, width, all)| &all[row * width..][..*width]);
        match how {
            Fusion::Concatenate => rows.for_each(|row| values.extend_from_slice(row)),
            Fusion::Average(weights) => values.extend(average(rows, weights, columns)),
            Fusion::Vote(weights) => values.extend(vote(rows, weights, columns)),
        }
    }
    tensor(values, rows, columns)
}

/// A row of hashed words for each text of a BYTES tensor of shape `[rows]`.
///
/// # Errors
/// A text is not UTF-8, or there would be too many values.
pub fn hash_texts(texts: &Tensor, buckets: usize) -> Result<Tensor, RunError> {
    let &[rows] = texts.shape() else {
        return Err(refused(format!("texts have shape {:?}, not [rows]", texts.shape())));
    };
    check_len(rows, buckets)?;
    let mut values = vec![0.0; rows * buckets];
    for (index, (text, row)) in texts.strings().zip(values.chunks_exact_mut(buckets)).enumerate() {
        let text = std::str::from_utf8(text);
        let text = text.map_err(|error| refused(format!("text {index} is not UTF-8: {error}")))?;
        hash_text(text, row);
    }
    tensor(values, rows, buckets)
}

fn average<'a>(
    rows: impl Iterator<Item = &'a [f32]>,
    weights: &[f64],
    columns: usize,
) -> impl Iterator<Item = f32> {
    let mut sums = vec![0.0f64; columns];
    // Their parts of the whole first: a large weight times a value would be infinite.
    let all: f64 = weights.iter().sum();
    for (row, weight) in rows.zip(weights) {
        let part = weight / all;
        sums.iter_mut().zip(row).for_each(|(sum, &value)| *sum += part * f64::from(value));
    }
    sums.into_iter().map(|sum| sum as f32)
}

fn vote<'a>(
    rows: impl Iterator<Item = &'a [f32]>,
    weights: &[f64],
    columns: usize,
) -> impl Iterator<Item = f32> {
    let mut votes = vec![0.0f64; columns];
    for (row, weight) in rows.zip(weights) {
        let mut largest = row.iter().enumerate();
        let Some(first) = largest.next() else { continue };
        let (column, _) =
            largest.fold(first, |best, next| if next.1 > best.1 { next } else { best });
        votes[column] += weight;
    }
    let all: f64 = weights.iter().sum();
    votes.into_iter().map(move |votes| (votes / all) as f32)
}

fn check_len(rows: usize, columns: usize) -> Result<(), RunError> {
    // A tensor without columns has no bytes, however many rows it says it has, and each would be walked.
    if columns == 0 {
        return Err(refused("rows without columns can't be fused".to_owned()));
    }
    if rows.checked_mul(columns).is_none_or(|values| values > VALUES_MAX) {
        return Err(refused(format!(
            "{rows} rows of {columns} values are more than {VALUES_MAX}; send fewer rows"
        )));
    }
    Ok(())
}

fn tensor(values: Vec<f32>, rows: usize, columns: usize) -> Result<Tensor, RunError> {
    let tensor = Tensor::of_values(values.into(), rows, columns);
    tensor.map_err(|error| RunError::Failed { cause: error.to_string() })
}

fn refused(cause: String) -> RunError {
    RunError::Input { cause }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datatype::Datatype;

    fn rows(columns: usize, values: &[f32]) -> Tensor {
        Tensor::of_values(values.to_vec().into(), values.len() / columns, columns).unwrap()
    }

    fn fused(how: &Fusion, tensors: &[Tensor]) -> Vec<f32> {
        let tensors: Vec<&Tensor> = tensors.iter().collect();
        fuse(how, &tensors).unwrap().to_f32().unwrap()
    }

    #[test]
    fn tensors_side_by_side_keep_their_rows() {
        let both = [rows(1, &[1.0, 2.0]), rows(2, &[3.0, 4.0, 5.0, 6.0])];
        assert_eq!(fused(&Fusion::Concatenate, &both), [1.0, 3.0, 4.0, 2.0, 5.0, 6.0]);
    }

    #[test]
    fn an_average_follows_its_weights() {
        let both = [rows(2, &[0.0, 1.0]), rows(2, &[1.0, 0.0])];
        assert_eq!(fused(&Fusion::Average(vec![1.0, 3.0]), &both), [0.75, 0.25]);
        assert_eq!(fused(&Fusion::Average(vec![1e308]), &[rows(1, &[10.0])]), [10.0]);
    }

    #[test]
    fn each_votes_for_its_largest_column_and_among_equals_for_the_first() {
        let three =
            [rows(3, &[0.4, 0.4, 0.2]), rows(3, &[0.1, 0.2, 0.7]), rows(3, &[0.0, 0.1, 0.9])];
        assert_eq!(fused(&Fusion::Vote(vec![2.0, 1.0, 1.0]), &three), [0.5, 0.0, 0.5]);
    }

    #[test]
    fn what_does_not_fit_together_is_refused_with_both_shapes() {
        let (two, three) = (rows(2, &[0.0; 4]), rows(2, &[0.0; 6]));
        let refused = fuse(&Fusion::Concatenate, &[&two, &three]).unwrap_err();
        assert_eq!(refused.to_string(), "shapes [2, 2] and [3, 2] can't be fused");
        let wide = rows(4, &[0.0; 8]);
        assert!(fuse(&Fusion::Average(vec![1.0; 2]), &[&two, &wide]).is_err());
        assert!(fuse(&Fusion::Concatenate, &[&two, &wide]).is_ok());
    }

    #[test]
    fn a_value_that_is_no_number_takes_no_part() {
        for (at, bad) in [(0, f32::NAN), (1, f32::INFINITY)] {
            let mut row = [1.0, 2.0];
            row[at] = bad;
            let refused = fuse(&Fusion::Vote(vec![1.0]), &[&rows(2, &row)]).unwrap_err();
            assert_eq!(refused.to_string(), format!("column {at} of row 0 is {bad}"));
        }
    }

    #[test]
    fn rows_without_columns_are_refused_however_many_they_are() {
        let empty = Tensor::new(Datatype::Fp32, vec![1_000_000_000_000_000, 0], Vec::new().into());
        let empty = empty.unwrap();
        for how in [Fusion::Concatenate, Fusion::Average(vec![1.0]), Fusion::Vote(vec![1.0])] {
            let refused = fuse(&how, &[&empty]).unwrap_err().to_string();
            assert_eq!(refused, "rows without columns can't be fused");
        }
    }

    #[test]
    fn a_few_bytes_of_texts_do_not_become_gigabytes() {
        let empty = Tensor::of_strings(vec![1 << 16], vec![&b""[..]; 1 << 16]).unwrap();
        let refused = hash_texts(&empty, 1 << 20).unwrap_err();
        assert!(refused.to_string().ends_with("send fewer rows"), "{refused}");
    }

    #[test]
    fn texts_become_rows_and_what_is_no_text_is_refused() {
        let texts = Tensor::of_strings(vec![2], [&b"red heart"[..], b"HEART red"]).unwrap();
        let hashed = hash_texts(&texts, 16).unwrap();
        assert_eq!((hashed.datatype(), hashed.shape()), (Datatype::Fp32, &[2, 16][..]));
        let values = hashed.to_f32().unwrap();
        assert_eq!(values[..16], values[16..]);
        let bytes = Tensor::of_strings(vec![1], [&[0xff, 0xfe][..]]).unwrap();
        assert!(hash_texts(&bytes, 16).unwrap_err().to_string().starts_with("text 0 is not UTF-8"));
    }
}
