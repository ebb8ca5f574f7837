//! The `data` of a JSON tensor: flat or nested, in the datatype that the tensor says it has.

use std::fmt;

use serde::de::{
    DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Unexpected, Visitor,
};
use serde_json::value::RawValue;

use super::super::oip::{Datatype, Tensor, TensorError, put_string};

/// The tensor that `data` holds, if its values are what shape and datatype say.
pub(super) fn read_data(
    data: &RawValue,
    datatype: Datatype,
    shape: Vec<usize>,
) -> Result<Tensor, String> {
    let mut read = Data::new(datatype);
    let level = Level { data: &mut read, depth: 0 };
    let mut deserializer = serde_json::Deserializer::from_str(data.get());
    level.deserialize(&mut deserializer).map_err(|error| sentence(&error))?;
    read.into_tensor(shape)
}

/// Without the place of the error, which is one in the data alone.
fn sentence(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    text.strip_suffix(&place).map(str::to_owned).unwrap_or(text)
}

/// What was read so far. What is wrong with it is said once all is read: the request around it is
/// understood whatever its numbers are.
#[derive(Debug)]
pub(super) struct Data {
    datatype: Datatype,
    /// The values in the binary form of `datatype`.
    bytes: Vec<u8>,
    /// How many values that is.
    len: usize,
    /// Lengths of the nested arrays, outermost first. One entry where they are flat.
    nesting: Vec<Option<usize>>,
    /// How many arrays each value stands in.
    depth: Option<usize>,
    /// The first of its faults. No value behind it is kept.
    fault: Option<String>,
}

impl Data {
    fn new(datatype: Datatype) -> Self {
        let fault = matches!(datatype, Datatype::Fp16 | Datatype::Bf16)
            .then(|| format!("{datatype} has no JSON form; send FP32, or {datatype} as binary"));
        Self { datatype, bytes: Vec::new(), len: 0, nesting: Vec::new(), depth: None, fault }
    }

    /// The tensor, if its values are what shape and datatype say.
    pub(super) fn into_tensor(self, shape: Vec<usize>) -> Result<Tensor, String> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        if self.depth == Some(0) {
            return Err("data is not an array".to_owned());
        }
        let len = shape.iter().try_fold(1usize, |product, &dim| product.checked_mul(dim));
        if len != Some(self.len) {
            return Err(TensorError::Count { shape, got: self.len }.to_string());
        }
        let nested = || self.nesting.iter().map(|len| len.unwrap_or(0));
        if self.nesting.len() > 1 && !nested().eq(shape.iter().copied()) {
            let nested: Vec<usize> = nested().collect();
            return Err(format!("data is nested as {nested:?}, shape says {shape:?}"));
        }
        Tensor::new(self.datatype, shape, self.bytes.into()).map_err(|error| error.to_string())
    }

    /// A whole number; every `u64` and `i64` is one.
    fn whole(&mut self, value: i128) -> Result<(), String> {
        match self.datatype {
            Datatype::Bool if matches!(value, 0 | 1) => self.bytes.push(u8::from(value == 1)),
            Datatype::Uint8 => self.put(u8::try_from(value).map(u8::to_le_bytes), value)?,
            Datatype::Uint16 => self.put(u16::try_from(value).map(u16::to_le_bytes), value)?,
            Datatype::Uint32 => self.put(u32::try_from(value).map(u32::to_le_bytes), value)?,
            Datatype::Uint64 => self.put(u64::try_from(value).map(u64::to_le_bytes), value)?,
            Datatype::Int8 => self.put(i8::try_from(value).map(i8::to_le_bytes), value)?,
            Datatype::Int16 => self.put(i16::try_from(value).map(i16::to_le_bytes), value)?,
            Datatype::Int32 => self.put(i32::try_from(value).map(i32::to_le_bytes), value)?,
            Datatype::Int64 => self.put(i64::try_from(value).map(i64::to_le_bytes), value)?,
            Datatype::Fp32 => self.bytes.extend_from_slice(&(value as f32).to_le_bytes()),
            Datatype::Fp64 => self.bytes.extend_from_slice(&(value as f64).to_le_bytes()),
            _ => return Err(self.refused(value)),
        }
        Ok(())
    }

    fn real(&mut self, value: f64) -> Result<(), String> {
        match self.datatype {
            Datatype::Fp64 => self.bytes.extend_from_slice(&value.to_le_bytes()),
            Datatype::Fp32 if (value as f32).is_finite() => {
                self.bytes.extend_from_slice(&(value as f32).to_le_bytes());
            }
            Datatype::Fp32 => {
                return Err(TensorError::Range { index: self.len, value }.to_string());
            }
            // Some clients write whole numbers with a point. `as` keeps those below 2^127.
            _ if value.fract() == 0.0 => return self.whole(value as i128),
            _ => return Err(self.refused(value)),
        }
        Ok(())
    }

    fn put<const SIZE: usize, E>(
        &mut self,
        held: Result<[u8; SIZE], E>,
        value: i128,
    ) -> Result<(), String> {
        self.bytes.extend_from_slice(&held.map_err(|_| self.refused(value))?);
        Ok(())
    }

    fn refused(&self, value: impl fmt::Display) -> String {
        format!("value {} is {value}, which {} can't hold", self.len, self.datatype)
    }
}

