//! The vocabulary of the cluster: one message a file, request, reply and refusal together.
//!
//! | message | sender → receiver | for |
//! |---|---|---|
//! | [`PushGradient`] | Worker → ParameterServer | gradients of a step; the reply is the next version |
//! | [`PullParameters`] | Worker → ParameterServer | a version, for a worker that has none |
//! | [`CombineNorm`] | ParameterServer → ParameterServer | the global norm, over all shards |
//! | [`RestoreShard`], [`AdoptView`] | Coordinator → ParameterServer | own a shard from a version on, in a view |
//! | [`LeaseSlots`] | Coordinator → Worker | which slots to compute |
//! | [`Heartbeat`] | node → Coordinator | who is alive |
//! | [`ReportShard`], [`ReportPart`] | ParameterServer, Worker → Coordinator | progress; a part of a checkpoint |
//! | [`ReportFailure`] | Worker → Coordinator | training can't go on |
//! | [`checkpoint_store`] | all → the node's own store | local: parts and manifests of checkpoints |

pub mod checkpoint_store;
mod combine_norm;
mod heartbeat;
mod lease_slots;
mod link;
mod pull_parameters;
mod push_gradient;
mod report_shard;
mod restore_shard;

pub use combine_norm::{CombineNorm, CombinedNorm, NormError};
pub use heartbeat::{Heartbeat, HeartbeatAck, HeartbeatError, Member};
pub use lease_slots::{LeaseError, LeaseSlots};
pub use link::{Body, BodyError, LinkError, Values, WireMessage, WirePart, ask};
pub use pull_parameters::{Parameters, PullError, PullParameters};
pub use push_gradient::{PartHeader, Payload, PushError, PushGradient, Pushed};
pub use report_shard::{BytesMoved, ReportError, ReportFailure, ReportPart, ReportShard};
pub use restore_shard::{AdoptView, RestoreError, RestoreShard};
