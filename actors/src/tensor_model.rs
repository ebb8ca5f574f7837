//! Models that are served and not trained here: functions of named tensors.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::datatype::Datatype;
use crate::tensor::{NamedTensor, Tensor};

/// Inputs, or outputs, that a signature may have.
pub const PORTS_MAX: usize = 256;
/// Values of an input of zeros, with which a model is tried out: a gigabyte is no trial.
const ZEROS_MAX: usize = 1 << 22;

/// A function from tensors to tensors.
///
/// # What an implementation promises
/// `run` is pure: the same inputs give the same bits, on whichever thread.
pub trait TensorModel: Send + Sync + fmt::Debug {
    /// What it takes and answers. Never changes.
    fn signature(&self) -> &Signature;

    /// Outputs in the order of the signature; so are the inputs, which fit it.
    ///
    /// # Errors
    /// It has no answer to these inputs.
    fn run(&self, inputs: Vec<Tensor>) -> Result<Vec<Tensor>, RunError>;
}

/// A model has no answer, in its own words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RunError {
    /// Whoever asked is to blame, and can ask for something else.
    #[error("{cause}")]
    Input { cause: String },
    #[error("{cause}")]
    Failed { cause: String },
}

/// What a model takes and answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signature {
    pub inputs: Vec<Port>,
    pub outputs: Vec<Port>,
}

/// An input or an output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    pub name: String,
    pub datatype: Datatype,
    /// `None` for any length.
    pub shape: Vec<Option<usize>>,
}

/// Tensors don't fit a signature.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    #[error("no input {name:?}; the model takes {known}")]
    Unknown { name: String, known: String },
    #[error("input {name:?} is there twice")]
    Twice { name: String },
    #[error("input {name:?} is missing; the model takes {known}")]
    Missing { name: String, known: String },
    #[error("{name:?} has datatype {got}, it is {expected}")]
    Datatype { name: String, expected: Datatype, got: Datatype },
    #[error("{name:?} has shape {got:?}, it is {expected}")]
    Shape { name: String, expected: String, got: Vec<usize> },
    #[error("the model answers {got} outputs, it has {expected}")]
    Outputs { expected: usize, got: usize },
}

impl Signature {
    /// Inputs of a request in the order of the signature.
    ///
    /// # Errors
    /// One is missing, unknown, there twice, or of another datatype or shape.
    pub fn arranged(&self, given: Vec<NamedTensor>) -> Result<Vec<Tensor>, SignatureError> {
        let mut places: Vec<Option<Tensor>> = vec![None; self.inputs.len()];
        for NamedTensor { name, tensor } in given {
            let Some(at) = self.inputs.iter().position(|port| port.name == name) else {
                return Err(SignatureError::Unknown { name, known: self.known() });
            };
            self.inputs[at].check(&tensor)?;
            if places[at].replace(tensor).is_some() {
                return Err(SignatureError::Twice { name });
            }
        }
        let placed = std::iter::zip(places, &self.inputs).map(|(tensor, port)| {
            let missing =
                || SignatureError::Missing { name: port.name.clone(), known: self.known() };
            tensor.ok_or_else(missing)
        });
        placed.collect()
    }

    /// # Errors
    /// They are not what the signature says.
    pub fn check_outputs(&self, outputs: &[Tensor]) -> Result<(), SignatureError> {
        let (expected, got) = (self.outputs.len(), outputs.len());
        if expected != got {
            return Err(SignatureError::Outputs { expected, got });
        }
        std::iter::zip(&self.outputs, outputs).try_for_each(|(port, tensor)| port.check(tensor))
    }

    /// Inputs of zeros, one of each free dimension; `None` where they would be very large.
    pub fn zeros(&self) -> Option<Vec<Tensor>> {
        let zero = |port: &Port| {
            let shape: Vec<usize> = port.shape.iter().map(|dim| dim.unwrap_or(1)).collect();
            let elements = crate::tensor::elements(&shape).filter(|&count| count <= ZEROS_MAX)?;
            // An empty text has no byte but those of its length.
            let size = port.datatype.size().unwrap_or(size_of::<u32>());
            Tensor::new(port.datatype, shape, vec![0; elements * size].into()).ok()
        };
        self.inputs.iter().map(zero).collect()
    }

