//! A trained model on its way into the registry, and what it must keep to be published.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::dataset::Scaling;
use crate::model::ModelDescription;
use crate::pipeline::{DEPTH_MAX, RUNS_MAX, STEPS_MAX};
use crate::tensor_model::{PORTS_MAX, Signature};
use crate::version::{Artifact, Member, Parent, TensorShape, VersionDescription};

/// A trained model before the registry numbers it. The fields are those of [`VersionDescription`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NewVersion {
    pub model: String,
    pub architecture: ModelDescription,
    pub tensors: Vec<TensorShape>,
    pub features: usize,
    pub outputs: usize,
    pub classes: Option<usize>,
    pub scaling: Scaling,
    pub job: serde_json::Value,
    pub job_digest: String,
    pub data_digest: String,
    pub run: String,
    pub digest: String,
    pub steps: u64,
    pub epochs: u64,
    pub metrics: BTreeMap<String, f64>,
    pub created_unix_ms: u64,
    pub signature: Option<Signature>,
    pub made_of: Vec<Member>,
    #[serde(default)]
    pub parent: Option<Parent>,
}

/// A new version contradicts itself, or holds a value that can't be served.
#[derive(Clone, Debug, PartialEq, thiserror::Error, Serialize, Deserialize)]
pub enum NewVersionError {
    #[error("{what} of {model} is {value}; only finite values can be published")]
    NotFinite { model: String, what: String, value: String },
    #[error("{what} of {model} is {got}, expected {expected}")]
    Inconsistent { model: String, what: String, expected: usize, got: usize },
    #[error(
        "the file of {model}, a {kind:?}, has {bytes} bytes and {ports} inputs or outputs; it needs a byte, a kind of letters and digits, and at most {PORTS_MAX} of each"
    )]
    File { model: String, kind: String, bytes: usize, ports: usize },
    #[error(
        "{model} is made of {members} versions (at most {STEPS_MAX}), {depth} pipelines deep (at most {DEPTH_MAX}), and a request runs {runs} of them in all (at most {RUNS_MAX}); use fewer steps, or no pipelines within it"
    )]
    MadeOf { model: String, members: usize, depth: usize, runs: usize },
    #[error("tensor {name:?} of {model} has a shape beyond memory")]
    Shape { model: String, name: String },
}

/// A version as it would be published again.
impl From<VersionDescription> for NewVersion {
    fn from(of: VersionDescription) -> Self {
        Self {
            model: of.model,
            architecture: of.architecture,
            tensors: of.tensors,
            features: of.features,
            outputs: of.outputs,
            classes: of.classes,
            scaling: of.scaling,
            job: of.job,
            job_digest: of.job_digest,
            data_digest: of.data_digest,
            run: of.run,
            digest: of.digest,
            steps: of.steps,
            epochs: of.epochs,
            metrics: of.metrics,
            created_unix_ms: of.created_unix_ms,
            signature: of.signature,
            made_of: of.made_of,
            parent: of.parent,
        }
    }
}

impl NewVersion {
    /// The description of this version under its number.
    #[must_use]
    pub fn numbered(self, version: u64, artifact: Artifact) -> VersionDescription {
        VersionDescription {
            model: self.model,
            version,
            architecture: self.architecture,
            tensors: self.tensors,
            features: self.features,
            outputs: self.outputs,
            classes: self.classes,
            scaling: self.scaling,
            job: self.job,
            job_digest: self.job_digest,
            data_digest: self.data_digest,
            run: self.run,
            digest: self.digest,
            steps: self.steps,
            epochs: self.epochs,
            metrics: self.metrics,
            created_unix_ms: self.created_unix_ms,
            artifact,
            signature: self.signature,
            made_of: self.made_of,
            parent: self.parent,
        }
    }

