//! What a published version is, and how one is named.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::dataset::Scaling;
use crate::model::ModelDescription;
use crate::tensor_model::Signature;

/// Characters in the name of a model or an alias: such names stand in paths of files and URLs, and
/// the longest path that they make stays far below the 255 bytes of a file name.
pub const NAME_MAX: usize = 64;

/// One published version of a model: all that is needed to serve it and to train it again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VersionDescription {
    /// Letters, digits, `-`, `_`, `.`; at most [`NAME_MAX`].
    pub model: String,
    /// The first version of a model is 1. 0: it is in no registry, but what a training that still runs had
    /// made after so many `steps`.
    pub version: u64,
    pub architecture: ModelDescription,
    /// In the order in which they lie in the flat space.
    pub tensors: Vec<TensorShape>,
    /// Input values of a row, ≥ 1.
    pub features: usize,
    /// Output values of a row, ≥ 1.
    pub outputs: usize,
    /// As many as `outputs` for a classifier, whose outputs are class probabilities.
    pub classes: Option<usize>,
    /// Applied to the raw inputs of a request.
    pub scaling: Scaling,
    /// The job that trained it, as its digest was taken.
    pub job: serde_json::Value,
    pub job_digest: String,
    pub data_digest: String,
    /// The training run; publishing a run again gives the version that it already has.
    pub run: String,
    /// Digest of the final training state. One run has one.
    pub digest: String,
    pub steps: u64,
    pub epochs: u64,
    /// Finite values, for example `test_accuracy`.
    pub metrics: BTreeMap<String, f64>,
    pub created_unix_ms: u64,
    pub artifact: Artifact,
    /// Of a model that was imported: it has no tensors of its own, its file is all of it, and what it
    /// takes is not rows of features.
    #[serde(default)]
    pub signature: Option<Signature>,
    /// Of a pipeline: the versions whose models it runs, in the order of its steps. They can't be deleted
    /// while it is there.
    #[serde(default)]
    pub made_of: Vec<Member>,
    /// The version whose parameters its training began with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<Parent>,
}

/// A published version that a training begins with, as `digits/3`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Start {
    /// Keeps the rule of [`check_model_name`].
    pub model: String,
    /// An alias would mean another one when the training goes on after a failure.
    pub version: u64,
}

/// Where a version comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parent {
    pub model: String,
    pub version: u64,
    /// [`VersionDescription::digest`] of it; `None` where it was deleted before its child was published.
    pub digest: Option<String>,
}

impl fmt::Display for Start {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.model, self.version)
    }
}

impl FromStr for Start {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let wrong = || NameError::Start { text: text.to_owned() };
        let (model, version) = text.split_once('/').ok_or_else(wrong)?;
        check_model_name(model).map_err(|_| wrong())?;
        match version.parse() {
            Ok(VersionRef::Number(version @ 1..)) => Ok(Self { model: model.to_owned(), version }),
            _ => Err(wrong()),
        }
    }
}

impl TryFrom<String> for Start {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<Start> for String {
    fn from(start: Start) -> Self {
        start.to_string()
    }
}

/// A version that another one is made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    pub model: String,
    pub version: u64,
    /// [`VersionDescription::digest`] of it.
    pub digest: String,
    /// [`VersionDescription::memory_bytes`] of it.
    pub bytes: u64,
    /// [`VersionDescription::depth`] of it.
    pub depth: usize,
    /// [`VersionDescription::runs`] of it.
    pub runs: usize,
}

/// What answers: a version of the registry, or the state of a training that still runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ServedVersion {
    Published(u64),
    /// After so many steps.
    Step(u64),
}

impl ServedVersion {
    /// 0 for all states of running trainings: whoever counts by version counts them together.
    pub fn number(self) -> u64 {
        match self {
            Self::Published(number) => number,
            Self::Step(_) => 0,
        }
    }
}

impl fmt::Display for ServedVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Published(number) => write!(f, "{number}"),
            Self::Step(step) => write!(f, "step-{step}"),
        }
    }
}

impl VersionDescription {
    /// What an answer of it is named by.
    pub fn served(&self) -> ServedVersion {
        match self.version {
            0 => ServedVersion::Step(self.steps),
            number => ServedVersion::Published(number),
        }
    }

    /// What it takes in memory: its stored tensors or file, and all that it is made of. A version that
    /// several of its steps run is there once.
    pub fn memory_bytes(&self) -> u64 {
        let members = self.made_of.iter().map(|of| ((&of.model, of.version), of.bytes));
        let distinct: BTreeMap<_, u64> = members.collect();
        distinct.into_values().fold(self.artifact.bytes, u64::saturating_add)
    }

    /// Models and pipelines that one request runs: itself, and all that it is made of.
    pub fn runs(&self) -> usize {
        self.made_of.iter().map(|member| member.runs).fold(1, usize::saturating_add)
    }

    /// Pipelines within pipelines: 0 for a model, 1 for one that is made of models.
    pub fn depth(&self) -> usize {
        self.made_of.iter().map(|member| member.depth.saturating_add(1)).max().unwrap_or(0)
    }

    /// This version as a part of another one.
    pub fn as_member(&self) -> Member {
        Member {
            model: self.model.clone(),
            version: self.version,
            digest: self.digest.clone(),
            bytes: self.memory_bytes(),
            depth: self.depth(),
            runs: self.runs(),
        }
    }
}

/// A tensor as it is stored: always `f32`, row-major.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TensorShape {
    pub name: String,
    pub shape: Vec<usize>,
}

