//! A pipeline whose tensors have been checked: which step takes and makes which.

mod tensors;

use std::collections::{BTreeMap, BTreeSet};

use super::fusion::Fusion;
use super::spec::{PipelineSpec, Step};
use super::{FUSED_MAX, STEPS_MAX};
use crate::hashing::BUCKETS_MAX;
use crate::tensor_model::{PORTS_MAX, Port, Signature};
use tensors::Tensors;

/// Bytes of a tensor's name: far more than anybody reads.
const NAME_MAX: usize = 256;

/// Steps over places of tensors. The inputs have the first ones, in the order of the signature.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    pub signature: Signature,
    /// Places that there are.
    pub places: usize,
    pub steps: Vec<Planned>,
    /// Places of the outputs, in the order of the signature.
    pub outputs: Vec<usize>,
}

/// A step and the name under which errors tell of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Planned {
    pub name: String,
    pub operation: Operation,
    /// Places that nobody needs after it.
    pub frees: Vec<usize>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Operation {
    /// The member of this index. Names are those of its own tensors.
    Model {
        member: usize,
        inputs: Vec<(String, usize)>,
        outputs: Vec<(String, usize)>,
    },
    HashText {
        of: usize,
        buckets: usize,
        to: usize,
    },
    Fuse {
        how: Fusion,
        of: Vec<usize>,
        to: usize,
    },
}

/// A pipeline makes no sense.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum PipelineError {
    #[error("it has {got} steps, 1 to {STEPS_MAX} are possible")]
    Steps { got: usize },
    #[error("it has {inputs} inputs and {outputs} outputs, 1 to {PORTS_MAX} of each are possible")]
    Ports { inputs: usize, outputs: usize },
    #[error("{step}: a tensor is called {name:.80?}; a name has 1 to {NAME_MAX} bytes")]
    Name { step: String, name: String },
    #[error("{step}: {name:?} is made by {maker} already; give one of them another name")]
    Twice { step: String, name: String, maker: String },
    #[error("{step} takes {name:?}, which {maker} makes later; put that step before it")]
    Later { step: String, name: String, maker: String },
    #[error("output {name:?} is made by no step")]
    Nobody { name: String },
    #[error("output {name:?} is there twice")]
    OutputTwice { name: String },
    #[error("{step} has no {what} {name:?}; it has {known}")]
    NoPort { step: String, what: &'static str, name: String, known: String },
    #[error("{step}: its input {port} is given no tensor; add it to `inputs`")]
    Unset { step: String, port: String },
    #[error("{step}: {given} does not fit {taken}")]
    Unfit { step: String, given: String, taken: String },
    #[error("{step}: {got} tensors are fused, 1 to {FUSED_MAX} are possible")]
    Fused { step: String, got: usize },
    #[error(
        "{step}: `weights` has {got} numbers for {expected} tensors; leave it out, or give each one"
    )]
    Weights { step: String, expected: usize, got: usize },
    #[error("{step}: weight {weight} is not a finite number above 0")]
    Weight { step: String, weight: f64 },
    #[error("{step}: `buckets` is {got}, 1 to {BUCKETS_MAX} are possible")]
    Buckets { step: String, got: usize },
    #[error("{step}: no signature of this model is known")]
    NoSignature { step: String },
}

impl Plan {
    /// `signatures`: of the members, in the order of [`PipelineSpec::members`].
    ///
    /// # Errors
    /// What does not fit, with the step.
    pub fn new(spec: &PipelineSpec, signatures: &[Signature]) -> Result<Self, PipelineError> {
        let got = spec.steps.len();
        if !(1..=STEPS_MAX).contains(&got) {
            return Err(PipelineError::Steps { got });
        }
        let mut known = BTreeMap::new();
        // What a later step says of an input holds for the earlier ones too. Each pass fixes a length that
        // was open, so there are no more of them than inputs have lengths.
        loop {
            let plan = Self::pass(spec, signatures, known.clone())?;
            let inputs = plan.signature.inputs.iter().map(|port| (port.name.clone(), port.clone()));
            let inputs: BTreeMap<String, Port> = inputs.collect();
            if inputs == known {
                return Ok(plan);
            }
            known = inputs;
        }
    }

    fn pass(
        spec: &PipelineSpec,
        signatures: &[Signature],
        known: BTreeMap<String, Port>,
    ) -> Result<Self, PipelineError> {
        let mut tensors = Tensors::of(&spec.steps, known)?;
        let mut signatures = signatures.iter().enumerate();
        let mut steps = Vec::with_capacity(spec.steps.len());
        for (at, step) in spec.steps.iter().enumerate() {
            let operation = match step {
                Step::Model { inputs, outputs, .. } => {
                    let member = signatures.next();
                    let name = || tensors.names[at].clone();
                    let member =
                        member.ok_or_else(|| PipelineError::NoSignature { step: name() })?;
                    tensors.model(at, member, inputs, outputs)?
                }
                Step::HashText { of, buckets, r#as } => {
                    tensors.hash_text(at, of, *buckets, r#as)?
                }
                Step::Concatenate { of, r#as } => {
                    tensors.fuse(at, of, |_| Fusion::Concatenate, &[], r#as)?
                }
                Step::Average { of, weights, r#as } => {
                    tensors.fuse(at, of, Fusion::Average, weights, r#as)?
                }
                Step::Vote { of, weights, r#as } => {
                    tensors.fuse(at, of, Fusion::Vote, weights, r#as)?
                }
            };
            steps.push(Planned { name: tensors.names[at].clone(), operation, frees: Vec::new() });
        }
        tensors.planned(spec, steps)
    }
}

impl Plan {
    /// Says after which step each tensor is not needed any more.
    fn free(&mut self) {
        let mut needed: BTreeSet<usize> = self.outputs.iter().copied().collect();
        for step in self.steps.iter_mut().rev() {
            step.frees = step.places().into_iter().filter(|place| needed.insert(*place)).collect();
        }
    }
}

impl Planned {
    /// Of all tensors that it takes and makes.
    fn places(&self) -> Vec<usize> {
        match &self.operation {
            Operation::Model { inputs, outputs, .. } => {
                inputs.iter().chain(outputs).map(|(_, place)| *place).collect()
            }
            Operation::HashText { of, to, .. } => vec![*of, *to],
            Operation::Fuse { of, to, .. } => of.iter().chain([to]).copied().collect(),
        }
    }

    fn moved(mut self, moved: &[usize]) -> Self {
        match &mut self.operation {
            Operation::Model { inputs, outputs, .. } => {
                inputs.iter_mut().chain(outputs).for_each(|(_, place)| *place = moved[*place]);
            }
            Operation::HashText { of, to, .. } => (*of, *to) = (moved[*of], moved[*to]),
            Operation::Fuse { of, to, .. } => {
                of.iter_mut().for_each(|place| *place = moved[*place]);
                *to = moved[*to];
            }
        }
        self
    }
}

#[cfg(test)]
mod tests;
