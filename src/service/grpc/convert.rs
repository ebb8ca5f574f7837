//! The protocol's descriptions as messages.

use gradmesh_actors::version::{NameError, VersionRef};

use super::inference as proto;
use super::inference::model_metadata_response::TensorMetadata;
use super::inference::repository_index_response::ModelIndex;
use crate::service::oip::{Datatype, model, repository, statistics};

/// Empty text means the newest version.
pub(super) fn version(text: &str) -> Result<VersionRef, NameError> {
    if text.is_empty() { Ok(VersionRef::Latest) } else { text.parse() }
}

impl From<model::ModelMetadata> for proto::ModelMetadataResponse {
    fn from(metadata: model::ModelMetadata) -> Self {
        let tensor = |tensor: model::TensorMetadata| TensorMetadata {
            name: tensor.name.to_owned(),
            datatype: tensor.datatype.name().to_owned(),
            shape: tensor.shape,
        };
        Self {
            name: metadata.name,
            versions: metadata.versions,
            platform: metadata.platform.to_owned(),
            inputs: metadata.inputs.into_iter().map(tensor).collect(),
            outputs: metadata.outputs.into_iter().map(tensor).collect(),
            properties: metadata.properties,
        }
    }
}

impl From<model::ModelConfig> for proto::ModelConfig {
    fn from(config: model::ModelConfig) -> Self {
        use proto::model_version_policy::{All, PolicyChoice};
        let version_policy =
            proto::ModelVersionPolicy { policy_choice: Some(PolicyChoice::All(All {})) };
        let reshape = |reshape: Option<model::Reshape>| {
            reshape.map(|reshape| proto::ModelTensorReshape { shape: reshape.shape })
        };
        let input = |tensor: model::TensorConfig| proto::ModelInput {
            name: tensor.name.to_owned(),
            data_type: data_type(tensor.data_type).into(),
            dims: tensor.dims,
            reshape: reshape(tensor.reshape),
        };
        let output = |tensor: model::TensorConfig| proto::ModelOutput {
            name: tensor.name.to_owned(),
            data_type: data_type(tensor.data_type).into(),
            dims: tensor.dims,
            reshape: reshape(tensor.reshape),
        };
        Self {
            name: config.name,
            platform: config.platform.to_owned(),
            version_policy: Some(version_policy),
            max_batch_size: config.max_batch_size,
            input: config.input.into_iter().map(input).collect(),
            output: config.output.into_iter().map(output).collect(),
            backend: config.backend.to_owned(),
        }
    }
}

fn data_type(datatype: Datatype) -> proto::DataType {
    match datatype {
        Datatype::Bool => proto::DataType::TypeBool,
        Datatype::Uint8 => proto::DataType::TypeUint8,
        Datatype::Uint16 => proto::DataType::TypeUint16,
        Datatype::Uint32 => proto::DataType::TypeUint32,
        Datatype::Uint64 => proto::DataType::TypeUint64,
        Datatype::Int8 => proto::DataType::TypeInt8,
        Datatype::Int16 => proto::DataType::TypeInt16,
        Datatype::Int32 => proto::DataType::TypeInt32,
        Datatype::Int64 => proto::DataType::TypeInt64,
        Datatype::Fp16 => proto::DataType::TypeFp16,
        Datatype::Bf16 => proto::DataType::TypeBf16,
        Datatype::Fp32 => proto::DataType::TypeFp32,
        Datatype::Fp64 => proto::DataType::TypeFp64,
        Datatype::Bytes => proto::DataType::TypeString,
    }
}

impl From<statistics::Tally> for proto::StatisticDuration {
    fn from(tally: statistics::Tally) -> Self {
        Self { count: tally.count, ns: tally.ns }
    }
}

impl From<statistics::ModelStatistics> for proto::ModelStatistics {
    fn from(told: statistics::ModelStatistics) -> Self {
        let parts = told.inference_stats;
        let batch = |batch: statistics::BatchStatistics| proto::InferBatchStatistics {
            batch_size: batch.batch_size,
            compute_input: Some(batch.compute_input.into()),
            compute_infer: Some(batch.compute_infer.into()),
            compute_output: Some(batch.compute_output.into()),
        };
        Self {
            name: told.name,
            version: told.version,
            last_inference: told.last_inference,
            inference_count: told.inference_count,
            execution_count: told.execution_count,
            inference_stats: Some(proto::InferStatistics {
                success: Some(parts.success.into()),
                fail: Some(parts.fail.into()),
                queue: Some(parts.queue.into()),
                compute_input: Some(parts.compute_input.into()),
                compute_infer: Some(parts.compute_infer.into()),
                compute_output: Some(parts.compute_output.into()),
                cache_hit: Some(parts.cache_hit.into()),
                cache_miss: Some(parts.cache_miss.into()),
            }),
            batch_stats: told.batch_stats.into_iter().map(batch).collect(),
        }
    }
}

impl From<repository::IndexEntry> for ModelIndex {
    fn from(entry: repository::IndexEntry) -> Self {
        let (state, reason) = (entry.state.to_owned(), entry.reason.to_owned());
        Self { name: entry.name, version: entry.version, state, reason }
    }
}