/// The stored tensors of a version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Artifact {
    /// Name of the file in the folder of the version. Two publications that race for one version
    /// write different files, and the log names the one that won.
    pub file: String,
    /// BLAKE3 of the file, in hexadecimal.
    pub blake3: String,
    /// Size of the file.
    pub bytes: u64,
}

impl TensorShape {
    /// Number of values: the product of the shape; `None` where it is beyond `usize`.
    pub fn len(&self) -> Option<usize> {
        self.shape.iter().try_fold(1usize, |product, &dim| product.checked_mul(dim))
    }

    /// Whether the tensor has no values.
    pub fn is_empty(&self) -> bool {
        self.shape.contains(&0)
    }
}

/// Which version of a model is meant: `3`, `latest`, or an alias such as `production`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum VersionRef {
    /// The newest version that was not deleted.
    Latest,
    Number(u64),
    /// Keeps the rule of [`check_alias`].
    Alias(String),
}

impl fmt::Display for VersionRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Latest => f.write_str("latest"),
            Self::Number(number) => write!(f, "{number}"),
            Self::Alias(alias) => f.write_str(alias),
        }
    }
}

impl FromStr for VersionRef {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text == "latest" {
            return Ok(Self::Latest);
        }
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            let number = text.parse().map_err(|_| NameError::Number { text: text.to_owned() })?;
            return Ok(Self::Number(number));
        }
        check_alias(text)?;
        Ok(Self::Alias(text.to_owned()))
    }
}

impl TryFrom<String> for VersionRef {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<VersionRef> for String {
    fn from(version: VersionRef) -> Self {
        version.to_string()
    }
}

/// A text can't name a model, a version or an alias.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum NameError {
    #[error("version number {text} is larger than {}", u64::MAX)]
    Number { text: String },
    #[error(
        "{alias:?} can't be an alias: use 1 to {NAME_MAX} of a-z, 0-9, '-', '_', '.', and not digits only"
    )]
    Alias { alias: String },
    #[error(
        "{text:?} names no version to start from; use a model and a number, such as \"digits/3\""
    )]
    Start { text: String },
    #[error("\"latest\" always names the newest version; use another alias")]
    Reserved,
    #[error(
        "{model:?} can't name a model: use 1 to {NAME_MAX} letters, digits, '-', '_', '.', and begin with a letter or digit; change job.model.name"
    )]
    Model { model: String },
}

/// Checks the name of an alias: 1 to [`NAME_MAX`] of `a-z0-9-_.`, not digits only, not `latest`,
/// and not dots only, which would name a folder.
///
/// # Errors
/// The name that breaks the rule.
pub fn check_alias(alias: &str) -> Result<(), NameError> {
    if alias == "latest" {
        return Err(NameError::Reserved);
    }
    let allowed = |byte: u8| {
        byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_' | b'.')
    };
    let good = (1..=NAME_MAX).contains(&alias.len())
        && alias.bytes().all(allowed)
        && !alias.bytes().all(|byte| byte.is_ascii_digit())
        && !alias.bytes().all(|byte| byte == b'.');
    if good { Ok(()) } else { Err(NameError::Alias { alias: alias.to_owned() }) }
}

/// Checks the name of a model. It begins with a letter or a digit, so that it can never be `..`
/// in a path.
///
/// # Errors
/// The name that breaks the rule.
pub fn check_model_name(model: &str) -> Result<(), NameError> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let good = model.len() <= NAME_MAX
        && model.bytes().all(allowed)
        && model.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    if good { Ok(()) } else { Err(NameError::Model { model: model.to_owned() }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_a_number_latest_is_latest_and_all_else_an_alias() {
        assert_eq!("3".parse(), Ok(VersionRef::Number(3)));
        assert_eq!("latest".parse(), Ok(VersionRef::Latest));
        assert_eq!("v1.2-rc_3".parse(), Ok(VersionRef::Alias("v1.2-rc_3".into())));
    }

    #[test]
    fn texts_that_name_no_version_are_refused() {
        let long = "a".repeat(NAME_MAX + 1);
        for text in ["", "Production", "a b", "a/b", "..", "é", long.as_str()] {
            assert_eq!(
                text.parse::<VersionRef>(),
                Err(NameError::Alias { alias: text.into() }),
                "{text:?}"
            );
        }
        let huge = "18446744073709551616";
        assert_eq!(huge.parse::<VersionRef>(), Err(NameError::Number { text: huge.into() }));
    }

    #[test]
    fn names_that_could_leave_the_folder_of_models_are_refused() {
        for model in ["", ".", "..", "a/b", "a\\b", "-x", "a\0"] {
            assert!(check_model_name(model).is_err(), "{model:?}");
        }
        assert_eq!(check_model_name("Mnist_2.b-1"), Ok(()));
    }

    #[test]
    fn a_training_starts_from_a_number_of_a_model() {
        let start = Start { model: "digits".into(), version: 3 };
        assert_eq!("digits/3".parse(), Ok(start.clone()));
        assert_eq!(start.to_string(), "digits/3");
        for text in [
            "digits",
            "digits/",
            "digits/latest",
            "digits/production",
            "/3",
            "digits/0",
            "a b/3",
            "a/b/3",
        ] {
            assert_eq!(text.parse::<Start>(), Err(NameError::Start { text: text.into() }));
        }
    }

    #[test]
    fn a_shape_beyond_memory_has_no_length() {
        let tensor = TensorShape { name: "w".into(), shape: vec![usize::MAX, 2] };
        assert_eq!(tensor.len(), None);
    }
}
