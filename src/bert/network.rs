//! The encoder: embeddings, and layers of attention and two dense products.

use std::collections::BTreeMap;

use candle_core::{D, Device, Module, Result, Tensor};
use candle_nn::{Embedding, LayerNorm, Linear};

use super::{BertError, Config};
use crate::store::NamedTensor;

/// Layers: the largest models of the family have 24 with 1,024 values.
const LAYERS_MAX: usize = 64;

#[derive(Debug)]
pub(super) struct Network {
    words: Embedding,
    /// Added to each word: where it stands, and the kind of its text, of which there is one.
    positions: Tensor,
    kind: Tensor,
    norm: LayerNorm,
    layers: Vec<Layer>,
    width: usize,
}

#[derive(Debug)]
struct Layer {
    query: Linear,
    key: Linear,
    value: Linear,
    attended: Linear,
    attended_norm: LayerNorm,
    wide: Linear,
    narrow: Linear,
    norm: LayerNorm,
    heads: usize,
}

/// Tensors by name, with the prefix that some files have before all of them.
struct Tensors {
    named: BTreeMap<String, NamedTensor>,
    prefix: &'static str,
    eps: f64,
}

impl Network {
    pub(super) fn new(
        config: &Config,
        tensors: Vec<NamedTensor>,
    ) -> std::result::Result<Self, BertError> {
        check(config)?;
        let named: BTreeMap<_, _> =
            tensors.into_iter().map(|tensor| (tensor.name.clone(), tensor)).collect();
        let words = "embeddings.word_embeddings.weight";
        let prefix = if named.contains_key(words) { "" } else { "bert." };
        let tensors = Tensors { named, prefix, eps: config.layer_norm_eps };
        let width = config.hidden_size;
        let layers = (0..config.num_hidden_layers).map(|index| Layer::new(index, config, &tensors));
        let kinds = tensors.get("embeddings.token_type_embeddings.weight", &[0, width])?;
        let kind = kinds.get(0).map_err(shape)?;
        Ok(Self {
            words: Embedding::new(tensors.get(words, &[0, width])?, width),
            positions: tensors.get(
                "embeddings.position_embeddings.weight",
                &[config.max_position_embeddings, width],
            )?,
            kind,
            norm: tensors.norm("embeddings.LayerNorm", width)?,
            layers: layers.collect::<std::result::Result<_, _>>()?,
            width,
        })
    }

    /// Values of a vector.
    pub(super) fn width(&self) -> usize {
        self.width
    }

    /// A vector for each token, one after the other.
    pub(super) fn forward(&self, tokens: &[u32]) -> Result<Vec<f32>> {
        let tokens = Tensor::from_slice(tokens, tokens.len(), &Device::Cpu)?;
        let positions = self.positions.narrow(0, 0, tokens.dims1()?)?;
        let sum = self.words.forward(&tokens)?.broadcast_add(&self.kind)?.add(&positions)?;
        let mut hidden = self.norm.forward(&sum)?;
        for layer in &self.layers {
            hidden = layer.forward(&hidden)?;
        }
        hidden.flatten_all()?.to_vec1()
    }
}

/// What is computed here and what is not.
fn check(config: &Config) -> std::result::Result<(), BertError> {
    let unsupported =
        |what, value: &dyn ToString| Err(BertError::Unsupported { what, value: value.to_string() });
    let Config { hidden_size, num_attention_heads: heads, num_hidden_layers: layers, .. } = config;
    if config.hidden_act != "gelu" {
        return unsupported("hidden_act", &config.hidden_act);
    }
    match config.position_embedding_type.as_deref() {
        None | Some("absolute") => {}
        Some(other) => return unsupported("position_embedding_type", &other),
    }
    if *layers > LAYERS_MAX {
        return unsupported("num_hidden_layers", layers);
    }
    if *heads == 0 || *hidden_size == 0 || hidden_size % heads != 0 {
        return unsupported("num_attention_heads", heads);
    }
    Ok(())
}

