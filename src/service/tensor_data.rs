//! The `data` of a JSON tensor: numbers, flat or nested, of whichever datatype the client has.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, SeqAccess, Visitor};

/// The values of a JSON tensor, in row-major order.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct TensorData {
    values: Vec<f64>,
    /// Lengths of the nested arrays, outermost first. One entry where they are flat.
    nesting: Vec<Option<usize>>,
    /// How many arrays each value stands in.
    depth: Option<usize>,
    bools: bool,
}

impl TensorData {
    /// The values as the model takes them, if they are what shape and datatype say.
    pub(super) fn to_f32(&self, datatype: &str, shape: &[u64]) -> Result<Vec<f32>, String> {
        self.check_shape(shape)?;
        self.check_datatype(datatype)?;
        let narrow = |(index, &value): (usize, &f64)| {
            let narrowed = value as f32;
            if narrowed.is_finite() {
                return Ok(narrowed);
            }
            Err(format!("value {index} is {value:e}, which is beyond the range of FP32"))
        };
        self.values.iter().enumerate().map(narrow).collect()
    }

    fn check_shape(&self, shape: &[u64]) -> Result<(), String> {
        let len = shape.iter().try_fold(1u64, |product, &dim| product.checked_mul(dim));
        if len != u64::try_from(self.values.len()).ok() {
            return Err(format!("shape {shape:?} can't have {} values", self.values.len()));
        }
        let nested = self.nesting.iter().map(|len| len.unwrap_or(0) as u64);
        if self.nesting.len() > 1 && !nested.clone().eq(shape.iter().copied()) {
            let nested: Vec<u64> = nested.collect();
            return Err(format!("data is nested as {nested:?}, shape says {shape:?}"));
        }
        Ok(())
    }

    fn check_datatype(&self, datatype: &str) -> Result<(), String> {
        let whole = |low: f64, high: f64| {
            let good = |value: &f64| value.fract() == 0.0 && (low..=high).contains(value);
            match self.values.iter().position(|value| !good(value)) {
                None => Ok(()),
                Some(at) => {
                    Err(format!("value {at} is {}, which {datatype} can't hold", self.values[at]))
                }
            }
        };
        if self.bools && datatype != "BOOL" {
            return Err(format!("data holds true or false, which {datatype} can't"));
        }
        match datatype {
            "FP32" | "FP64" => Ok(()),
            "BOOL" => whole(0.0, 1.0),
            "INT8" => whole(i8::MIN.into(), i8::MAX.into()),
            "INT16" => whole(i16::MIN.into(), i16::MAX.into()),
            "INT32" => whole(i32::MIN.into(), i32::MAX.into()),
            // The border is rounded to 2^63, 2^64: nothing is lost that an `f32` could tell.
            "INT64" => whole(i64::MIN as f64, i64::MAX as f64),
            "UINT8" => whole(0.0, u8::MAX.into()),
            "UINT16" => whole(0.0, u16::MAX.into()),
            "UINT32" => whole(0.0, u32::MAX.into()),
            "UINT64" => whole(0.0, u64::MAX as f64),
            "FP16" | "BF16" => Err(format!("{datatype} has no JSON form; send FP32")),
            _ => Err(format!("datatype {datatype:?} is not numeric; send FP32")),
        }
    }
}

impl<'de> serde::Deserialize<'de> for TensorData {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut data = Self::default();
        Level { data: &mut data, depth: 0 }.deserialize(deserializer)?;
        if data.depth == Some(0) {
            return Err(D::Error::custom("data is not an array"));
        }
        Ok(data)
    }
}

/// Reads what stands in `depth` arrays: a value, or one more array.
struct Level<'a> {
    data: &'a mut TensorData,
    depth: usize,
}

impl Level<'_> {
    fn value<E: Error>(self, value: f64) -> Result<(), E> {
        // A value beside an array, or deeper or less deep than another value.
        let depth = *self.data.depth.get_or_insert(self.depth);
        if depth != self.depth || self.data.nesting.len() != depth {
            return Err(E::custom("data is ragged"));
        }
        self.data.values.push(value);
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Level<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Level<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("numbers, flat or in nested arrays")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        self.data.bools = true;
        self.value(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        self.value(value as f64)
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        self.value(value as f64)
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        self.value(value)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let Level { data, depth } = self;
        if data.depth.is_some_and(|values| values <= depth) {
            return Err(A::Error::custom("data is ragged"));
        }
        if data.nesting.len() == depth {
            data.nesting.push(None);
        }
        let mut len = 0;
        while seq.next_element_seed(Level { data, depth: depth + 1 })?.is_some() {
            len += 1;
        }
        match data.nesting[depth].replace(len) {
            Some(other) if other != len => Err(A::Error::custom("data is ragged")),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str, datatype: &str, shape: &[u64]) -> Result<Vec<f32>, String> {
        let data: TensorData = serde_json::from_str(json).map_err(|error| error.to_string())?;
        data.to_f32(datatype, shape)
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
            ("[1, 2]", &[u64::MAX, 2]),
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
            ("[1e39]", "FP64"),
            ("[1]", "FP16"),
            ("[1]", "BYTES"),
            ("[1]", "fp32"),
        ] {
            assert!(read(json, datatype, &[1]).is_err(), "{json} as {datatype}");
        }
        assert_eq!(read("[true, 0]", "BOOL", &[2]), Ok(vec![1.0, 0.0]));
        assert_eq!(read("[-128, 127]", "INT8", &[2]), Ok(vec![-128.0, 127.0]));
        assert_eq!(read("[18446744073709551615]", "UINT64", &[1]), Ok(vec![2f32.powi(64)]));
    }
}