/// Reads data where its datatype is known before it comes; none where that is null.
#[derive(Debug)]
pub(super) struct DataOf(pub(super) Datatype);

impl<'de> DeserializeSeed<'de> for DataOf {
    type Value = Option<Data>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<Data>, D::Error> {
        deserializer.deserialize_option(self)
    }
}

impl<'de> Visitor<'de> for DataOf {
    type Value = Option<Data>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_none<E: Error>(self) -> Result<Option<Data>, E> {
        Ok(None)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<Data>, D::Error> {
        let mut data = Data::new(self.0);
        Level { data: &mut data, depth: 0 }.deserialize(deserializer)?;
        Ok(Some(data))
    }
}

/// Reads what stands in `depth` arrays: a value, or one more array.
struct Level<'a> {
    data: &'a mut Data,
    depth: usize,
}

impl Level<'_> {
    /// Takes a value by `put`.
    fn value(self, put: impl FnOnce(&mut Data) -> Result<(), String>) {
        let Level { data, depth } = self;
        if data.fault.is_some() {
            return;
        }
        // A value beside an array, or deeper or less deep than another value.
        if *data.depth.get_or_insert(depth) != depth || data.nesting.len() != depth {
            data.fault = Some(RAGGED.to_owned());
        } else if let Err(fault) = put(data) {
            data.fault = Some(fault);
        } else {
            data.len += 1;
        }
    }

    fn is_text(&self) -> bool {
        self.data.datatype == Datatype::Bytes
    }

    /// Something that the datatype has no values of.
    fn refuse(self, unexpected: Unexpected<'_>) {
        if self.data.fault.is_none() {
            let error = serde_json::Error::invalid_type(unexpected, &self);
            self.data.fault = Some(error.to_string());
        }
    }
}

const RAGGED: &str = "data is ragged";

