//! The vocabulary of the cluster: one message a file, request, reply and refusal together.
//!
//! | message | sender → receiver | for |
//! |---|---|---|
//! | [`PushGradient`] | Worker → ParameterServer | gradients of a step; the reply is the next version |
//! | [`PullParameters`] | Worker → ParameterServer | a version, for a worker that has none |
//! | [`CombineNorm`] | ParameterServer → ParameterServer | the global norm, over all shards |
//! | [`RestoreShard`], [`AdoptView`] | Coordinator → ParameterServer | what a copy of a shard is in a view, from which version on |
//! | [`Replicate`], [`FillShard`] | ParameterServer → ParameterServer | copies of a shard follow its primary |
//! | [`LeaseSlots`] | Coordinator → Worker | which slots to compute |
//! | [`Heartbeat`] | node → Coordinator | who is alive |
//! | [`NodeConnected`] | the node's own router → Coordinator | local: who has connections to this node |
//! | [`NodeCalled`] | the node's own links → Coordinator | local: whose address answers or refuses calls |
//! | [`ReportShard`], [`ReportPart`] | ParameterServer, Worker → Coordinator | progress; a part of a checkpoint |
//! | [`ReportFailure`] | Worker → Coordinator | training can't go on |
//! | [`ReportFenced`] | ParameterServer → Coordinator | a primary that was replaced has found it out |
//! | [`ReportSpeed`] | Worker → Coordinator | how long computations take |
//! | [`Drain`] | operator → Coordinator | members are to leave, or to come back |
//! | [`GetStatus`] | service, operator → Coordinator | how far the run is |
//! | [`checkpoint_store`] | all → the node's own store | local: parts and manifests of checkpoints |
//! | [`coordination`] | Coordinator → the node's own store | local: who leads, in which view, with what state |
//! | [`PublishModel`], [`SetAlias`], [`RemoveAlias`], [`SetRoute`], [`DeleteVersion`], [`EditRegistry`] | Coordinator, operator → ModelRegistry | change what is published |
//! | [`FindModel`], [`FindRoute`], [`FetchModel`], [`ListModels`], [`ReadRecords`] | Predictor, service → ModelRegistry | read what is published |
//! | [`Predict`] | service → Predictor | answer a request |
//! | [`LendRun`] | Predictor → Predictor of another node | run these on an idle instance |
//! | [`RunModel`], [`BuildModel`] | Predictor → Runner | local: what takes long |
//! | [`LoadModel`], [`UnloadModel`] | service → Predictor | serve a model, or don't |

pub mod checkpoint_store;
mod combine_norm;
pub mod coordination;
mod delete_version;
mod drain;
mod edit_registry;
mod fetch_model;
mod find_model;
mod heartbeat;
mod lease_slots;
mod lend_run;
mod link;
mod list_models;
mod load_model;
mod node_called;
mod node_connected;
mod predict;
mod publish_model;
mod pull_parameters;
mod push_gradient;
mod read_records;
mod registry_error;
mod registry_store;
mod remove_alias;
mod replicate;
mod report_fenced;
mod report_shard;
mod report_speed;
mod restore_shard;
mod run_model;
mod run_status;
mod set_alias;
mod set_route;
mod tensors;

pub use combine_norm::{CombineNorm, CombinedNorm, NormError, NormPart};
pub use delete_version::DeleteVersion;
pub use drain::{Drain, DrainError, Draining};
pub use edit_registry::{EditRegistry, Edited};
pub use fetch_model::{FetchModel, FetchedModel};
pub use find_model::FindModel;
pub use heartbeat::{Heartbeat, HeartbeatAck, HeartbeatError, Member};
pub use lease_slots::{LeaseError, LeaseSlots};
pub use lend_run::{LendError, LendRun, Lent};
pub(crate) use link::answered;
pub use link::{Body, BodyError, LinkError, Values, WireMessage, WirePart, ask};
pub use list_models::{ListModels, ModelList};
pub use load_model::{LoadModel, ModelLoaded, ModelUnloaded, UnloadModel};
pub use node_called::NodeCalled;
pub use node_connected::NodeConnected;
pub use predict::{INPUT, OUTPUT, Predict, PredictError, Prediction, Resolved, Run};
pub use publish_model::{PublishModel, Published};
pub use pull_parameters::{Parameters, PullError, PullParameters};
pub use push_gradient::{PartHeader, Payload, PushError, PushGradient, Pushed};
pub use read_records::{ReadRecords, Records, RecordsOf};
pub use registry_error::{ChangeError, FindError, TryAnother};
pub use registry_store::{
    AppendEntry, Appended, ReadArtifact, ReadLog, RegistryStoreError, RegistryStoreLink, Remove,
    RemoveArtifact, Sealed, Stored, WriteArtifact, ask_store,
};
pub use remove_alias::RemoveAlias;
pub use replicate::{FillShard, Replicate, ReplicateError, Replicated, Update};
pub use report_fenced::ReportFenced;
pub use report_shard::{
    BytesMoved, FailureKind, ReportError, ReportFailure, ReportPart, ReportShard,
};
pub use report_speed::{Pace, ReportSpeed};
pub use restore_shard::{AdoptView, Appointment, Duty, RestoreError, RestoreShard};
pub use run_model::{BuildModel, Ran, RunModel};
pub use run_status::{GetStatus, StatusError};
pub use set_alias::{AliasSet, SetAlias};
pub use set_route::{FindRoute, FoundRoute, SetRoute};