    fn known(&self) -> String {
        let told = self.inputs.iter().map(ToString::to_string);
        told.collect::<Vec<_>>().join(", ")
    }
}

impl Port {
    fn check(&self, tensor: &Tensor) -> Result<(), SignatureError> {
        let name = || self.name.clone();
        let (expected, got) = (self.datatype, tensor.datatype());
        if expected != got {
            return Err(SignatureError::Datatype { name: name(), expected, got });
        }
        let got = tensor.shape();
        let fits = got.len() == self.shape.len()
            && std::iter::zip(&self.shape, got)
                .all(|(port, got)| port.is_none_or(|dim| dim == *got));
        if fits {
            return Ok(());
        }
        Err(SignatureError::Shape { name: name(), expected: self.told_shape(), got: got.to_vec() })
    }

    fn told_shape(&self) -> String {
        let dim = |dim: &Option<usize>| dim.map_or_else(|| "any".to_owned(), |dim| dim.to_string());
        format!("[{}]", self.shape.iter().map(dim).collect::<Vec<_>>().join(", "))
    }
}

/// `"pixels" FP32 [any, 64]`.
impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {} {}", self.name, self.datatype, self.told_shape())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signature() -> Signature {
        let port = |name: &str, datatype, shape: &[Option<usize>]| Port {
            name: name.into(),
            datatype,
            shape: shape.to_vec(),
        };
        Signature {
            inputs: vec![
                port("ids", Datatype::Int64, &[None, Some(2)]),
                port("text", Datatype::Bytes, &[None]),
            ],
            outputs: vec![port("score", Datatype::Fp32, &[None])],
        }
    }

    fn given(name: &str, datatype: Datatype, shape: &[usize]) -> NamedTensor {
        let elements: usize = shape.iter().product();
        let bytes = vec![0; elements * datatype.size().unwrap_or(4)].into();
        let tensor = Tensor::new(datatype, shape.to_vec(), bytes).unwrap();
        NamedTensor { name: name.into(), tensor }
    }

    #[test]
    fn inputs_come_in_the_order_of_the_signature_whatever_order_they_were_sent_in() {
        let (ids, text) =
            (given("ids", Datatype::Int64, &[3, 2]), given("text", Datatype::Bytes, &[3]));
        let arranged = signature().arranged(vec![text.clone(), ids.clone()]).unwrap();
        assert_eq!(arranged, [ids.tensor, text.tensor]);
    }

    #[test]
    fn inputs_that_do_not_fit_are_refused_with_what_the_model_takes() {
        let text = || given("text", Datatype::Bytes, &[1]);
        let ids = || given("ids", Datatype::Int64, &[1, 2]);
        let refused = |given| signature().arranged(given).unwrap_err().to_string();
        let takes = "the model takes \"ids\" INT64 [any, 2], \"text\" BYTES [any]";
        assert_eq!(refused(vec![text()]), format!("input \"ids\" is missing; {takes}"));
        let other = given("x", Datatype::Fp32, &[1]);
        assert_eq!(refused(vec![ids(), text(), other]), format!("no input \"x\"; {takes}"));
        assert_eq!(refused(vec![ids(), ids(), text()]), "input \"ids\" is there twice");
        let wrong = given("ids", Datatype::Int32, &[1, 2]);
        assert_eq!(refused(vec![wrong, text()]), "\"ids\" has datatype INT32, it is INT64");
        let wrong = given("ids", Datatype::Int64, &[1, 3]);
        assert_eq!(refused(vec![wrong, text()]), "\"ids\" has shape [1, 3], it is [any, 2]");
    }

    #[test]
    fn a_model_is_tried_out_with_zeros_unless_they_are_very_large() {
        let zeros = signature().zeros().unwrap();
        assert_eq!(zeros[0].shape(), [1, 2]);
        assert_eq!(zeros[1].strings().collect::<Vec<_>>(), [b""]);
        let mut large = signature();
        large.inputs[0].shape = vec![Some(1 << 12), Some(1 << 12)];
        assert_eq!(large.zeros(), None);
    }
}
