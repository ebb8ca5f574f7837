//! An input of an inference request. Its data is read as what its datatype says, in one pass over
//! the body where the datatype comes first, as tritonclient and kserve's client write it.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Error, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::json_data::{Data, DataOf, read_data};
use super::request::Parameters;
use crate::service::oip::{Datatype, Tensor, TensorError};

#[derive(Debug, ToSchema)]
#[schema(as = InputTensor)]
pub(super) struct JsonInput<'a> {
    pub(super) name: String,
    #[schema(example = json!([1, 64]))]
    pub(super) shape: Vec<usize>,
    #[schema(value_type = String, example = "FP32")]
    pub(super) datatype: Result<Datatype, TensorError>,
    pub(super) parameters: Option<Parameters<'a>>,
    /// Flat or nested, row-major. Numbers, `true` and `false`, or texts, as the datatype says.
    #[schema(value_type = Option<Vec<f32>>)]
    pub(super) data: Option<JsonData<'a>>,
}

/// Data, and whether its datatype was known when it came.
#[derive(Debug)]
pub(super) enum JsonData<'a> {
    Read(Data),
    Raw(&'a RawValue),
}

impl JsonData<'_> {
    /// The tensor, if its values are what shape and datatype say.
    pub(super) fn into_tensor(
        self,
        datatype: Datatype,
        shape: Vec<usize>,
    ) -> Result<Tensor, String> {
        match self {
            Self::Read(data) => data.into_tensor(shape),
            Self::Raw(data) => read_data(data, datatype, shape),
        }
    }
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "lowercase")]
enum Field {
    Name,
    Shape,
    Datatype,
    Parameters,
    Data,
    #[serde(other)]
    Other,
}

/// A text that is not copied where it has no escapes.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for JsonInput<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Fields)
    }
}

struct Fields;

impl<'de> Visitor<'de> for Fields {
    type Value = JsonInput<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an input tensor")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (mut name, mut shape, mut datatype) = (None, None, None);
        let (mut parameters, mut data) = (None, None);
        while let Some(field) = map.next_key()? {
            match field {
                Field::Name => set(&mut name, "name", map.next_value()?)?,
                Field::Shape => set(&mut shape, "shape", map.next_value()?)?,
                Field::Datatype => {
                    let Text(text) = map.next_value()?;
                    set(&mut datatype, "datatype", text.parse::<Datatype>())?;
                }
                Field::Parameters => set(&mut parameters, "parameters", map.next_value()?)?,
                Field::Data => {
                    let value = match datatype {
                        Some(Ok(datatype)) => {
                            map.next_value_seed(DataOf(datatype))?.map(JsonData::Read)
                        }
                        _ => map.next_value::<Option<&RawValue>>()?.map(JsonData::Raw),
                    };
                    set(&mut data, "data", value)?;
                }
                Field::Other => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(JsonInput {
            name: name.ok_or_else(|| A::Error::missing_field("name"))?,
            shape: shape.ok_or_else(|| A::Error::missing_field("shape"))?,
            datatype: datatype.ok_or_else(|| A::Error::missing_field("datatype"))?,
            parameters: parameters.flatten(),
            data: data.flatten(),
        })
    }
}

/// # Errors
/// The field is there twice.
fn set<T, E: Error>(field: &mut Option<T>, name: &'static str, value: T) -> Result<(), E> {
    match field.replace(value) {
        None => Ok(()),
        Some(_) => Err(E::duplicate_field(name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(json: &str) -> Result<Option<Tensor>, String> {
        let input: JsonInput<'_> = serde_json::from_str(json).map_err(|error| error.to_string())?;
        let JsonInput { shape, datatype, data, .. } = input;
        let datatype = datatype.map_err(|error| error.to_string())?;
        data.map(|data| data.into_tensor(datatype, shape)).transpose()
    }

    #[test]
    fn data_before_its_datatype_is_the_same_tensor_and_has_the_same_faults() {
        for (datatype, data) in [
            ("FP32", "[[1, 2.5], [3, -4e2]]"),
            ("BYTES", r#"["a", "b\n", "", "é"]"#),
            ("INT64", "[1, 2, 3, 9223372036854775807]"),
            ("BOOL", "[true, 0, 1, false]"),
            ("FP32", "null"),
            ("FP32", "[[1, 2], [3]]"),
            ("FP32", "[1, 2, 3]"),
            ("FP32", "[1, [2], 3, 4]"),
            ("FP32", "[[1, 2], [3, null]]"),
            ("FP32", r#"[1, {"a": [2]}, 3, 4]"#),
            ("FP32", "7"),
            ("INT8", "[1, 2, 3, 400]"),
            ("BYTES", r#"["a", 1, "b", "c"]"#),
            ("FP16", "[1, 2, 3, 4]"),
            ("FP99", "[1, 2, 3, 4]"),
        ] {
            let head = r#""name": "x", "shape": [2, 2]"#;
            let after = format!(r#"{{{head}, "datatype": "{datatype}", "data": {data}}}"#);
            let before = format!(r#"{{{head}, "data": {data}, "datatype": "{datatype}"}}"#);
            let (after, before) = (tensor(&after), tensor(&before));
            assert_eq!(format!("{after:?}"), format!("{before:?}"), "{datatype} {data}");
        }
    }

    #[test]
    fn a_field_that_is_missing_or_there_twice_is_named() {
        let whole = r#""name": "x", "shape": [1], "datatype": "FP32", "data": [1]"#;
        assert!(tensor(&format!("{{{whole}}}")).unwrap().is_some());
        for field in ["name", "shape", "datatype"] {
            let other = whole.replace(&format!("{field:?}"), "\"other\"");
            let refused = tensor(&format!("{{{other}}}")).unwrap_err();
            assert!(refused.starts_with(&format!("missing field `{field}`")), "{refused}");
        }
        for twice in [r#""name": "y""#, r#""data": [2]"#, r#""parameters": {}, "parameters": {}"#] {
            let refused = tensor(&format!("{{{whole}, {twice}}}")).unwrap_err();
            assert!(refused.starts_with("duplicate field"), "{refused}");
        }
    }
}
