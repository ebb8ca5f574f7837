//! Tensor files: named `f32` tensors and text about them, as a safetensors file.
//!
//! The file is written here and read by the `safetensors` crate. The crate's own writer takes its
//! metadata from a hash map, whose order would give the same tensors other bytes, and another
//! digest, each time.

use std::collections::{BTreeMap, BTreeSet};

use gradmesh_actors::messages::Values;
use safetensors::{Dtype, SafeTensors};
use serde_json::json;

/// The key of the header that holds text instead of a tensor.
const METADATA: &str = "__metadata__";

/// Tensor data begins at a multiple of this many bytes, as the format asks.
const ALIGN: usize = 8;

/// One tensor of a file, row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct NamedTensor {
    pub name: String,
    pub shape: Vec<usize>,
    pub values: Values,
}

/// The content of a tensor file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TensorFile {
    /// In the order in which their data lies in the file.
    pub tensors: Vec<NamedTensor>,
    pub metadata: BTreeMap<String, String>,
}

/// The tensors can't be written, or the bytes are no tensor file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TensorFileError {
    #[error("tensor {name:?} of shape {shape:?} has {got} values")]
    Length { name: String, shape: Vec<usize>, got: usize },
    #[error("two tensors are named {name:?}, or the name is reserved")]
    Name { name: String },
    #[error("tensor {name:?} holds {dtype}, only F32 is read")]
    Dtype { name: String, dtype: String },
    #[error("not a safetensors file: {cause}")]
    Format { cause: String },
}

/// Writes a tensor file. The same content gives the same bytes.
///
/// # Errors
/// A length that is not the product of its shape, or a name that stands twice.
pub fn write_safetensors(file: &TensorFile) -> Result<Vec<u8>, TensorFileError> {
    let mut header = BTreeMap::new();
    let mut names = BTreeSet::from([METADATA]);
    let mut end = 0;
    for NamedTensor { name, shape, values } in &file.tensors {
        if !names.insert(name) {
            return Err(TensorFileError::Name { name: name.clone() });
        }
        let len = shape.iter().try_fold(1usize, |product, &dim| product.checked_mul(dim));
        if len != Some(values.len()) {
            let (name, shape, got) = (name.clone(), shape.clone(), values.len());
            return Err(TensorFileError::Length { name, shape, got });
        }
        let start = end;
        end += size_of_val(values.as_slice());
        let offsets = [start, end];
        let about = json!({ "dtype": "F32", "shape": shape, "data_offsets": offsets });
        header.insert(name.as_str(), about);
    }
    if !file.metadata.is_empty() {
        header.insert(METADATA, json!(file.metadata));
    }
    let mut header = serde_json::to_vec(&header)
        .map_err(|cause| TensorFileError::Format { cause: cause.to_string() })?;
    header.resize(header.len().next_multiple_of(ALIGN), b' ');

    let mut bytes = Vec::with_capacity(ALIGN + header.len() + end);
    bytes.extend((header.len() as u64).to_le_bytes());
    bytes.extend(&header);
    for tensor in &file.tensors {
        let start = bytes.len();
        bytes.resize(start + size_of_val(tensor.values.as_slice()), 0);
        let places = bytes[start..].as_chunks_mut::<4>().0;
        for (place, value) in places.iter_mut().zip(tensor.values.iter()) {
            *place = value.to_le_bytes();
        }
    }
    Ok(bytes)
}

/// Reads a tensor file.
///
/// # Errors
/// Bytes that are not one, or a tensor that is not `F32`.
pub fn read_safetensors(bytes: &[u8]) -> Result<TensorFile, TensorFileError> {
    let format =
        |cause: safetensors::SafeTensorError| TensorFileError::Format { cause: cause.to_string() };
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(format)?;
    let data = SafeTensors::deserialize(bytes).map_err(format)?;
    let mut tensors = Vec::new();
    for name in header.offset_keys() {
        let tensor = data.tensor(&name).map_err(format)?;
        if tensor.dtype() != Dtype::F32 {
            return Err(TensorFileError::Dtype { name, dtype: tensor.dtype().to_string() });
        }
        let values = tensor.data().as_chunks::<4>().0;
        let values: Vec<f32> = values.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        tensors.push(NamedTensor { name, shape: tensor.shape().to_vec(), values: values.into() });
    }
    let metadata = header.metadata().iter().flatten();
    let metadata = metadata.map(|(key, text)| (key.clone(), text.clone())).collect();
    Ok(TensorFile { tensors, metadata })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(name: &str, shape: &[usize], values: &[f32]) -> NamedTensor {
        NamedTensor { name: name.into(), shape: shape.to_vec(), values: values.to_vec().into() }
    }

    fn file() -> TensorFile {
        TensorFile {
            tensors: vec![
                tensor("z", &[2, 2], &[1.0, -0.0, f32::MIN_POSITIVE, 4.5]),
                tensor("a.weight", &[1], &[7.0]),
                tensor("none", &[0, 3], &[]),
                tensor("scalar", &[], &[f32::NAN]),
            ],
            metadata: (0..9).map(|i| (format!("key{i}"), format!("\"{i}\" é"))).collect(),
        }
    }

    fn bits(file: &TensorFile) -> Vec<(&str, &[usize], Vec<u32>)> {
        let bits = |tensor: &NamedTensor| tensor.values.iter().map(|v| v.to_bits()).collect();
        file.tensors.iter().map(|t| (t.name.as_str(), t.shape.as_slice(), bits(t))).collect()
    }

    #[test]
    fn what_was_written_is_read_back_bit_by_bit_and_in_order() {
        let bytes = write_safetensors(&file()).unwrap();
        let read = read_safetensors(&bytes).unwrap();
        assert_eq!(bits(&read), bits(&file()));
        assert_eq!(read.metadata, file().metadata);
    }

    #[test]
    fn the_same_content_gives_the_same_bytes() {
        assert_eq!(write_safetensors(&file()), write_safetensors(&file()));
    }

    #[test]
    fn a_file_cut_off_anywhere_is_refused() {
        let bytes = write_safetensors(&file()).unwrap();
        for len in 0..bytes.len() {
            assert!(read_safetensors(&bytes[..len]).is_err(), "{len} bytes were read");
        }
    }

    #[test]
    fn tensors_that_are_no_file_are_refused() {
        let with = |tensors| TensorFile { tensors, ..TensorFile::default() };
        let short = with(vec![tensor("w", &[2], &[1.0])]);
        assert!(matches!(write_safetensors(&short), Err(TensorFileError::Length { got: 1, .. })));
        let twice = with(vec![tensor("w", &[1], &[1.0]); 2]);
        assert!(matches!(write_safetensors(&twice), Err(TensorFileError::Name { .. })));
        let reserved = with(vec![tensor(METADATA, &[1], &[1.0])]);
        assert!(matches!(write_safetensors(&reserved), Err(TensorFileError::Name { .. })));
    }

    #[test]
    fn a_tensor_that_is_not_f32_is_refused_by_name() {
        let header = br#"{"w":{"dtype":"F16","shape":[1],"data_offsets":[0,2]}}"#;
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header);
        bytes.extend([0, 0]);
        let refused = read_safetensors(&bytes).unwrap_err();
        assert_eq!(refused.to_string(), "tensor \"w\" holds F16, only F32 is read");
    }
}
