//! Text embeddings by models of the BERT family (Devlin et al. 2018, arXiv:1810.04805), pooled as
//! sentence-transformers pools them (Reimers and Gurevych 2019, arXiv:1908.10084): kind `bert`.
//!
//! A text is one run of its own, so that its embedding has the same bits whatever texts come with it,
//! and no padding is computed.

mod folder;
mod network;

use std::sync::Arc;

use bytes::Bytes;
use gradmesh_actors::datatype::Datatype;
use gradmesh_actors::model::ModelKinds;
use gradmesh_actors::tensor::Tensor;
use gradmesh_actors::tensor_model::{Port, RunError, Signature, TensorModel};
use serde::{Deserialize, Serialize};
use tokenizers::Tokenizer;

use crate::store::{TensorFileError, read_safetensors};
pub use folder::{FolderError, pack};
use network::Network;

/// The kind, and the ending of such a model's file.
pub const KIND: &str = "bert";
/// Where a model's file has what is no tensor.
const ABOUT: &str = "bert";

/// The input: texts, UTF-8.
pub const TEXT: &str = "text";
/// The embeddings, of length 1 where the model says so.
pub const EMBEDDING: &str = "embedding";
/// How many tokens each text has.
pub const TOKENS: &str = "tokens";

/// Texts of a request, as OpenAI's API has it.
const TEXTS_MAX: usize = 2048;

/// What a folder says of its model beside the tensors.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct About {
    config: Config,
    /// The file `tokenizer.json`.
    tokenizer: String,
    pooling: Pooling,
    /// Whether embeddings have length 1.
    normalized: bool,
    /// Tokens of a text, its first and last mark included.
    tokens_max: usize,
}

/// What counts of `config.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Config {
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    max_position_embeddings: usize,
    layer_norm_eps: f64,
    hidden_act: String,
    #[serde(default)]
    position_embedding_type: Option<String>,
}

/// How the vectors of a text's tokens become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Pooling {
    Mean,
    /// That of the first token.
    First,
}

/// A model that turns texts into vectors.
#[derive(Debug)]
pub struct BertModel {
    signature: Signature,
    tokenizer: Tokenizer,
    network: Network,
    pooling: Pooling,
    normalized: bool,
    tokens_max: usize,
}

