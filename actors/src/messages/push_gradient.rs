//! Worker → ParameterServer: gradients of some slots for one shard; the reply is the next version.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::link::{Body, BodyError, LinkError, Values, WireMessage, WirePart};
use crate::ids::{ShardId, Slot, Version, View, WorkerId};
use crate::ledger::SlotReport;
use crate::reduction::Span;

/// Asks the owner of `shard` to add gradients to step `step`, and to answer when the step has been
/// applied.
///
/// Safe to repeat: a part whose slots are all there is not added again, and a push of a step that
/// was applied is answered at once. A worker repeats its push until it has the answer.
#[derive(Clone, Debug, PartialEq, actix::Message, Serialize, Deserialize)]
#[rtype(result = "Result<Pushed, PushError>")]
pub struct PushGradient {
    pub view: View,
    pub worker: WorkerId,
    pub shard: ShardId,
    /// The version that the gradients were computed on.
    pub step: Version,
    /// One a span, in the order of `payload`.
    pub parts: Vec<PartHeader>,
    /// One a slot, for the first shard only: it keeps the ledger. Empty for the others.
    pub reports: Vec<SlotReport>,
    /// Not sent with the last version, which is only evaluated.
    #[serde(skip)]
    pub payload: Vec<Payload>,
}

/// What one part covers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PartHeader {
    pub span: Span,
    /// Training rows in it.
    pub rows: u64,
}

/// The shard's range of the summed gradient of one span.
#[derive(Clone, Debug, PartialEq)]
pub enum Payload {
    /// Sums as they are; any span.
    Dense(Values),
    /// Written by the job's codec; one slot.
    Encoded(Bytes),
}

/// The step was applied.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pushed {
    /// `step + 1`; `step` itself where the push only closed the job.
    pub version: Version,
    /// The shard's parameters at that version.
    #[serde(skip)]
    pub values: Values,
}

/// Why a push was not answered with a version. Except after [`PushError::Link`], nothing of it
/// counts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum PushError {
    /// Wait for a new lease.
    #[error("push of {got} refused, the shard is in {current}")]
    StaleView { got: View, current: View },
    /// The shard has no parameters yet; try again.
    #[error("{0} has not been restored yet")]
    NotReady(ShardId),
    #[error("push for {got} reached {expected}")]
    WrongShard { expected: ShardId, got: ShardId },
    /// Pull, and compute again.
    #[error("push for step {got:?} refused, the shard is at {version}")]
    OutOfWindow { got: Version, version: Version },
    #[error("part of {span} has {got} values, the shard has {expected}")]
    WrongLength { span: Span, expected: usize, got: usize },
    #[error("part of {span} at {step} says it has {got} rows, the job's plan {expected}")]
    WrongRows { span: Span, step: Version, expected: u64, got: u64 },
    #[error("the report of {slot} at {step} counts {got} {what}, the job's plan {expected}")]
    WrongReport { slot: Slot, step: Version, what: String, expected: u64, got: u64 },
    /// The same job would fail again, as after [`PushError::NotFinite`].
    #[error(
        "the loss of {slot} at {step} is {loss}, which can't be counted; lower job.optimizer.learning_rate or set job.gradient.clip_norm"
    )]
    WrongLoss { slot: Slot, step: Version, loss: String },
    /// Or it doesn't follow the parts before it.
    #[error("{span} is not a part of this job's sum")]
    WrongSpan { span: Span },
    /// Of a part that is encoded. The same job would fail again: a lower learning rate or clipping is
    /// what helps.
    #[error(
        "the gradient of {span} at {step} is not finite; lower job.optimizer.learning_rate or set job.gradient.clip_norm"
    )]
    NotFinite { span: Span, step: Version },
    /// The sum of the parts, or what the update makes of it, is not finite. The shard stays at `step`,
    /// and the same job would fail again.
    #[error(
        "the {what} of {shard} at {step} overflow, first at parameter {index} (tensor {tensor:?}); lower job.optimizer.learning_rate or set job.gradient.clip_norm"
    )]
    Overflow {
        shard: ShardId,
        step: Version,
        /// For example "new parameters".
        what: String,
        tensor: String,
        /// In the whole flat space.
        index: usize,
    },
    #[error("part of {span} can't be decoded: {cause}")]
    Codec { span: Span, cause: String },
    #[error("the push announces {parts} parts and carries {payloads}")]
    WrongPayload { parts: usize, payloads: usize },
    #[error("the push to the first shard lacks the report of a slot or its evaluation")]
    MissingReport,
    /// Send the same push again, later.
    #[error("{waiting} workers wait for this step already")]
    Busy { waiting: usize },
    /// The same worker asked again, and this request will not be answered.
    #[error("a later push of the same worker took this one's place")]
    Superseded,
    /// Send the same push again.
    #[error(transparent)]
    Link(#[from] LinkError),
}

impl WireMessage for PushGradient {
    const KIND: u16 = 0x0101;
    type Reply = Pushed;
    type Refusal = PushError;
}

impl WirePart for PushGradient {
    const POSITIONAL: bool = true;

    fn bodies(&self) -> Vec<Body> {
        let body = |payload: &Payload| match payload {
            Payload::Dense(values) => Body::F32(Values::clone(values)),
            Payload::Encoded(bytes) => Body::Bytes(bytes.clone()),
        };
        self.payload.iter().map(body).collect()
    }

    fn attach(&mut self, bodies: Vec<Body>) -> Result<(), BodyError> {
        let payload = |body| match body {
            Body::F32(values) => Payload::Dense(values),
            Body::Bytes(bytes) => Payload::Encoded(bytes),
        };
        self.payload = bodies.into_iter().map(payload).collect();
        Ok(())
    }
}

impl WirePart for Pushed {
    const POSITIONAL: bool = true;

    fn bodies(&self) -> Vec<Body> {
        vec![Body::F32(Values::clone(&self.values))]
    }

    fn attach(&mut self, bodies: Vec<Body>) -> Result<(), BodyError> {
        self.values = one_tensor(bodies)?;
        Ok(())
    }
}

impl WirePart for PushError {}

/// The body of a reply that carries one tensor.
pub(super) fn one_tensor(bodies: Vec<Body>) -> Result<Values, BodyError> {
    let other = |got: usize| {
        let (expected, got) = ("one f32 tensor".to_owned(), format!("{got} bodies"));
        BodyError { expected, got }
    };
    match <[Body; 1]>::try_from(bodies) {
        Ok([Body::F32(values)]) => Ok(values),
        Ok(_) => Err(other(1)),
        Err(bodies) => Err(other(bodies.len())),
    }
}
