//! A tensor as the Open Inference Protocol means it, and its numbers as a model takes them.

use std::borrow::Cow;

use bytes::Bytes;
use half::{bf16, f16};
use serde::{Deserialize, Serialize};

use crate::datatype::Datatype;
use crate::messages::Values;

/// Bytes before each element of a BYTES tensor: its length, little-endian.
const PREFIX: usize = size_of::<u32>();

/// Dimensions of a tensor: as many as NumPy had until its second version.
const RANK_MAX: usize = 32;

/// Values of one datatype in row-major order.
///
/// Invariant: `bytes` has what the protocol's binary form of `shape` and `datatype` says, to the
/// last byte: numbers little-endian without padding, BOOL as 0 or 1, BYTES each behind its length.
///
/// In a message its bytes are a body, and it is whole once [`Tensor::with_bytes`] has put them in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tensor {
    datatype: Datatype,
    shape: Vec<usize>,
    #[serde(skip)]
    bytes: Bytes,
}

/// A tensor that a model takes or answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedTensor {
    pub name: String,
    pub tensor: Tensor,
}

/// The bytes are not those of such a tensor, or not those of numbers.
#[derive(Clone, Debug, PartialEq, thiserror::Error, Serialize, Deserialize)]
pub enum TensorError {
    #[error("datatype {name:?} is none of {}", Datatype::ALL.map(Datatype::name).join(", "))]
    Datatype { name: String },
    #[error("a shape of {rank} dimensions; {RANK_MAX} are the most")]
    Rank { rank: usize },
    #[error("shape {shape:?} of {datatype} is larger than any memory")]
    Overflow { datatype: Datatype, shape: Vec<usize> },
    #[error("shape {shape:?} of {datatype} has {expected} bytes, got {got}")]
    Length { datatype: Datatype, shape: Vec<usize>, expected: usize, got: usize },
    #[error("shape {shape:?} can't have {got} values")]
    Count { shape: Vec<usize>, got: usize },
    #[error("element {index} of BYTES should have {expected} bytes, {left} are left")]
    Short { index: usize, expected: usize, left: usize },
    #[error("{left} bytes are left behind the {elements} elements of BYTES")]
    Long { elements: usize, left: usize },
    #[error("byte {index} is {value}, BOOL is 0 or 1")]
    NotBool { index: usize, value: u8 },
    #[error("value {index} is {value:e}, which is beyond the range of FP32")]
    Range { index: usize, value: f64 },
    #[error("datatype BYTES is not numeric; send FP32")]
    NotNumeric,
}

impl Tensor {
    /// # Errors
    /// `bytes` are not those of a tensor of this datatype and shape.
    pub fn new(datatype: Datatype, shape: Vec<usize>, bytes: Bytes) -> Result<Self, TensorError> {
        if shape.len() > RANK_MAX {
            return Err(TensorError::Rank { rank: shape.len() });
        }
        let overflow = || TensorError::Overflow { datatype, shape: shape.clone() };
        let elements = elements(&shape).ok_or_else(overflow)?;
        match datatype.size() {
            None => check_strings(&bytes, elements)?,
            Some(size) => {
                let expected = elements.checked_mul(size).ok_or_else(overflow)?;
                let got = bytes.len();
                if got != expected {
                    return Err(TensorError::Length { datatype, shape, expected, got });
                }
            }
        }
        if datatype == Datatype::Bool
            && let Some(index) = bytes.iter().position(|&byte| byte > 1)
        {
            return Err(TensorError::NotBool { index, value: bytes[index] });
        }
        Ok(Self { datatype, shape, bytes })
    }

    /// This datatype and shape with other bytes.
    ///
    /// # Errors
    /// They are not those of such a tensor.
    pub fn with_bytes(self, bytes: Bytes) -> Result<Self, TensorError> {
        Self::new(self.datatype, self.shape, bytes)
    }

    /// An FP32 tensor over values that stay where they are. Shape `[rows, width]`.
    ///
    /// # Errors
    /// `values` are not `rows` times `width`.
    pub fn of_values(values: Values, rows: usize, width: usize) -> Result<Self, TensorError> {
        struct Shared(Values);
        impl AsRef<[u8]> for Shared {
            fn as_ref(&self) -> &[u8] {
                bytemuck::cast_slice(&self.0)
            }
        }
        Self::new(Datatype::Fp32, vec![rows, width], Bytes::from_owner(Shared(values)))
    }

    /// A BYTES tensor of these strings, which are as many as `shape` says.
    pub fn of_strings<'a>(
        shape: Vec<usize>,
        strings: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<Self, TensorError> {
        let mut bytes = Vec::new();
        for string in strings {
            put_string(&mut bytes, string);
        }
        Self::new(Datatype::Bytes, shape, bytes.into())
    }

    pub fn datatype(&self) -> Datatype {
        self.datatype
    }

    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The protocol's binary form.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The elements of a BYTES tensor; none of another one.
    pub fn strings(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest: &[u8] = if self.datatype == Datatype::Bytes { &self.bytes } else { &[] };
        std::iter::from_fn(move || {
            let (string, behind) = split_string(rest).ok()?;
            rest = behind;
            Some(string)
        })
    }