/// A file can't be served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BertError {
    #[error(transparent)]
    File(#[from] TensorFileError),
    #[error("the file does not say what its tensors are for: {cause}")]
    About { cause: String },
    #[error("the tokenizer can't be read: {cause}")]
    Tokenizer { cause: String },
    #[error("tensor {name:?} is missing")]
    Missing { name: String },
    #[error("a model with {what} {value} is not one that this build computes")]
    Unsupported { what: &'static str, value: String },
    #[error("a tensor has a shape that the configuration does not say: {cause}")]
    Shape { cause: String },
}

/// Lets a node serve such models.
pub fn register(kinds: &mut ModelKinds) {
    kinds.register_imported(KIND, |_, file| {
        let model = BertModel::read(file).map_err(|error| error.to_string())?;
        Ok(Arc::new(model))
    });
}

impl BertModel {
    /// Reads what [`pack`] has written.
    ///
    /// # Errors
    /// The bytes are no such file, or the model is of a sort that is not computed here.
    pub fn read(file: &Bytes) -> Result<Self, BertError> {
        let file = read_safetensors(file)?;
        let about = file.metadata.get(ABOUT).map(|text| serde_json::from_str::<About>(text));
        let about = match about {
            Some(Ok(about)) => about,
            Some(Err(error)) => return Err(BertError::About { cause: error.to_string() }),
            None => return Err(BertError::About { cause: format!("no metadata {ABOUT:?}") }),
        };
        let About { config, tokenizer, pooling, normalized, tokens_max } = about;
        let unread = |error: tokenizers::Error| BertError::Tokenizer { cause: error.to_string() };
        let mut tokenizer: Tokenizer = tokenizer.parse().map_err(unread)?;
        // Each text is alone, and one that is too long is refused rather than cut.
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None).map_err(unread)?;
        let network = Network::new(&config, file.tensors)?;
        let port = |name: &str, datatype, shape| Port { name: name.to_owned(), datatype, shape };
        let signature = Signature {
            inputs: vec![port(TEXT, Datatype::Bytes, vec![None])],
            outputs: vec![
                port(EMBEDDING, Datatype::Fp32, vec![None, Some(config.hidden_size)]),
                port(TOKENS, Datatype::Int64, vec![None]),
            ],
        };
        let tokens_max = tokens_max.min(config.max_position_embeddings);
        Ok(Self { signature, tokenizer, network, pooling, normalized, tokens_max })
    }

    /// Numbers of a text's tokens.
    fn tokens(&self, index: usize, text: &[u8]) -> Result<Vec<u32>, RunError> {
        let refuse = |cause: String| RunError::Input { cause: format!("text {index}: {cause}") };
        let text = std::str::from_utf8(text).map_err(|error| refuse(error.to_string()))?;
        let encoded = self.tokenizer.encode(text, true);
        let encoded = encoded.map_err(|error| refuse(error.to_string()))?;
        let (tokens, max) = (encoded.get_ids().to_vec(), self.tokens_max);
        if tokens.is_empty() || tokens.len() > max {
            let got = tokens.len();
            return Err(refuse(format!(
                "it has {got} tokens, it can have 1 to {max}; send a part"
            )));
        }
        Ok(tokens)
    }

    fn embed(&self, tokens: &[u32]) -> Result<Vec<f32>, RunError> {
        let failed = |error: candle_core::Error| RunError::Failed { cause: error.to_string() };
        let vectors = self.network.forward(tokens).map_err(failed)?;
        let width = vectors.len() / tokens.len();
        let mut pooled = match self.pooling {
            Pooling::First => vectors[..width].to_vec(),
            Pooling::Mean => {
                let mut sum = vec![0.0; width];
                for vector in vectors.chunks_exact(width) {
                    std::iter::zip(&mut sum, vector).for_each(|(sum, value)| *sum += value);
                }
                sum.iter_mut().for_each(|sum| *sum /= tokens.len() as f32);
                sum
            }
        };
        if self.normalized {
            let length = pooled.iter().map(|value| value * value).sum::<f32>().sqrt();
            // A vector of zeros has no direction, and stays.
            let length = length.max(f32::MIN_POSITIVE);
            pooled.iter_mut().for_each(|value| *value /= length);
        }
        Ok(pooled)
    }
}

impl TensorModel for BertModel {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn run(&self, inputs: Vec<Tensor>) -> Result<Vec<Tensor>, RunError> {
        let count = inputs.first().map_or(0, |texts| texts.strings().count());
        if count > TEXTS_MAX {
            let cause = format!("{count} texts are more than {TEXTS_MAX}; send several requests");
            return Err(RunError::Input { cause });
        }
        let texts = inputs.iter().flat_map(Tensor::strings).enumerate();
        // All are looked at before the first one is computed.
        let tokens: Vec<Vec<u32>> =
            texts.map(|(index, text)| self.tokens(index, text)).collect::<Result<_, _>>()?;
        let mut values = Vec::new();
        for tokens in &tokens {
            values.extend(self.embed(tokens)?);
        }
        let counts = tokens.iter().flat_map(|tokens| (tokens.len() as i64).to_le_bytes());
        let counts: Vec<u8> = counts.collect();
        let failed = |error: gradmesh_actors::tensor::TensorError| RunError::Failed {
            cause: error.to_string(),
        };
        let width = self.network.width();
        Ok(vec![
            Tensor::of_values(values.into(), count, width).map_err(failed)?,
            Tensor::new(Datatype::Int64, vec![count], counts.into()).map_err(failed)?,
        ])
    }
}
