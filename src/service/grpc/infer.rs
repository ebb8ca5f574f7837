//! An inference request from its message, and the answer as one.

use std::mem::take;

use bytes::Bytes;
use prost::Message;

use super::inference::infer_parameter::ParameterChoice;
use super::inference::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
use super::inference::model_infer_response::InferOutputTensor;
use super::inference::{
    InferParameter, InferTensorContents, ModelInferRequest, ModelInferResponse,
};
use crate::service::api_error::ApiError;
use crate::service::callers::Caller;
use crate::service::oip::{
    Datatype, InferRequest, InferResponse, Inference, NamedTensor, RequestedOutput, Tensor,
    TensorError, Turn, put_string,
};
use crate::service::{PLACE, ServiceState};

type Parameters = std::collections::BTreeMap<String, InferParameter>;

/// `charged`: whether the message has its places already. `request_id`: what the call is called.
pub(super) async fn infer(
    state: &ServiceState,
    caller: &Caller,
    request: ModelInferRequest,
    charged: bool,
    request_id: String,
) -> Result<ModelInferResponse, ApiError> {
    let mut inference = Inference::begin(state, request_id);
    let answer = answer(state, caller, &mut inference, request, charged).await;
    let status = answer.as_ref().map_or_else(|error| error.kind.status(), |_| Default::default());
    inference.end(status);
    answer
}

async fn answer(
    state: &ServiceState,
    caller: &Caller,
    inference: &mut Inference<'_>,
    request: ModelInferRequest,
    charged: bool,
) -> Result<ModelInferResponse, ApiError> {
    let bytes = if charged { 0 } else { request.encoded_len() };
    let places = u32::try_from(bytes.div_ceil(PLACE)).unwrap_or(u32::MAX);
    let Ok(_places) = state.places.try_acquire_many(places) else {
        return Err(state.bodies_full());
    };
    let named = &request.model_version;
    let version = if named.is_empty() { None } else { Some(super::convert::version(named)?) };
    let model = request.model_name.clone();
    let admitted = state.admit(caller, &model)?;
    let read = || Ok((read_request(request)?, ()));
    inference.answer(admitted, model, version, read, |response, ()| write_response(response)).await
}

fn read_request(request: ModelInferRequest) -> Result<InferRequest, ApiError> {
    let ModelInferRequest { id, inputs, outputs, raw_input_contents, parameters, .. } = request;
    let (priority, timeout) = (whole(&parameters, "priority")?, whole(&parameters, "timeout")?);
    let turn = Turn::new(priority, timeout, text(&parameters, "routing_key")?);
    let (named, raw) = (inputs.len(), raw_input_contents.len());
    let tensors = if raw == 0 {
        inputs.into_iter().map(|input| read_input(input, None)).collect::<Result<_, _>>()?
    } else if raw == named {
        let both = inputs.into_iter().zip(raw_input_contents);
        both.map(|(input, raw)| read_input(input, Some(raw))).collect::<Result<_, _>>()?
    } else {
        let text = format!("there are {named} inputs, and {raw} raw_input_contents");
        return Err(ApiError::bad(text));
    };
    let outputs = outputs.into_iter().map(read_output).collect::<Result<_, _>>()?;
    Ok(InferRequest { id: Some(id).filter(|id| !id.is_empty()), inputs: tensors, outputs, turn })
}

fn read_input(input: InferInputTensor, raw: Option<Bytes>) -> Result<NamedTensor, ApiError> {
    let InferInputTensor { name, datatype, shape, contents, .. } = input;
    let refuse = |cause: String| ApiError::bad(format!("input {name:?}: {cause}"));
    let invalid = |cause: TensorError| refuse(cause.to_string());
    let datatype: Datatype = datatype.parse().map_err(invalid)?;
    let dims = shape.iter().map(|&dim| usize::try_from(dim)).collect::<Result<Vec<_>, _>>();
    let Ok(dims) = dims else {
        return Err(refuse(format!("shape {shape:?} has a negative length")));
    };
    let bytes = match (raw, contents) {
        (Some(bytes), None) => bytes,
        (None, contents) => typed(datatype, contents.unwrap_or_default()).map_err(refuse)?,
        (Some(_), Some(_)) => {
            return Err(refuse("it has contents, and the request raw_input_contents".to_owned()));
        }
    };
    let tensor = Tensor::new(datatype, dims, bytes).map_err(invalid)?;
    Ok(NamedTensor { name, tensor })
}