    /// The values of an FP32 tensor; none of another one. Copied only where they don't lie as a `f32`
    /// has to.
    pub fn f32s(&self) -> Cow<'_, [f32]> {
        if self.datatype != Datatype::Fp32 {
            return Cow::Borrowed(&[]);
        }
        match bytemuck::try_cast_slice(&self.bytes) {
            Ok(values) if cfg!(target_endian = "little") => Cow::Borrowed(values),
            _ => Cow::Owned(read(&self.bytes, f32::from_le_bytes)),
        }
    }

    /// The numbers of whichever datatype, rounded to the nearest `f32`. Infinite and NaN stay what
    /// they are.
    ///
    /// # Errors
    /// A finite FP64 value is beyond the range of FP32, or the tensor holds no numbers.
    pub fn to_f32(&self) -> Result<Vec<f32>, TensorError> {
        let bytes = &*self.bytes;
        Ok(match self.datatype {
            Datatype::Bool | Datatype::Uint8 => read(bytes, |[byte]| f32::from(byte)),
            Datatype::Int8 => read(bytes, |byte| f32::from(i8::from_le_bytes(byte))),
            Datatype::Uint16 => read(bytes, |pair| f32::from(u16::from_le_bytes(pair))),
            Datatype::Int16 => read(bytes, |pair| f32::from(i16::from_le_bytes(pair))),
            Datatype::Uint32 => read(bytes, |word| u32::from_le_bytes(word) as f32),
            Datatype::Int32 => read(bytes, |word| i32::from_le_bytes(word) as f32),
            Datatype::Uint64 => read(bytes, |long| u64::from_le_bytes(long) as f32),
            Datatype::Int64 => read(bytes, |long| i64::from_le_bytes(long) as f32),
            Datatype::Fp16 => read(bytes, |pair| f16::from_le_bytes(pair).to_f32()),
            Datatype::Bf16 => read(bytes, |pair| bf16::from_le_bytes(pair).to_f32()),
            Datatype::Fp32 => read(bytes, f32::from_le_bytes),
            Datatype::Fp64 => {
                let narrow = |(index, &long): (usize, &[u8; 8])| {
                    let value = f64::from_le_bytes(long);
                    let narrowed = value as f32;
                    let lost = value.is_finite() && !narrowed.is_finite();
                    if lost { Err(TensorError::Range { index, value }) } else { Ok(narrowed) }
                };
                bytes.as_chunks().0.iter().enumerate().map(narrow).collect::<Result<_, _>>()?
            }
            Datatype::Bytes => return Err(TensorError::NotNumeric),
        })
    }
}

/// Elements of a shape; `None` beyond `usize`.
pub fn elements(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1usize, |product, &dim| product.checked_mul(dim))
}

/// Appends an element of a BYTES tensor.
pub fn put_string(bytes: &mut Vec<u8>, string: &[u8]) {
    // Longer than 4 GiB is no string of a body, whose limit is far below.
    let len = u32::try_from(string.len()).unwrap_or(u32::MAX);
    bytes.extend(len.to_le_bytes());
    bytes.extend(string);
}

fn read<const SIZE: usize>(bytes: &[u8], number: impl Fn([u8; SIZE]) -> f32) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|&chunk| number(chunk)).collect()
}

fn check_strings(bytes: &[u8], elements: usize) -> Result<(), TensorError> {
    let mut rest = bytes;
    for index in 0..elements {
        let short = |expected| TensorError::Short { index, expected, left: rest.len() };
        (_, rest) = split_string(rest).map_err(short)?;
    }
    if rest.is_empty() { Ok(()) } else { Err(TensorError::Long { elements, left: rest.len() }) }
}

