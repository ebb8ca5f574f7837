//! What people write down of a pipeline.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

use crate::version::VersionRef;

/// A model made of models. Tensors that no step makes are its inputs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PipelineSpec {
    /// Tensors that it answers with.
    pub outputs: Vec<String>,
    /// In the order in which they run.
    pub steps: Vec<Step>,
}

/// A step takes tensors that are there and makes one or more.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Step {
    /// A version of the registry. Published, it is named by its number, whatever it was named by before.
    Model {
        model: String,
        #[serde(default = "latest", deserialize_with = "number_or_name")]
        version: VersionRef,
        /// Tensor of the pipeline for each input of the model.
        inputs: BTreeMap<String, String>,
        /// Name of the pipeline for an output of the model. Outputs that have none are dropped.
        outputs: BTreeMap<String, String>,
    },
    /// BYTES of shape `[rows]`, UTF-8, as FP32 of shape `[rows, buckets]`, by
    /// [`hash_text`](crate::hashing::hash_text).
    HashText { of: String, buckets: usize, r#as: String },
    /// FP32 tensors of as many rows side by side.
    Concatenate { of: Vec<String>, r#as: String },
    /// The weighted mean of FP32 tensors of one shape.
    Average {
        of: Vec<String>,
        /// Finite and > 0; all the same where there are none.
        #[serde(default)]
        weights: Vec<f64>,
        r#as: String,
    },
    /// Each tensor votes for the column in which its row is largest (the first of equals): the part of
    /// all weights that each column got.
    Vote {
        of: Vec<String>,
        #[serde(default)]
        weights: Vec<f64>,
        r#as: String,
    },
}

fn latest() -> VersionRef {
    VersionRef::Latest
}

/// `version = 3` is what people write who mean version 3.
fn number_or_name<'de, D: Deserializer<'de>>(from: D) -> Result<VersionRef, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "`version` is a number, an alias or latest")]
    enum Written {
        Number(u64),
        Name(VersionRef),
    }
    Ok(match Written::deserialize(from)? {
        Written::Number(number) => VersionRef::Number(number),
        Written::Name(version) => version,
    })
}

impl PipelineSpec {
    /// The versions that it is made of, in the order of its steps.
    pub fn members(&self) -> impl Iterator<Item = (&str, &VersionRef)> {
        self.steps.iter().filter_map(|step| match step {
            Step::Model { model, version, .. } => Some((model.as_str(), version)),
            _ => None,
        })
    }

    /// The same with each model's version by its number, in the order of [`PipelineSpec::members`].
    #[must_use]
    pub fn pinned(mut self, numbers: impl IntoIterator<Item = u64>) -> Self {
        let models = self.steps.iter_mut().filter_map(|step| match step {
            Step::Model { version, .. } => Some(version),
            _ => None,
        });
        models.zip(numbers).for_each(|(version, number)| *version = VersionRef::Number(number));
        self
    }
}