impl<'de> DeserializeSeed<'de> for Level<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Level<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let values = if self.is_text() { "strings" } else { "numbers" };
        write!(f, "{values}, flat or in nested arrays")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        if self.is_text() {
            self.refuse(Unexpected::Bool(value));
        } else {
            self.value(|data| match data.datatype {
                Datatype::Bool => data.whole(value.into()),
                other => Err(format!("data holds true or false, which {other} can't")),
            });
        }
        Ok(())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        if self.is_text() {
            self.refuse(Unexpected::Unsigned(value));
        } else {
            self.value(|data| match (data.datatype, i64::try_from(value)) {
                // Pixels and counts: the conversion of wider numbers takes as long as reading them.
                (Datatype::Fp32, Ok(value)) => {
                    data.bytes.extend_from_slice(&(value as f32).to_le_bytes());
                    Ok(())
                }
                _ => data.whole(value.into()),
            });
        }
        Ok(())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        if self.is_text() {
            self.refuse(Unexpected::Signed(value));
        } else {
            self.value(|data| data.whole(value.into()));
        }
        Ok(())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        if self.is_text() {
            self.refuse(Unexpected::Float(value));
        } else {
            self.value(|data| data.real(value));
        }
        Ok(())
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<(), E> {
        if self.is_text() {
            self.value(|data| {
                put_string(&mut data.bytes, value.as_bytes());
                Ok(())
            });
        } else {
            self.refuse(Unexpected::Str(value));
        }
        Ok(())
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.refuse(Unexpected::Unit);
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        self.refuse(Unexpected::Map);
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let Level { data, depth } = self;
        let mut ragged = data.depth.is_some_and(|values| values <= depth);
        if data.nesting.len() == depth {
            data.nesting.push(None);
        }
        let mut len = 0;
        while seq.next_element_seed(Level { data, depth: depth + 1 })?.is_some() {
            len += 1;
        }
        ragged |= data.nesting[depth].replace(len).is_some_and(|other| other != len);
        if ragged && data.fault.is_none() {
            data.fault = Some(RAGGED.to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(json: &str, datatype: &str, shape: &[usize]) -> Result<Tensor, String> {
        let data: &RawValue = serde_json::from_str(json).map_err(|error| error.to_string())?;
        let datatype = datatype.parse().map_err(|error: TensorError| error.to_string())?;
        read_data(data, datatype, shape.to_vec())
    }

    fn read(json: &str, datatype: &str, shape: &[usize]) -> Result<Vec<f32>, String> {
        tensor(json, datatype, shape)?.to_f32().map_err(|error| error.to_string())
    }

    #[test]
    fn flat_and_nested_data_are_the_same_values() {
        let values = Ok(vec![1.0, 2.0, 3.0, 4.5]);
        assert_eq!(read("[1, 2, 3, 4.5]", "FP32", &[2, 2]), values);
        assert_eq!(read("[[1, 2], [3, 4.5]]", "FP32", &[2, 2]), values);
        assert_eq!(read("[[[1, 2], [3, 4.5]]]", "FP64", &[1, 2, 2]), values);
        assert_eq!(read("[]", "FP32", &[0, 2]), Ok(vec![]));
    }

    #[test]
    fn data_that_is_not_of_the_shape_is_refused() {
        for (json, shape) in [
            ("[1, 2, 3]", &[2, 2][..]),
            ("[[1, 2], [3, 4]]", &[4, 1]),
            ("[[1], [2]]", &[2]),
            ("[1, 2]", &[usize::MAX, 2]),
            ("[1, 2]", &[1 << 63, 2]),
        ] {
            assert!(read(json, "FP32", shape).is_err(), "{json} as {shape:?}");
        }
    }

    #[test]
    fn ragged_data_is_refused() {
        for json in ["[[1, 2], [3]]", "[1, [2]]", "[[1], 2]", "[1, []]", "[[], 1]", "[[1], [[2]]]"]
        {
            let refused = read(json, "FP32", &[2, 1]).unwrap_err();
            assert!(refused.starts_with("data is ragged"), "{json}: {refused}");
        }
    }

    #[test]
    fn what_is_no_array_of_numbers_is_refused() {
        for json in ["5", "true", "null", "{}", "\"1\"", "[\"1\"]", "[null]", "[{}]", "[1e999]"] {
            assert!(read(json, "FP32", &[1]).is_err(), "{json}");
        }
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(read(&deep, "FP32", &[1]).is_err());
    }

    #[test]
    fn a_value_that_its_datatype_can_not_hold_is_refused() {
        for (json, datatype) in [
            ("[0.5]", "INT32"),
            ("[128]", "INT8"),
            ("[-1]", "UINT8"),
            ("[2]", "BOOL"),
            ("[true]", "FP32"),
            ("[1e39]", "FP32"),
            ("[1e39]", "FP64"),
            ("[18446744073709551616]", "UINT64"),
            ("[1e300]", "INT64"),
            ("[1]", "FP16"),
            ("[1]", "BYTES"),
            ("[1]", "fp32"),
        ] {
            assert!(read(json, datatype, &[1]).is_err(), "{json} as {datatype}");
        }
        assert_eq!(read("[true, 0]", "BOOL", &[2]), Ok(vec![1.0, 0.0]));
        assert_eq!(read("[-128, 127]", "INT8", &[2]), Ok(vec![-128.0, 127.0]));
        assert_eq!(read("[3.0, -1e2]", "INT16", &[2]), Ok(vec![3.0, -100.0]));
    }

    #[test]
    fn the_largest_whole_numbers_are_kept_to_the_last_digit() {
        let largest = tensor("[18446744073709551615]", "UINT64", &[1]).unwrap();
        assert_eq!(**largest.bytes(), u64::MAX.to_le_bytes());
        let smallest = tensor("[-9223372036854775808]", "INT64", &[1]).unwrap();
        assert_eq!(**smallest.bytes(), i64::MIN.to_le_bytes());
    }

    #[test]
    fn strings_are_text_and_nothing_else_is() {
        let text = tensor(r#"[["a\n", "é"]]"#, "BYTES", &[1, 2]).unwrap();
        assert_eq!(text.strings().collect::<Vec<_>>(), [&b"a\n"[..], "é".as_bytes()]);
        for json in ["[1]", "[true]", "[-1]", "[0.5]", "[null]"] {
            let refused = tensor(json, "BYTES", &[1]).unwrap_err();
            assert!(refused.contains("expected strings"), "{json}: {refused}");
        }
    }
}
