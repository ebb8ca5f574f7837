//! A job: everything that the trained bits depend on, and nothing else.
//!
//! How many workers, servers or nodes there are is not part of it, nor where the data lies. Two jobs with the same digest
//! and the same data end in the same bits.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::version::Start;

/// What to train, on what, and how. `[job]` of `cluster.toml`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobSpec {
    /// Everything random is drawn from it: initial parameters, the test split, the shuffles.
    pub seed: u64,
    /// Times that each training row is seen, ≥ 1.
    pub epochs: u64,
    /// Rows of a step, all slots together, ≥ 1.
    pub batch_size: usize,
    /// Slots that a step's batch is cut into, 1 to [`MAX_VIRTUAL_WORKERS`].
    pub virtual_workers: u32,
    pub model: ModelSpec,
    pub data: DataSpec,
    pub optimizer: OptimizerSpec,
    pub gradient: GradientSpec,
}

/// More slots than this would let one step's bookkeeping outgrow small models; 4,096 is more
/// workers than the largest published parameter-server jobs had.
pub const MAX_VIRTUAL_WORKERS: u32 = 4096;

/// `[job.model]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelSpec {
    /// Under which name versions are published: letters, digits, `-`, `_`, `.`; at most 64.
    pub name: String,
    /// `mlp`, `linear`, or the kind of a model that the embedding program registered.
    pub kind: String,
    /// Widths of the hidden layers (`mlp` only).
    pub hidden: Vec<usize>,
    /// Between layers (`mlp` only).
    pub activation: Activation,
    pub loss: Loss,
    /// The version whose parameters the training begins with; those of the seed where it is none. No part of a
    /// job without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Start>,
    /// Keys that only the kind knows; `mlp` and `linear` have none. No part of a job without them.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub settings: Map<String, Value>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Activation {
    Relu,
    Tanh,
    Sigmoid,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Loss {
    /// Softmax and cross-entropy over classes.
    Softmax,
    /// Half the squared error, summed over outputs; classes become one-hot.
    Squared,
}

/// `[job.data]`. Paths are relative to the folder of `cluster.toml`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataSpec {
    pub format: DataFormat,
    /// IDX: the images. CSV: the file with inputs and targets. Plain or gzip.
    pub train: String,
    /// IDX only: the labels.
    pub train_labels: Option<String>,
    /// Test rows in files of their own; else `test_fraction` takes them from the training rows.
    pub test: Option<String>,
    pub test_labels: Option<String>,
    /// Part of the rows of `train` kept for testing where `test` is not set, 0 ≤ f < 1.
    pub test_fraction: f64,
    /// CSV only: column of the target, by number (from 0; negative from the end) or by header name.
    pub target: String,
    /// CSV only: whether the first line names the columns.
    pub header: bool,
    /// CSV only: a column of texts, whose words are hashed into inputs behind those of the other columns.
    pub text: Option<String>,
    /// How many inputs that makes, at least 1.
    pub text_buckets: usize,
    pub scale: ScaleSpec,
    /// Divisor for `scale = "divide"`.
    pub divide_by: f32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DataFormat {
    Idx,
    Csv,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ScaleSpec {
    None,
    /// Divide by `divide_by`.
    Divide,
    /// Zero mean and unit deviation by feature, over the training rows.
    Standard,
}

/// `[job.optimizer]`, applied by the parameter servers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OptimizerSpec {
    pub kind: OptimizerKind,
    /// η before the schedule, > 0.
    pub learning_rate: f32,
    /// Momentum and Nesterov: μ, 0 ≤ μ < 1.
    pub momentum: f32,
    /// Adam: β₁ and β₂, 0 ≤ β < 1, and ε > 0.
    pub beta1: f32,
    pub beta2: f32,
    pub epsilon: f32,
    /// L2: λ·w is added to the gradient, ≥ 0.
    pub weight_decay: f32,
    pub schedule: ScheduleSpec,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OptimizerKind {
    Sgd,
    Momentum,
    Nesterov,
    Adam,
}

/// `[job.optimizer.schedule]`: the factor on η, by version.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScheduleSpec {
    pub kind: ScheduleKind,
    /// Steps over which η rises linearly from η / (warmup + 1), before the schedule begins.
    pub warmup_steps: u64,
    /// `step`: every so many steps η is multiplied by `factor`; ≥ 1.
    pub every_steps: u64,
    /// `step`: 0 < factor ≤ 1.
    pub factor: f32,
    /// `cosine`: the factor at the end, 0 ≤ floor ≤ 1.
    pub floor: f32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ScheduleKind {
    Constant,
    Step,
    Cosine,
}

/// `[job.gradient]`: from a slot's gradient to the update.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GradientSpec {
    /// Each value of the step's mean gradient is clipped to ± this; 0 switches it off.
    pub clip_value: f32,
    /// The step's mean gradient is scaled down to this L2 norm over all shards; 0 switches it off.
    pub clip_norm: f32,
    pub codec: CodecKind,
    /// `top-k`: the part of the parameters that a push carries, 0 < f ≤ 1.
    pub top_k: f64,
}

/// How a slot's gradient is written to the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CodecKind {
    None,
    Fp16,
    Bf16,
    Int8,
    TopK,
}

impl JobSpec {
    /// BLAKE3 over the job, in hexadecimal: what a checkpoint and a peer are checked against.
    ///
    /// Fields are written in the order of the types above, so the digest does not depend on the
    /// order of keys in a file. Where the data lies is left out: nodes have other folders and mount
    /// points, and whether they have the same rows is told by the digest of the data.
    pub fn digest(&self) -> String {
        // A struct of strings, numbers and enums always serialises; an empty text would only
        // make two broken jobs equal, never start one.
        let text = serde_json::to_string(&self.without_paths()).unwrap_or_default();
        blake3::hash(text.as_bytes()).to_hex().to_string()
    }

    /// Whether both train the same, wherever each has its data.
    pub fn agrees_with(&self, other: &Self) -> bool {
        self.without_paths() == other.without_paths()
    }

    /// Which files there are stays: a test set of its own is another split of the rows.
    fn without_paths(&self) -> Self {
        let mut job = self.clone();
        let data = &mut job.data;
        data.train.clear();
        for path in [&mut data.train_labels, &mut data.test, &mut data.test_labels] {
            path.iter_mut().for_each(String::clear);
        }
        job
    }
}

#[cfg(test)]
mod tests {
    use crate::plan::tests::job;

    #[test]
    fn where_the_data_lies_is_no_part_of_the_job() {
        let here = job();
        let mut there = here.clone();
        there.data.train = "/mnt/elsewhere/rows.csv".into();
        assert_eq!(there.digest(), here.digest());
        assert!(there.agrees_with(&here));
    }

    #[test]
    fn how_the_data_is_read_is_a_part_of_the_job() {
        let here = job();
        let mut tested = here.clone();
        tested.data.test = Some("test.csv".into());
        let mut split = here.clone();
        split.data.test_fraction += 0.125;
        let mut column = here.clone();
        column.data.target = "label".into();
        for other in [tested, split, column] {
            assert_ne!(other.digest(), here.digest());
            assert!(!other.agrees_with(&here));
        }
    }
}