    /// Checks what JSON can't hold (a NaN would make the log unreadable) and what serving relies
    /// on.
    ///
    /// # Errors
    /// The first value that breaks it.
    pub fn check(&self) -> Result<(), NewVersionError> {
        for (name, &value) in &self.metrics {
            self.finite(&format!("metric {name}"), value)?;
        }
        match &self.scaling {
            Scaling::None => {}
            Scaling::Divide { by } => self.divisor("the divisor of the scaling", *by)?,
            Scaling::Standard { mean, deviation } => {
                self.count("number of means", self.features, mean.len())?;
                self.count("number of deviations", self.features, deviation.len())?;
                for &value in mean {
                    self.finite("a mean of the scaling", value.into())?;
                }
                for &value in deviation {
                    self.divisor("a deviation of the scaling", value)?;
                }
            }
        }
        let (members, depth) = (self.made_of.len(), self.made_of.iter().map(|member| member.depth));
        let depth = depth.max().map_or(0, |depth| depth.saturating_add(1));
        let runs = self.made_of.iter().map(|member| member.runs).fold(0, usize::saturating_add);
        if members > STEPS_MAX || depth > DEPTH_MAX || runs > RUNS_MAX {
            let model = self.model.clone();
            return Err(NewVersionError::MadeOf { model, members, depth, runs });
        }
        self.count("number of outputs", self.classes.unwrap_or(self.outputs), self.outputs)
    }

