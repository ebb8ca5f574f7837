//! `POST /v1/embeddings`.

use actix_web::{HttpRequest, HttpResponse, web};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use gradmesh_actors::datatype::Datatype;
use gradmesh_actors::tensor::{NamedTensor, Tensor};
use gradmesh_actors::version::{VersionDescription, VersionRef};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::error::{OpenAiError, OpenAiRefusals};
use crate::service::api_error::ApiError;
use crate::service::oip::{InferRequest, InferResponse, Inference, RequestedOutput, Turn};
use crate::service::rest::{Body, named, parse_object, read_body};
use crate::service::{ServiceState, oip};

/// Fields that are not listed are ignored.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct EmbeddingRequest {
    model: String,
    input: Input,
    #[serde(default)]
    encoding_format: EncodingFormat,
    /// The model's own, where it is given.
    dimensions: Option<usize>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(untagged)]
enum Input {
    Text(String),
    Texts(Vec<String>),
    /// Refused: a tokenizer belongs to its model, and only the model has it
    Tokens(Vec<u32>),
    TokenLists(Vec<Vec<u32>>),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum EncodingFormat {
    #[default]
    Float,
    Base64,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Embeddings {
    object: &'static str,
    data: Vec<Embedding>,
    model: String,
    usage: Usage,
}

#[derive(Debug, Serialize, ToSchema)]
struct Embedding {
    object: &'static str,
    index: usize,
    embedding: Vector,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
enum Vector {
    Float(Vec<f32>),
    /// Of `f32`, little-endian
    Base64(String),
}

#[derive(Debug, Serialize, ToSchema)]
struct Usage {
    prompt_tokens: i64,
    total_tokens: i64,
}

/// Names of an embedding model's input and outputs.
struct Ports {
    text: String,
    embedding: String,
    tokens: Option<String>,
    width: usize,
}

/// A vector for each text.
#[utoipa::path(post, path = "/v1/embeddings", tag = "openai", request_body = EmbeddingRequest,
    responses((status = 200, body = Embeddings), OpenAiRefusals))]
pub(crate) async fn embed(
    state: web::Data<ServiceState>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, OpenAiError> {
    let mut inference = Inference::begin(&state, named(&request));
    let answer = answer(&state, &mut inference, &request, payload).await;
    let status = answer.as_ref().map_or_else(|error| error.kind.status(), HttpResponse::status);
    inference.end(status);
    Ok(answer?)
}

async fn answer(
    state: &ServiceState,
    inference: &mut Inference<'_>,
    request: &HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, ApiError> {
    let caller = state.caller_of(request)?;
    // Its place stays as long as its texts wait for the model.
    let Body { bytes, places: _places } = read_body(state, request, payload).await?;
    let asked: EmbeddingRequest = parse_object(&bytes)?;
    drop(bytes);
    let texts = match asked.input {
        Input::Text(text) => vec![text],
        Input::Texts(texts) => texts,
        Input::Tokens(tokens) => return Err(no_texts(tokens.len())),
        Input::TokenLists(lists) => return Err(no_texts(lists.iter().map(Vec::len).sum())),
    };
    if texts.is_empty() {
        return Err(ApiError::bad("input has no text"));
    }
    let admitted = state.admit(&caller, &asked.model)?;
    let about = oip::describe(state, asked.model.clone(), VersionRef::Latest).await?;
    let ports = Ports::of(&about)?;
    if let Some(got) = asked.dimensions.filter(|&got| got != ports.width) {
        let (model, width) = (&about.model, ports.width);
        let text = format!("embeddings of {model} have {width} dimensions, not {got}");
        return Err(ApiError::bad(text));
    }
    let (format, model) = (asked.encoding_format, asked.model);
    let read = || {
        let tensor = Tensor::of_strings(vec![texts.len()], texts.iter().map(String::as_bytes))?;
        let inputs = vec![NamedTensor { name: ports.text.clone(), tensor }];
        let wanted = [Some(&ports.embedding), ports.tokens.as_ref()].into_iter().flatten();
        let outputs =
            wanted.map(|name| RequestedOutput { name: name.clone(), classification: None });
        let outputs = outputs.collect();
        Ok((InferRequest { id: None, inputs, outputs, turn: Turn::default() }, ()))
    };
    let write = |response: InferResponse, ()| Ok(Embeddings::of(&response, format));
    let embeddings = inference.answer(admitted, model, None, read, write).await?;
    Ok(HttpResponse::Ok().json(embeddings))
}

fn no_texts(tokens: usize) -> ApiError {
    ApiError::bad(format!("input has {tokens} numbers of tokens; send the texts"))
}

impl Ports {
    /// # Errors
    /// It is no embedding model.
    fn of(about: &VersionDescription) -> Result<Self, ApiError> {
        let none = || ApiError::bad(format!("{} embeds no texts", about.model));
        let signature = about.signature.as_ref().ok_or_else(none)?;
        let [text] = signature.inputs.as_slice() else { return Err(none()) };
        if text.datatype != Datatype::Bytes || text.shape != [None] {
            return Err(none());
        }
        let vectors = signature.outputs.iter().find_map(|port| match port.shape[..] {
            [None, Some(width)] if port.datatype == Datatype::Fp32 => Some((port, width)),
            _ => None,
        });
        let (embedding, width) = vectors.ok_or_else(none)?;
        let counts = |port: &&gradmesh_actors::tensor_model::Port| {
            port.datatype == Datatype::Int64 && port.shape == [None]
        };
        Ok(Self {
            text: text.name.clone(),
            embedding: embedding.name.clone(),
            tokens: signature.outputs.iter().find(counts).map(|port| port.name.clone()),
            width,
        })
    }
}

impl Embeddings {
    /// The first output has the vectors, the second one, if there is one, the numbers of tokens.
    fn of(response: &InferResponse, format: EncodingFormat) -> Self {
        let vectors = response.outputs.first().map(|output| output.tensor.f32s());
        let vectors = vectors.unwrap_or_default();
        let rows = response.outputs.first().and_then(|output| output.tensor.shape().first());
        let width = vectors.len() / rows.copied().unwrap_or(1).max(1);
        let embedding = |(index, vector): (usize, &[f32])| Embedding {
            object: "embedding",
            index,
            embedding: match format {
                EncodingFormat::Float => Vector::Float(vector.to_vec()),
                EncodingFormat::Base64 => {
                    let bytes: Vec<u8> =
                        vector.iter().flat_map(|value| value.to_le_bytes()).collect();
                    Vector::Base64(BASE64_STANDARD.encode(bytes))
                }
            },
        };
        let tokens = response.outputs.get(1).map_or(0, |output| {
            let counts = output.tensor.bytes().as_chunks().0.iter();
            counts.map(|&count| i64::from_le_bytes(count)).sum()
        });
        Self {
            object: "list",
            data: vectors.chunks(width.max(1)).enumerate().map(embedding).collect(),
            model: response.model.clone(),
            usage: Usage { prompt_tokens: tokens, total_tokens: tokens },
        }
    }
}