fn shape(error: candle_core::Error) -> BertError {
    BertError::Shape { cause: error.to_string() }
}

impl Tensors {
    /// A tensor of this shape, in which 0 stands for any length.
    fn get(&self, name: &str, dims: &[usize]) -> std::result::Result<Tensor, BertError> {
        let name = format!("{}{name}", self.prefix);
        let found = self.named.get(&name);
        let NamedTensor { shape: got, values, .. } =
            found.ok_or_else(|| BertError::Missing { name: name.clone() })?;
        let fits = got.len() == dims.len()
            && std::iter::zip(got, dims).all(|(got, dim)| *dim == 0 || got == dim);
        if !fits {
            let cause = format!("{name} has {got:?}, expected {dims:?} with 0 for any");
            return Err(BertError::Shape { cause });
        }
        Tensor::from_slice(values, got.as_slice(), &Device::Cpu).map_err(shape)
    }

    fn dense(&self, name: &str, from: usize, to: usize) -> std::result::Result<Linear, BertError> {
        let weight = self.get(&format!("{name}.weight"), &[to, from])?;
        let bias = self.get(&format!("{name}.bias"), &[to])?;
        Ok(Linear::new(weight, Some(bias)))
    }

    fn norm(&self, name: &str, width: usize) -> std::result::Result<LayerNorm, BertError> {
        let weight = self.get(&format!("{name}.weight"), &[width])?;
        let bias = self.get(&format!("{name}.bias"), &[width])?;
        Ok(LayerNorm::new(weight, bias, self.eps))
    }
}

impl Layer {
    fn new(
        index: usize,
        config: &Config,
        tensors: &Tensors,
    ) -> std::result::Result<Self, BertError> {
        let width = config.hidden_size;
        let at = |name: &str| format!("encoder.layer.{index}.{name}");
        let dense = |name: &str, from, to| tensors.dense(&at(name), from, to);
        let norm = |name: &str| tensors.norm(&at(name), width);
        let wide = dense("intermediate.dense", width, 0)?;
        let inner = wide.weight().dim(0).map_err(shape)?;
        Ok(Self {
            query: dense("attention.self.query", width, width)?,
            key: dense("attention.self.key", width, width)?,
            value: dense("attention.self.value", width, width)?,
            attended: dense("attention.output.dense", width, width)?,
            attended_norm: norm("attention.output.LayerNorm")?,
            narrow: dense("output.dense", inner, width)?,
            wide,
            norm: norm("output.LayerNorm")?,
            heads: config.num_attention_heads,
        })
    }

    fn forward(&self, hidden: &Tensor) -> Result<Tensor> {
        let attended = self.attended.forward(&self.attend(hidden)?)?;
        let hidden = self.attended_norm.forward(&(attended + hidden)?)?;
        let inner = self.wide.forward(&hidden)?.gelu_erf()?;
        self.norm.forward(&(self.narrow.forward(&inner)? + hidden)?)
    }

    /// What each token takes from all: softmax(Q Kᵀ / √d) V of each head, side by side.
    fn attend(&self, hidden: &Tensor) -> Result<Tensor> {
        let (tokens, width) = hidden.dims2()?;
        let head = width / self.heads;
        let split = |dense: &Linear| {
            let all = dense.forward(hidden)?.reshape((tokens, self.heads, head))?;
            all.transpose(0, 1)?.contiguous()
        };
        let (query, key, value) = (split(&self.query)?, split(&self.key)?, split(&self.value)?);
        let scores = (query.matmul(&key.transpose(1, 2)?.contiguous()?)? / (head as f64).sqrt())?;
        let parts = candle_nn::ops::softmax(&scores, D::Minus1)?;
        parts.matmul(&value)?.transpose(0, 1)?.contiguous()?.reshape((tokens, width))
    }
}