/// The binary form of the elements that stand in the field of `datatype`.
fn typed(datatype: Datatype, mut contents: InferTensorContents) -> Result<Bytes, String> {
    let all = &mut contents;
    let bytes = match datatype {
        Datatype::Bool => le(take(&mut all.bool_contents), |value| [u8::from(value)]),
        Datatype::Int8 => narrow(take(&mut all.int_contents), datatype, i8::to_le_bytes)?,
        Datatype::Int16 => narrow(take(&mut all.int_contents), datatype, i16::to_le_bytes)?,
        Datatype::Int32 => le(take(&mut all.int_contents), i32::to_le_bytes),
        Datatype::Int64 => le(take(&mut all.int64_contents), i64::to_le_bytes),
        Datatype::Uint8 => narrow(take(&mut all.uint_contents), datatype, u8::to_le_bytes)?,
        Datatype::Uint16 => narrow(take(&mut all.uint_contents), datatype, u16::to_le_bytes)?,
        Datatype::Uint32 => le(take(&mut all.uint_contents), u32::to_le_bytes),
        Datatype::Uint64 => le(take(&mut all.uint64_contents), u64::to_le_bytes),
        Datatype::Fp32 => le(take(&mut all.fp32_contents), f32::to_le_bytes),
        Datatype::Fp64 => le(take(&mut all.fp64_contents), f64::to_le_bytes),
        Datatype::Bytes => {
            let mut bytes = Vec::new();
            for string in take(&mut all.bytes_contents) {
                put_string(&mut bytes, &string);
            }
            bytes
        }
        Datatype::Fp16 | Datatype::Bf16 => {
            return Err(format!("{datatype} has no typed contents; send raw_input_contents"));
        }
    };
    if contents == InferTensorContents::default() {
        return Ok(bytes.into());
    }
    Err(format!("its contents have elements in a field that is not the one of {datatype}"))
}

fn le<T, const SIZE: usize>(values: Vec<T>, bytes: fn(T) -> [u8; SIZE]) -> Vec<u8> {
    values.into_iter().flat_map(bytes).collect()
}

fn narrow<W: Copy + std::fmt::Display, N: TryFrom<W>, const SIZE: usize>(
    values: Vec<W>,
    datatype: Datatype,
    bytes: fn(N) -> [u8; SIZE],
) -> Result<Vec<u8>, String> {
    let mut narrowed = Vec::with_capacity(values.len() * SIZE);
    for (index, value) in values.into_iter().enumerate() {
        let held = N::try_from(value)
            .map_err(|_| format!("value {index} is {value}, which {datatype} can't hold"))?;
        narrowed.extend(bytes(held));
    }
    Ok(narrowed)
}

fn read_output(output: InferRequestedOutputTensor) -> Result<RequestedOutput, ApiError> {
    let InferRequestedOutputTensor { name, parameters } = output;
    let classification = match whole(&parameters, "classification")? {
        Some(0) => {
            let text = format!("output {name:?}: classification is 0; ask for at least one");
            return Err(ApiError::bad(text));
        }
        largest => largest.map(|largest| usize::try_from(largest).unwrap_or(usize::MAX)),
    };
    Ok(RequestedOutput { name, classification })
}

fn text(parameters: &Parameters, name: &str) -> Result<Option<String>, ApiError> {
    let Some(parameter) = parameters.get(name) else { return Ok(None) };
    match &parameter.parameter_choice {
        Some(ParameterChoice::StringParam(text)) => Ok(Some(text.clone())),
        _ => Err(ApiError::bad(format!("parameter {name:?} is not a text"))),
    }
}

fn whole(parameters: &Parameters, name: &str) -> Result<Option<u64>, ApiError> {
    let Some(parameter) = parameters.get(name) else { return Ok(None) };
    let number = match parameter.parameter_choice {
        Some(ParameterChoice::Int64Param(number)) => u64::try_from(number).ok(),
        Some(ParameterChoice::Uint64Param(number)) => Some(number),
        _ => None,
    };
    let wrong = || ApiError::bad(format!("parameter {name:?} is not a whole number"));
    number.map(Some).ok_or_else(wrong)
}

fn write_response(response: InferResponse) -> Result<ModelInferResponse, ApiError> {
    let InferResponse { model, version, id, digest, outputs } = response;
    let raw_output_contents = outputs.iter().map(|output| output.tensor.bytes().clone()).collect();
    let digest = InferParameter { parameter_choice: Some(ParameterChoice::StringParam(digest)) };
    Ok(ModelInferResponse {
        model_name: model,
        model_version: version.to_string(),
        id: id.unwrap_or_default(),
        parameters: [("digest".to_owned(), digest)].into(),
        outputs: outputs.into_iter().map(write_output).collect(),
        raw_output_contents,
    })
}

/// What an output is; its elements are raw, beside it.
fn write_output(output: NamedTensor) -> InferOutputTensor {
    let NamedTensor { name, tensor } = output;
    let shape = tensor.shape().iter().map(|&dim| i64::try_from(dim).unwrap_or(i64::MAX)).collect();
    let datatype = tensor.datatype().name().to_owned();
    InferOutputTensor { name, datatype, shape, ..InferOutputTensor::default() }
}