    /// Checks the values of the tensors, in the order of `tensors`.
    ///
    /// # Errors
    /// More, fewer or longer tensors than described, or a value that is not finite.
    pub fn check_tensors<'a>(
        &self,
        values: impl ExactSizeIterator<Item = &'a [f32]>,
    ) -> Result<(), NewVersionError> {
        self.count("number of tensors sent", self.tensors.len(), values.len())?;
        for (tensor, values) in self.tensors.iter().zip(values) {
            let Some(len) = tensor.len() else {
                let (model, name) = (self.model.clone(), tensor.name.clone());
                return Err(NewVersionError::Shape { model, name });
            };
            self.count(&format!("length of tensor {}", tensor.name), len, values.len())?;
            if let Some(index) = values.iter().position(|value| !value.is_finite()) {
                let what = format!("value {index} of tensor {}", tensor.name);
                self.finite(&what, values[index].into())?;
            }
        }
        Ok(())
    }

    /// Checks the file of an imported model, and that any other has none.
    ///
    /// # Errors
    /// An imported model without a file, with tensors of its own, or of a kind that can't be the
    /// ending of a file's name; a file that nobody said anything of.
    pub fn check_file(&self, bytes: usize) -> Result<(), NewVersionError> {
        let Some(signature) = &self.signature else {
            return self.count("bytes of a file that is not described", 0, bytes);
        };
        self.count("number of tensors beside a file", 0, self.tensors.len())?;
        let kind = &self.architecture.kind;
        let plain = kind.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
        let ports = signature.inputs.len().max(signature.outputs.len());
        if bytes == 0 || kind.is_empty() || !plain || ports > PORTS_MAX {
            let (model, kind) = (self.model.clone(), kind.clone());
            return Err(NewVersionError::File { model, kind, bytes, ports });
        }
        Ok(())
    }

    fn divisor(&self, what: &str, value: f32) -> Result<(), NewVersionError> {
        self.finite(what, value.into())?;
        self.finite(&format!("the inverse of {what}"), value.recip().into())
    }

    fn finite(&self, what: &str, value: f64) -> Result<(), NewVersionError> {
        if value.is_finite() {
            return Ok(());
        }
        Err(NewVersionError::NotFinite {
            model: self.model.clone(),
            what: what.to_owned(),
            value: value.to_string(),
        })
    }

    fn count(&self, what: &str, expected: usize, got: usize) -> Result<(), NewVersionError> {
        if expected == got {
            return Ok(());
        }
        let (model, what) = (self.model.clone(), what.to_owned());
        Err(NewVersionError::Inconsistent { model, what, expected, got })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn new_version(model: &str, run: &str) -> NewVersion {
        NewVersion {
            model: model.into(),
            architecture: ModelDescription {
                kind: "toy".into(),
                settings: serde_json::json!({ "features": 2 }),
            },
            tensors: vec![TensorShape { name: "w".into(), shape: vec![2] }],
            features: 2,
            outputs: 1,
            classes: None,
            scaling: Scaling::None,
            job: serde_json::json!({ "seed": 1 }),
            job_digest: "job".into(),
            data_digest: "data".into(),
            run: run.into(),
            digest: "state".into(),
            steps: 10,
            epochs: 1,
            metrics: BTreeMap::from([("loss".into(), 0.5)]),
            created_unix_ms: 1,
            signature: None,
            made_of: Vec::new(),
            parent: None,
        }
    }

    pub(crate) fn artifact() -> Artifact {
        Artifact { file: "model.safetensors".into(), blake3: "00".into(), bytes: 8 }
    }

    #[test]
    fn a_metric_that_json_can_not_hold_is_refused() {
        let mut new = new_version("m", "a");
        new.metrics.insert("accuracy".into(), f64::NAN);
        assert_eq!(
            new.check().unwrap_err().to_string(),
            "metric accuracy of m is NaN; only finite values can be published"
        );
    }

    #[test]
    fn a_scaling_that_divides_by_zero_or_has_another_width_is_refused() {
        let mut new = new_version("m", "a");
        new.scaling = Scaling::Divide { by: 0.0 };
        assert!(matches!(new.check(), Err(NewVersionError::NotFinite { .. })));
        new.scaling = Scaling::Standard { mean: vec![0.0, 0.0], deviation: vec![1.0] };
        assert!(matches!(
            new.check(),
            Err(NewVersionError::Inconsistent { expected: 2, got: 1, .. })
        ));
    }

    /// The seals of a log are over what its entries are read to.
    #[test]
    fn a_version_without_a_parent_is_written_as_it_was_before_there_were_any() {
        let described = new_version("m", "run").numbered(1, artifact());
        let text = serde_json::to_string(&described).unwrap();
        assert!(!text.contains("parent"), "{text}");
        assert_eq!(serde_json::from_str::<VersionDescription>(&text).unwrap(), described);
    }

    #[test]
    fn what_is_made_of_the_same_version_twice_has_it_in_memory_once_and_runs_it_twice() {
        let part = new_version("part", "run").numbered(1, artifact());
        let mut whole = new_version("whole", "run");
        whole.made_of = vec![part.as_member(), part.as_member()];
        let whole = whole.numbered(1, artifact());
        assert_eq!((part.memory_bytes(), whole.memory_bytes()), (8, 16));
        assert_eq!((part.runs(), whole.runs(), whole.depth()), (1, 3, 1));
    }

    #[test]
    fn a_version_that_runs_too_many_others_is_refused_with_the_numbers() {
        let mut part = new_version("part", "run").numbered(1, artifact()).as_member();
        part.runs = RUNS_MAX / 2;
        let mut whole = new_version("whole", "run");
        whole.made_of = vec![part.clone(), part.clone()];
        assert_eq!(whole.check(), Ok(()));
        whole.made_of.push(part);
        let refused = whole.check().unwrap_err().to_string();
        assert!(refused.contains("a request runs 1536 of them in all (at most 1024)"), "{refused}");
    }

    #[test]
    fn tensors_of_another_length_or_with_a_nan_are_refused() {
        let new = new_version("m", "a");
        let check = |values: &[&[f32]]| new.check_tensors(values.iter().copied());
        assert_eq!(check(&[&[1.0, 2.0]]), Ok(()));
        assert!(check(&[]).is_err());
        assert!(check(&[&[1.0]]).is_err());
        let refused = check(&[&[1.0, f32::INFINITY]]).unwrap_err();
        assert!(refused.to_string().starts_with("value 1 of tensor w of m is inf"), "{refused}");
    }
}
