//! A model in the folder that its makers publish, and the one file that the registry keeps of it.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use half::{bf16, f16};
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;

use super::{ABOUT, About, Config, Pooling};
use crate::store::{NamedTensor, TensorFile, TensorFileError, write_safetensors};

/// Files of a folder, by the names that Hugging Face's libraries give them.
const CONFIG: &str = "config.json";
const TOKENIZER: &str = "tokenizer.json";
const TENSORS: &str = "model.safetensors";
/// Of sentence-transformers; a folder without them is pooled by its mean.
const POOLING: &str = "1_Pooling/config.json";
const LIMITS: &str = "sentence_bert_config.json";
const MODULES: &str = "modules.json";

/// A folder holds no such model.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    #[error("{file}: {source}")]
    Read { file: &'static str, source: io::Error },
    #[error("{file} can't be read: {cause}")]
    Format { file: &'static str, cause: String },
    #[error("a {model_type:?} model is not of the BERT family")]
    Family { model_type: String },
    #[error("{POOLING}: only the mean and the first token are pooled")]
    Pooling,
    #[error(transparent)]
    File(#[from] TensorFileError),
}

#[derive(Deserialize)]
struct Family {
    model_type: String,
}

#[derive(Deserialize)]
struct Pooled {
    #[serde(default)]
    pooling_mode_cls_token: bool,
    #[serde(default)]
    pooling_mode_mean_tokens: bool,
}

#[derive(Deserialize)]
struct Limits {
    max_seq_length: Option<usize>,
}

#[derive(Deserialize)]
struct ModuleOf {
    r#type: String,
}

/// The same folder gives the same bytes.
///
/// # Errors
/// A file is missing or is not what its name says.
pub fn pack(folder: &Path) -> Result<Vec<u8>, FolderError> {
    let Family { model_type } = json(folder, CONFIG)?;
    if model_type != "bert" {
        return Err(FolderError::Family { model_type });
    }
    let config: Config = json(folder, CONFIG)?;
    let pooled: Option<Pooled> = optional(folder, POOLING)?;
    let pooling = match pooled {
        None => Pooling::Mean,
        Some(pooled) => match (pooled.pooling_mode_mean_tokens, pooled.pooling_mode_cls_token) {
            (true, false) => Pooling::Mean,
            (false, true) => Pooling::First,
            _ => return Err(FolderError::Pooling),
        },
    };
    let limits: Option<Limits> = optional(folder, LIMITS)?;
    let tokens_max = limits.and_then(|limits| limits.max_seq_length);
    let modules: Option<Vec<ModuleOf>> = optional(folder, MODULES)?;
    let normalized = modules
        .is_none_or(|modules| modules.iter().any(|module| module.r#type.ends_with(".Normalize")));
    let tokenizer = read(folder, TOKENIZER)?;
    let tokenizer = String::from_utf8(tokenizer).map_err(|error| format(TOKENIZER, &error))?;
    let about = About {
        tokens_max: tokens_max.unwrap_or(config.max_position_embeddings),
        config,
        tokenizer,
        pooling,
        normalized,
    };
    let about = serde_json::to_string(&about).map_err(|error| format(CONFIG, &error))?;
    let metadata = BTreeMap::from([(ABOUT.to_owned(), about)]);
    let tensors = tensors(&read(folder, TENSORS)?)?;
    Ok(write_safetensors(&TensorFile { tensors, metadata })?)
}

/// All that are numbers with a point, as `f32`. Others are what the makers' code needs, such as a list
/// of positions.
fn tensors(file: &[u8]) -> Result<Vec<NamedTensor>, FolderError> {
    let file = SafeTensors::deserialize(file).map_err(|error| format(TENSORS, &error))?;
    let mut names: Vec<_> = file.names().into_iter().map(str::to_owned).collect();
    names.sort_unstable();
    let mut tensors = Vec::new();
    for name in names {
        let view = file.tensor(&name).map_err(|error| format(TENSORS, &error))?;
        let data = view.data();
        let values: Vec<f32> = match view.dtype() {
            Dtype::F32 => data.as_chunks().0.iter().map(|&word| f32::from_le_bytes(word)).collect(),
            Dtype::F16 => {
                data.as_chunks().0.iter().map(|&pair| f16::from_le_bytes(pair).to_f32()).collect()
            }
            Dtype::BF16 => {
                data.as_chunks().0.iter().map(|&pair| bf16::from_le_bytes(pair).to_f32()).collect()
            }
            _ => continue,
        };
        let shape = view.shape().to_vec();
        tensors.push(NamedTensor { name, shape, values: values.into() });
    }
    Ok(tensors)
}

fn read(folder: &Path, file: &'static str) -> Result<Vec<u8>, FolderError> {
    fs::read(folder.join(file)).map_err(|source| FolderError::Read { file, source })
}

fn json<T: for<'de> Deserialize<'de>>(folder: &Path, file: &'static str) -> Result<T, FolderError> {
    serde_json::from_slice(&read(folder, file)?).map_err(|error| format(file, &error))
}

fn optional<T: for<'de> Deserialize<'de>>(
    folder: &Path,
    file: &'static str,
) -> Result<Option<T>, FolderError> {
    match json(folder, file) {
        Err(FolderError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            Ok(None)
        }
        read => read.map(Some),
    }
}

fn format(file: &'static str, cause: &dyn ToString) -> FolderError {
    FolderError::Format { file, cause: cause.to_string() }
}
