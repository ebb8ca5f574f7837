//! The body of an inference request: JSON, raw tensors behind JSON, or one raw tensor.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::json_input::JsonInput;
use crate::service::api_error::ApiError;
use crate::service::oip::{InferRequest, NamedTensor, RequestedOutput, Tensor, TensorError, Turn};

/// How many bytes of the body are JSON; tensors follow. 0: the body is one tensor.
pub(super) const JSON_LENGTH: &str = "inference-header-content-length";

/// Fields that are not listed, and parameters that nobody here knows, are ignored: clients add some
/// of their own.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = InferRequest)]
pub(super) struct JsonRequest<'a> {
    id: Option<String>,
    #[serde(borrow, default)]
    parameters: Option<Parameters<'a>>,
    #[serde(borrow)]
    inputs: Vec<JsonInput<'a>>,
    #[serde(borrow, default)]
    outputs: Option<Vec<JsonOutput<'a>>>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = RequestedOutput)]
pub(super) struct JsonOutput<'a> {
    name: String,
    #[serde(borrow, default)]
    parameters: Option<Parameters<'a>>,
}

/// Those that mean something here, of a request, an input, or an output; others take no memory.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[schema(as = Parameters)]
pub(super) struct Parameters<'a> {
    #[serde(borrow, default)]
    #[schema(value_type = Option<bool>)]
    binary_data: Option<&'a RawValue>,
    #[serde(borrow, default)]
    #[schema(value_type = Option<bool>)]
    binary_data_output: Option<&'a RawValue>,
    #[serde(borrow, default)]
    #[schema(value_type = Option<u64>)]
    binary_data_size: Option<&'a RawValue>,
    #[serde(borrow, default)]
    #[schema(value_type = Option<u64>)]
    classification: Option<&'a RawValue>,
    #[serde(borrow, default)]
    #[schema(value_type = Option<u64>)]
    priority: Option<&'a RawValue>,
    #[serde(borrow, default)]
    #[schema(value_type = Option<String>)]
    routing_key: Option<&'a RawValue>,
    #[serde(borrow, default)]
    #[schema(value_type = Option<u64>)]
    timeout: Option<&'a RawValue>,
}

/// Which outputs are to be raw.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Form {
    /// All but those of `outputs`.
    all: bool,
    outputs: Vec<(String, bool)>,
}

impl Form {
    pub(super) fn is_raw(&self, output: &str) -> bool {
        let own = self.outputs.iter().find(|(name, _)| name == output);
        own.map_or(self.all, |(_, raw)| *raw)
    }
}

/// Reads a body whose first `json_length` bytes are JSON; all of it where that is `None`.
pub(super) fn read_request(
    body: &Bytes,
    json_length: Option<usize>,
) -> Result<(InferRequest, Form), ApiError> {
    if json_length == Some(0) {
        let form = Form { all: true, outputs: Vec::new() };
        return Ok((InferRequest::of_row(body.clone())?, form));
    }
    let length = json_length.unwrap_or(body.len());
    let Some((json, _)) = body.split_at_checked(length) else {
        let got = body.len();
        let text = format!("{JSON_LENGTH} says {length} bytes of JSON, the body has {got} in all");
        return Err(ApiError::bad(text));
    };
    // serde also reads structs from arrays, which no client means.
    if json.iter().find(|byte| !byte.is_ascii_whitespace()) != Some(&b'{') {
        return Err(ApiError::bad("the body is not a JSON object"));
    }
    let request: JsonRequest<'_> = serde_json::from_slice(json)
        .map_err(|cause| ApiError::bad(format!("the body is not an inference request: {cause}")))?;
    let mut raw = RawTensors { rest: body.slice(length..), expected: json_length.is_some() };
    let inputs = request.inputs.into_iter().map(|input| raw.read(input));
    let inputs = inputs.collect::<Result<Vec<_>, _>>()?;
    if !raw.rest.is_empty() {
        let left = raw.rest.len();
        let text = format!("{left} bytes of the body are behind the last input");
        return Err(ApiError::bad(text));
    }
    let parameters = request.parameters.unwrap_or_default();
    let all = switch("binary_data_output", parameters.binary_data_output)?.unwrap_or(false);
    let mut form = Form { all, outputs: Vec::new() };
    let mut outputs = Vec::new();
    for JsonOutput { name, parameters } in request.outputs.into_iter().flatten() {
        let own = parameters.unwrap_or_default();
        if let Some(raw) = switch("binary_data", own.binary_data)? {
            form.outputs.push((name.clone(), raw));
        }
        let classification = count("classification", own.classification)?;
        if classification == Some(0) {
            let text = format!("output {name:?}: classification is 0; ask for at least one");
            return Err(ApiError::bad(text));
        }
        outputs.push(RequestedOutput { name, classification });
    }
    let priority = whole("priority", parameters.priority)?;
    let timeout = whole("timeout", parameters.timeout)?;
    let routing_key = typed("routing_key", parameters.routing_key, "a text")?;
    let turn = Turn::new(priority, timeout, routing_key);
    Ok((InferRequest { id: request.id, inputs, outputs, turn }, form))
}

/// The tensors behind the JSON, in the order of the inputs that have no data of their own.
#[derive(Debug)]
struct RawTensors {
    rest: Bytes,
    /// Whether the request has said that there are any.
    expected: bool,
}

impl RawTensors {
    fn read(&mut self, input: JsonInput<'_>) -> Result<NamedTensor, ApiError> {
        let JsonInput { name, shape, datatype, parameters, data } = input;
        let refuse = |cause: String| ApiError::bad(format!("input {name:?}: {cause}"));
        let invalid = |error: TensorError| refuse(error.to_string());
        let datatype = datatype.map_err(invalid)?;
        let size = count("binary_data_size", parameters.unwrap_or_default().binary_data_size)?;
        let tensor = match (data, size) {
            (Some(data), None) => data.into_tensor(datatype, shape).map_err(refuse)?,
            (None, Some(size)) if self.expected => {
                let left = self.rest.len();
                if size > left {
                    let text =
                        format!("binary_data_size is {size}, the body has {left} bytes left");
                    return Err(refuse(text));
                }
                let bytes = self.rest.split_to(size);
                Tensor::new(datatype, shape, bytes).map_err(invalid)?
            }
            (None, Some(_)) => {
                return Err(refuse(format!(
                    "it has binary_data_size, the request no {JSON_LENGTH}"
                )));
            }
            (Some(_), Some(_)) => {
                return Err(refuse("it has both data and binary_data_size".to_owned()));
            }
            (None, None) => return Err(refuse("it has no data".to_owned())),
        };
        Ok(NamedTensor { name, tensor })
    }
}

fn switch(name: &str, value: Option<&RawValue>) -> Result<Option<bool>, ApiError> {
    typed(name, value, "true or false")
}

fn count(name: &str, value: Option<&RawValue>) -> Result<Option<usize>, ApiError> {
    Ok(whole(name, value)?.map(|number| usize::try_from(number).unwrap_or(usize::MAX)))
}

fn whole(name: &str, value: Option<&RawValue>) -> Result<Option<u64>, ApiError> {
    typed(name, value, "a whole number")
}

fn typed<'a, T: Deserialize<'a>>(
    name: &str,
    value: Option<&'a RawValue>,
    expected: &str,
) -> Result<Option<T>, ApiError> {
    let Some(value) = value else { return Ok(None) };
    let wrong = |_| ApiError::bad(format!("parameter {name:?} is {value}, not {expected}"));
    serde_json::from_str(value.get()).map(Some).map_err(wrong)
}
