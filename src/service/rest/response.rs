//! The body of an inference response: JSON, and raw tensors behind it. What is absent is left out,
//! never null.

use std::fmt::Display;

use serde::{Serialize, Serializer};
use utoipa::ToSchema;

use super::request::Form;
use crate::service::api_error::{ApiError, ErrorKind};
use crate::service::oip::{Datatype, InferResponse, NamedTensor, Tensor};

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = InferResponse)]
pub(super) struct JsonResponse<'a> {
    model_name: &'a str,
    model_version: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    parameters: Parameters<'a>,
    outputs: Vec<JsonOutput<'a>>,
}

/// Says which state of the model answered.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ResponseParameters)]
pub(super) struct Parameters<'a> {
    digest: &'a str,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OutputTensor)]
pub(super) struct JsonOutput<'a> {
    name: &'a str,
    #[schema(value_type = String, example = "FP32")]
    datatype: Datatype,
    shape: &'a [usize],
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<OutputParameters>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<Object>>)]
    data: Option<Data<'a>>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct OutputParameters {
    binary_data_size: usize,
}

/// A response as it is sent.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) body: Vec<u8>,
    /// Bytes of JSON, where raw tensors are behind them.
    pub(super) json_length: Option<usize>,
}

/// Room for names, shapes and the digest of a small response, so that it is written without moves.
const NAMES: usize = 512;
/// Characters for a byte of a tensor: an FP32 value has 4 bytes, and about 12 characters.
const DIGITS: usize = 3;

pub(super) fn write_response(response: &InferResponse, form: &Form) -> Result<Written, ApiError> {
    let outputs = response.outputs.iter();
    let raw: Vec<_> = outputs.filter(|output| form.is_raw(&output.name)).collect();
    let json = JsonResponse {
        model_name: &response.model,
        model_version: response.version.to_string(),
        id: response.id.as_deref(),
        parameters: Parameters { digest: &response.digest },
        outputs: response.outputs.iter().map(|output| json_output(output, form)).collect(),
    };
    let bytes = response.outputs.iter().map(|output| output.tensor.bytes().len());
    let expected = bytes.sum::<usize>().saturating_mul(if raw.is_empty() { DIGITS } else { 1 });
    let mut body = Vec::with_capacity(expected.saturating_add(NAMES));
    serde_json::to_writer(&mut body, &json)
        .map_err(|error| ApiError::new(ErrorKind::Internal, error.to_string()))?;
    if raw.is_empty() {
        return Ok(Written { body, json_length: None });
    }
    let json_length = Some(body.len());
    for output in raw {
        body.extend_from_slice(output.tensor.bytes());
    }
    Ok(Written { body, json_length })
}

fn json_output<'a>(output: &'a NamedTensor, form: &Form) -> JsonOutput<'a> {
    let NamedTensor { name, tensor } = output;
    let raw = form.is_raw(name);
    JsonOutput {
        name,
        datatype: tensor.datatype(),
        shape: tensor.shape(),
        parameters: raw.then(|| OutputParameters { binary_data_size: tensor.bytes().len() }),
        data: (!raw).then_some(Data(tensor)),
    }
}

/// The elements of a tensor, flat.
#[derive(Debug)]
struct Data<'a>(&'a Tensor);

impl Serialize for Data<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self.0.datatype() {
            Datatype::Fp32 => numbers(to, self.0, f32::from_le_bytes),
            Datatype::Int64 => numbers(to, self.0, i64::from_le_bytes),
            Datatype::Bytes => to.collect_seq(self.0.strings().map(String::from_utf8_lossy)),
            other => Err(serde::ser::Error::custom(no_output(other))),
        }
    }
}

/// Models answer in FP32, INT64 for classes and BYTES for their text.
fn no_output(datatype: Datatype) -> impl Display {
    format!("no output of this server is {datatype}")
}

fn numbers<const SIZE: usize, S: Serializer, N: Serialize>(
    to: S,
    tensor: &Tensor,
    number: impl Fn([u8; SIZE]) -> N,
) -> Result<S::Ok, S::Error> {
    to.collect_seq(tensor.bytes().as_chunks().0.iter().map(|&chunk| number(chunk)))
}
