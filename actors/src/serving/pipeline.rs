//! A model made of models.

use std::sync::Arc;

use bytes::Bytes;

use super::ServedModel;
use crate::datatype::Datatype;
use crate::messages::{INPUT, OUTPUT, Predict, PredictError};
use crate::pipeline::{Operation, PipelineSpec, Plan, fuse, hash_texts};
use crate::tensor::{NamedTensor, Tensor};
use crate::tensor_model::{Port, RunError, Signature, TensorModel};
use crate::version::{VersionDescription, VersionRef};

/// Bytes of tensors that the steps of one request hold at a time: what they are made of is a body of some
/// megabytes, and a few steps that make much of little would else take gigabytes.
const HELD_MAX: usize = 256 << 20;

/// Runs its steps one after the other. Each member answers as it does alone, so the bits are those that it
/// gives to whoever asks it for itself.
#[derive(Debug)]
struct Pipeline {
    plan: Plan,
    /// By the numbers of the plan.
    members: Vec<Arc<ServedModel>>,
}

/// What a version takes and answers, whichever kind it is of.
pub fn signature_of(description: &VersionDescription) -> Signature {
    if let Some(signature) = &description.signature {
        return signature.clone();
    }
    let rows = |name: &str, width| Port {
        name: name.to_owned(),
        datatype: Datatype::Fp32,
        shape: vec![None, Some(width)],
    };
    Signature {
        inputs: vec![rows(INPUT, description.features)],
        outputs: vec![rows(OUTPUT, description.outputs)],
    }
}

/// The pipeline in the file of a version, of members in the order in which the version names them.
pub(super) fn load(
    description: &VersionDescription,
    file: &Bytes,
    members: &[Arc<ServedModel>],
) -> Result<Arc<dyn TensorModel>, String> {
    let spec: PipelineSpec = serde_json::from_slice(file).map_err(|error| error.to_string())?;
    let there = members.iter().map(|member| {
        let ServedModel { description: of, .. } = &**member;
        (of.model.as_str(), VersionRef::Number(of.version))
    });
    if !there.eq(spec.members().map(|(model, version)| (model, version.clone()))) {
        return Err("its steps name other versions than its description".to_owned());
    }
    let signatures: Vec<Signature> =
        members.iter().map(|member| signature_of(&member.description)).collect();
    let plan = Plan::new(&spec, &signatures).map_err(|error| error.to_string())?;
    if description.signature.as_ref() != Some(&plan.signature) {
        return Err("its steps have another signature than its description".to_owned());
    }
    Ok(Arc::new(Pipeline { plan, members: members.to_vec() }))
}

impl TensorModel for Pipeline {
    fn signature(&self) -> &Signature {
        &self.plan.signature
    }

    fn run(&self, inputs: Vec<Tensor>) -> Result<Vec<Tensor>, RunError> {
        let given = inputs.len();
        let mut places: Vec<Option<Tensor>> = inputs.into_iter().map(Some).collect();
        places.resize(self.plan.places, None);
        for step in &self.plan.steps {
            let name = &step.name;
            self.step(&step.operation, &mut places).map_err(|error| match error {
                RunError::Input { cause } => RunError::Input { cause: format!("{name}: {cause}") },
                RunError::Failed { cause } => {
                    RunError::Failed { cause: format!("{name}: {cause}") }
                }
            })?;
            let held = places[given..].iter().flatten().map(|tensor| tensor.bytes().len());
            check_held(name, held.sum())?;
            step.frees.iter().for_each(|&place| places[place] = None);
        }
        self.plan.outputs.iter().map(|&place| taken(&places, place).cloned()).collect()
    }
}

impl Pipeline {
    fn step(&self, step: &Operation, places: &mut [Option<Tensor>]) -> Result<(), RunError> {
        match step {
            Operation::Model { member, inputs, outputs } => {
                self.ask(*member, inputs, outputs, places)?;
            }
            Operation::HashText { of, buckets, to } => {
                places[*to] = Some(hash_texts(taken(places, *of)?, *buckets)?);
            }
            Operation::Fuse { how, of, to } => {
                let of: Result<Vec<&Tensor>, RunError> =
                    of.iter().map(|&place| taken(places, place)).collect();
                places[*to] = Some(fuse(how, &of?)?);
            }
        }
        Ok(())
    }

    fn ask(
        &self,
        member: usize,
        inputs: &[(String, usize)],
        outputs: &[(String, usize)],
        places: &mut [Option<Tensor>],
    ) -> Result<(), RunError> {
        let member = &self.members[member];
        let named = inputs.iter().map(|(name, place)| {
            let tensor = taken(places, *place)?.clone();
            Ok(NamedTensor { name: name.clone(), tensor })
        });
        let of = &member.description;
        let version = VersionRef::Number(of.version);
        let request = Predict::new(of.model.clone(), version, named.collect::<Result<_, _>>()?);
        let failed = |cause: &str| RunError::Failed { cause: cause.to_owned() };
        let answer = member.predict(vec![request]).pop().ok_or_else(|| failed("no answer"))?;
        let answer = answer.map_err(|error| match error {
            PredictError::Model { .. } | PredictError::Load { .. } => {
                RunError::Failed { cause: error.to_string() }
            }
            error => RunError::Input { cause: error.to_string() },
        })?;
        for (name, place) in outputs {
            let found = answer.outputs.iter().find(|output| output.name == *name);
            let found = found.ok_or_else(|| failed("an output is missing"))?;
            places[*place] = Some(found.tensor.clone());
        }
        Ok(())
    }
}

fn check_held(step: &str, bytes: usize) -> Result<(), RunError> {
    if bytes <= HELD_MAX {
        return Ok(());
    }
    let cause = format!(
        "{step}: tensors of {bytes} bytes at a time are more than {HELD_MAX}; send fewer rows"
    );
    Err(RunError::Input { cause })
}

/// A plan takes nothing that was not made before.
fn taken(places: &[Option<Tensor>], place: usize) -> Result<&Tensor, RunError> {
    let missing = || RunError::Failed { cause: "a tensor is missing".to_owned() };
    places.get(place).and_then(Option::as_ref).ok_or_else(missing)
}

#[cfg(test)]
mod tests;