/// The first element, and what is behind it; or how many bytes there should have been.
fn split_string(bytes: &[u8]) -> Result<(&[u8], &[u8]), usize> {
    let (len, rest) = bytes.split_first_chunk::<PREFIX>().ok_or(PREFIX)?;
    let len = usize::try_from(u32::from_le_bytes(*len)).unwrap_or(usize::MAX);
    rest.split_at_checked(len).ok_or(len.saturating_add(PREFIX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(datatype: Datatype, bytes: &'static [u8]) -> Vec<f32> {
        let len = bytes.len() / datatype.size().unwrap();
        Tensor::new(datatype, vec![len], Bytes::from_static(bytes)).unwrap().to_f32().unwrap()
    }

    #[test]
    fn each_datatype_is_read_little_endian() {
        use Datatype::*;
        assert_eq!(numbers(Bool, &[0, 1]), [0.0, 1.0]);
        assert_eq!(numbers(Uint8, &[0, 255]), [0.0, 255.0]);
        assert_eq!(numbers(Int8, &[0x80, 0xff]), [-128.0, -1.0]);
        assert_eq!(numbers(Uint16, &[0x01, 0x02, 0xff, 0xff]), [513.0, 65_535.0]);
        assert_eq!(numbers(Int16, &[0x01, 0x02, 0xfe, 0xff]), [513.0, -2.0]);
        assert_eq!(numbers(Uint32, &[0, 0, 0, 0x80]), [2_147_483_648.0]);
        assert_eq!(numbers(Int32, &[0, 0, 0, 0x80]), [-2_147_483_648.0]);
        assert_eq!(numbers(Uint64, &[0, 0, 0, 0, 0, 0, 0, 0x80]), [2f32.powi(63)]);
        assert_eq!(numbers(Int64, &[0xfd, 255, 255, 255, 255, 255, 255, 255]), [-3.0]);
        // 1.5 and the largest FP16; 1.5 and -2 as BF16.
        assert_eq!(numbers(Fp16, &[0x00, 0x3e, 0xff, 0x7b]), [1.5, 65_504.0]);
        assert_eq!(numbers(Bf16, &[0xc0, 0x3f, 0x00, 0xc0]), [1.5, -2.0]);
        assert_eq!(numbers(Fp32, &[0, 0, 0xc0, 0x3f]), [1.5]);
        assert_eq!(numbers(Fp64, &[0, 0, 0, 0, 0, 0, 0xf8, 0xbf]), [-1.5]);
    }

    #[test]
    fn values_that_lie_anywhere_in_memory_are_read() {
        let body = Bytes::from_static(&[9, 0, 0, 0xc0, 0x3f, 0, 0, 0, 0x40]);
        for at in [1, 5] {
            let bytes = body.slice(at..at + 4);
            assert!(Tensor::new(Datatype::Fp32, vec![1], bytes).unwrap().to_f32().is_ok());
        }
    }

    #[test]
    fn bytes_that_are_not_of_the_shape_are_refused() {
        for (datatype, shape, len) in [
            (Datatype::Fp32, vec![2, 2], 15),
            (Datatype::Fp32, vec![2, 2], 17),
            (Datatype::Fp32, vec![], 0),
            (Datatype::Fp32, vec![usize::MAX, 2], 8),
            (Datatype::Fp64, vec![usize::MAX / 4], 8),
            (Datatype::Bytes, vec![usize::MAX], 4),
            (Datatype::Bool, vec![0], 1),
        ] {
            let bytes = Bytes::from(vec![0; len]);
            let text = format!("{datatype} {shape:?} {len}");
            assert!(Tensor::new(datatype, shape, bytes).is_err(), "{text}");
        }
    }

    #[test]
    fn strings_stand_behind_their_lengths() {
        let bytes = b"\x02\0\0\0ab\0\0\0\0\x01\0\0\0\xff";
        let tensor = Tensor::new(Datatype::Bytes, vec![3], Bytes::from_static(bytes)).unwrap();
        assert_eq!(tensor.strings().collect::<Vec<_>>(), [&b"ab"[..], b"", b"\xff"]);
        assert_eq!(tensor.to_f32(), Err(TensorError::NotNumeric));
        let same = Tensor::of_strings(vec![3], tensor.strings()).unwrap();
        assert_eq!(same, tensor);
    }

    #[test]
    fn strings_that_are_cut_or_too_many_are_refused() {
        let refused = |elements, bytes| {
            Tensor::new(Datatype::Bytes, vec![elements], Bytes::from_static(bytes)).unwrap_err()
        };
        let short = |index, expected, left| TensorError::Short { index, expected, left };
        assert_eq!(refused(1, b"\x02\0\0"), short(0, 4, 3));
        assert_eq!(refused(1, b"\x02\0\0\0a"), short(0, 6, 5));
        assert_eq!(refused(2, b"\x01\0\0\0a"), short(1, 4, 0));
        assert_eq!(refused(0, b"a"), TensorError::Long { elements: 0, left: 1 });
        let huge = u32::MAX as usize + 4;
        assert_eq!(refused(1, b"\xff\xff\xff\xffa"), short(0, huge, 5));
    }

    #[test]
    fn what_no_f32_can_say_is_refused_and_what_is_not_finite_stays() {
        let of = |value: f64| {
            let bytes = Bytes::from(value.to_le_bytes().to_vec());
            Tensor::new(Datatype::Fp64, vec![1], bytes).unwrap().to_f32()
        };
        assert_eq!(of(1e39), Err(TensorError::Range { index: 0, value: 1e39 }));
        assert_eq!(of(f64::INFINITY), Ok(vec![f32::INFINITY]));
        let bytes = Bytes::from_static(&[0, 2]);
        let refused = Tensor::new(Datatype::Bool, vec![2], bytes).unwrap_err();
        assert_eq!(refused, TensorError::NotBool { index: 1, value: 2 });
    }

    #[test]
    fn values_of_a_prediction_are_not_copied() {
        let values = Values::new(vec![1.5, -2.0]);
        let tensor = Tensor::of_values(values.clone(), 1, 2).unwrap();
        assert_eq!(tensor.bytes().as_ptr(), values.as_ptr().cast());
        assert_eq!(**tensor.bytes(), [0, 0, 0xc0, 0x3f, 0, 0, 0, 0xc0]);
        assert!(Tensor::of_values(values, 2, 2).is_err());
    }
}
