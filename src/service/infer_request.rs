//! The JSON of an inference request of the Open Inference Protocol, and what is read from it.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::api_error::ApiError;
use super::tensor_data::TensorData;

/// The one input that a gradmesh model has.
pub(super) const INPUT: &str = "input";

/// Fields that are not listed, and parameters, are ignored: clients add some of their own.
#[derive(Debug, Deserialize)]
struct InferRequest {
    id: Option<String>,
    #[expect(dead_code, reason = "read to be checked: an object or absent")]
    parameters: Option<Map<String, Value>>,
    inputs: Vec<InputTensor>,
    outputs: Option<Vec<RequestedOutput>>,
}

#[derive(Debug, Deserialize)]
struct InputTensor {
    name: String,
    shape: Vec<u64>,
    datatype: String,
    #[expect(dead_code, reason = "read to be checked: an object or absent")]
    parameters: Option<Map<String, Value>>,
    data: Option<TensorData>,
}

#[derive(Debug, Deserialize)]
struct RequestedOutput {
    name: String,
    #[expect(dead_code, reason = "read to be checked: an object or absent")]
    parameters: Option<Map<String, Value>>,
}

/// A request whose form is right.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Question {
    /// Echoed.
    pub(super) id: Option<String>,
    pub(super) rows: usize,
    pub(super) features: usize,
    /// Shape `[rows, features]`.
    pub(super) inputs: Vec<f32>,
    /// Names of the outputs to answer with, each once; all where there are none.
    pub(super) outputs: Vec<String>,
}

/// Reads the body of a request.
pub(super) fn read_request(body: &[u8]) -> Result<Question, ApiError> {
    // serde also reads structs from arrays, which no client means.
    if body.iter().find(|byte| !byte.is_ascii_whitespace()) != Some(&b'{') {
        return Err(ApiError::bad("the body is not a JSON object"));
    }
    let request: InferRequest = serde_json::from_slice(body)
        .map_err(|cause| ApiError::bad(format!("the body is not an inference request: {cause}")))?;
    let [input] = request.inputs.as_slice() else {
        let got = request.inputs.len();
        return Err(ApiError::bad(format!("expected one input, named {INPUT:?}, got {got}")));
    };
    if input.name != INPUT {
        return Err(ApiError::bad(format!("no input {:?}; send {INPUT:?}", input.name)));
    }
    let refuse = |cause: String| ApiError::bad(format!("input {INPUT:?}: {cause}"));
    let Some(data) = &input.data else {
        return Err(refuse("it has no data".to_owned()));
    };
    let shape = input.shape.iter().map(|&dim| usize::try_from(dim)).collect::<Result<Vec<_>, _>>();
    let Ok([rows, features]) = shape.as_deref() else {
        return Err(refuse(format!("shape {:?} is not [rows, features]", input.shape)));
    };
    let inputs = data.to_f32(&input.datatype, &input.shape).map_err(refuse)?;
    let mut outputs = Vec::new();
    for RequestedOutput { name, .. } in request.outputs.into_iter().flatten() {
        if outputs.contains(&name) {
            return Err(ApiError::bad(format!("output {name:?} is requested twice")));
        }
        outputs.push(name);
    }
    Ok(Question { id: request.id, rows: *rows, features: *features, inputs, outputs })
}
