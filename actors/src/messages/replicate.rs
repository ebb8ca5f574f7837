//! ParameterServer → ParameterServer: a primary's steps, for the copies of its shard.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::link::{Body, BodyError, LinkError, Values, WireMessage, WirePart};
use crate::ids::{ShardCopy, Version, View};
use crate::ledger::{Ledger, SlotReport};
use crate::plan::JobOffer;

/// One applied step: what every copy of a shard makes of it has the same bits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Update {
    /// The version that the step computed on.
    pub step: Version,
    /// Sum of squares of the whole gradient, where the job clips by it.
    pub sum_of_squares: Option<f64>,
    /// One a slot, of the first shard only.
    pub reports: Vec<SlotReport>,
    /// Mean gradient of the shard, clipped. Empty where the last version was evaluated.
    #[serde(skip)]
    pub gradient: Values,
}

/// Asks a copy to apply a step that its primary has applied, and to answer when it has.
///
/// Safe to repeat: a step that the copy has is not applied again.
#[derive(Clone, Debug, PartialEq, actix::Message, Serialize, Deserialize)]
#[rtype(result = "Result<Replicated, ReplicateError>")]
pub struct Replicate {
    pub view: View,
    pub to: ShardCopy,
    #[serde(with = "shared")]
    pub update: Arc<Update>,
}

/// Asks a copy that is to learn to take this state as its own.
#[derive(Clone, Debug, PartialEq, actix::Message, Serialize, Deserialize)]
#[rtype(result = "Result<Replicated, ReplicateError>")]
pub struct FillShard {
    pub view: View,
    pub to: ShardCopy,
    /// As [`super::AdoptView::lineage`].
    pub lineage: View,
    pub version: Version,
    pub ledger: Ledger,
    pub offer: JobOffer,
    pub shards: u32,
    pub checkpoint_every: u64,
    /// Parameters, then the optimizer's vectors in their order.
    #[serde(skip)]
    pub vectors: Vec<Values>,
}

/// How many updates the copy has applied: its version, and one more where that was evaluated last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replicated {
    pub applied: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum ReplicateError {
    /// The sender is the primary no longer.
    #[error("a step of {got} refused, this copy is in {current}")]
    StaleView { got: View, current: View },
    #[error("a step for {expected} reached {got}")]
    WrongShard { expected: ShardCopy, got: ShardCopy },
    /// The copy has not heard of this view yet; try again.
    #[error("a step of {got} came early, this copy is in {current}")]
    EarlyView { got: View, current: View },
    /// Only a state to begin with can help.
    #[error("{0} has no state to follow with")]
    Empty(ShardCopy),
    /// The coordinator has not made it a replica or learner of this view.
    #[error("{0} follows nobody")]
    NoFollower(ShardCopy),
    #[error("the update of {step} refused, this copy has applied {applied}")]
    Ahead { step: Version, applied: u64 },
    #[error("{to} can't take this: {cause}")]
    Wrong { to: ShardCopy, cause: String },
    #[error(transparent)]
    Link(#[from] LinkError),
}

impl WireMessage for Replicate {
    const KIND: u16 = 0x010d;
    type Reply = Replicated;
    type Refusal = ReplicateError;
}

impl WireMessage for FillShard {
    const KIND: u16 = 0x010e;
    type Reply = Replicated;
    type Refusal = ReplicateError;
}

impl WirePart for Replicate {
    const POSITIONAL: bool = true;

    fn bodies(&self) -> Vec<Body> {
        let gradient = &self.update.gradient;
        if gradient.is_empty() { Vec::new() } else { vec![Body::F32(Values::clone(gradient))] }
    }

    fn attach(&mut self, bodies: Vec<Body>) -> Result<(), BodyError> {
        let got = bodies.len();
        let mut vectors = vectors(bodies)?;
        if got > 1 {
            let expected = "one f32 tensor or none".to_owned();
            return Err(BodyError { expected, got: format!("{got} bodies") });
        }
        if let (Some(gradient), Some(update)) = (vectors.pop(), Arc::get_mut(&mut self.update)) {
            update.gradient = gradient;
        }
        Ok(())
    }
}

impl WirePart for FillShard {
    fn bodies(&self) -> Vec<Body> {
        self.vectors.iter().map(|values| Body::F32(Values::clone(values))).collect()
    }

    fn attach(&mut self, bodies: Vec<Body>) -> Result<(), BodyError> {
        self.vectors = vectors(bodies)?;
        Ok(())
    }
}

impl WirePart for Replicated {
    const POSITIONAL: bool = true;
}
impl WirePart for ReplicateError {}

fn vectors(bodies: Vec<Body>) -> Result<Vec<Values>, BodyError> {
    let vector = |body| match body {
        Body::F32(values) => Ok(values),
        Body::Bytes(_) => {
            Err(BodyError { expected: "f32 tensors".to_owned(), got: "bytes".to_owned() })
        }
    };
    bodies.into_iter().map(vector).collect()
}

/// serde's own support for `Arc` would copy what several followers share.
mod shared {
    use std::sync::Arc;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<T: Serialize, S: Serializer>(
        value: &Arc<T>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        T::serialize(value, serializer)
    }

    pub(super) fn deserialize<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Arc<T>, D::Error> {
        T::deserialize(deserializer).map(Arc::new)
    }
}
