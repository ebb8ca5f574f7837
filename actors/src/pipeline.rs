//! Models made of models: steps and branches over named tensors.

mod fusion;
mod plan;
mod spec;

pub use fusion::{Fusion, fuse, hash_texts};
pub use plan::{Operation, PipelineError, Plan, Planned};
pub use spec::{PipelineSpec, Step};

/// The kind of these models in a description.
pub const PIPELINE: &str = "pipeline";
/// Steps of a pipeline: a few dozen models are a large one.
pub const STEPS_MAX: usize = 64;
/// Tensors that are fused at once.
pub const FUSED_MAX: usize = 64;
/// Members that a request runs in all, those of pipelines within pipelines counted each time: 64 steps of
/// 64 steps, four deep, would be sixteen million.
pub const RUNS_MAX: usize = 1024;
/// Pipelines within pipelines.
pub const DEPTH_MAX: usize = 4;
