//! What the Open Inference Protocol means, whichever transport carries it.
//!
//! A codec turns the bytes of its transport into an [`InferRequest`], and an [`InferResponse`] into
//! bytes. Which rows the model sees, what it is asked, and what is counted of it stands here once.

mod classification;
mod infer;
mod inference;
pub(super) mod model;
pub(super) mod repository;
pub(super) mod statistics;

pub(super) use gradmesh_actors::datatype::Datatype;
pub(super) use gradmesh_actors::tensor::{NamedTensor, Tensor, TensorError, put_string};
pub(super) use infer::{InferRequest, InferResponse, RequestedOutput, Turn};
pub(super) use inference::{Inference, unix_ms};
pub(super) use model::{config, describe, metadata, model_ready, names, server_ready};
pub(super) use repository::{index, load, unload};
pub(super) use statistics::{Statistics, statistics};

/// The name of the server, and of what runs its models.
pub(super) const NAME: &str = "gradmesh";

/// What this server speaks beyond the protocol's core, under the protocol's names.
pub(super) const EXTENSIONS: [&str; 5] = [
    "binary_tensor_data",
    "classification",
    "model_configuration",
    "model_repository",
    "statistics",
];

use gradmesh_actors::messages::{INPUT, OUTPUT};

/// The number of the largest of them; classifiers only.
const CLASS: &str = "class";
