//! ONNX models, run by `tract`: kind `onnx`, whose file is a `ModelProto`.
//!
//! Dimensions that the file leaves open stay open, so that one plan answers any number of rows. A
//! file is trusted as far as whoever may publish it: one that was made to take much time or memory while it is read
//! can take them.

mod sizes;
mod tensors;
mod unfold;

use std::panic::catch_unwind;
use std::sync::Arc;

use bytes::Bytes;
use gradmesh_actors::model::ModelKinds;
use gradmesh_actors::tensor::Tensor;
use gradmesh_actors::tensor_model::{Port, RunError, Signature, TensorModel};
use tract_onnx::prelude::{
    Framework, InferenceModelExt, IntoRunnable, IntoTValue, TDim, TractError, TypedFact,
    TypedRunnableModel, tvec,
};

/// Characters of an error of `tract`.
const CAUSE_MAX: usize = 400;

/// The kind, and the ending of such files.
pub const KIND: &str = "onnx";

/// A model whose plan is made.
#[derive(Debug)]
pub struct OnnxModel {
    signature: Signature,
    plan: Arc<TypedRunnableModel>,
}

/// A file can't be served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OnnxError {
    /// The words of `tract`.
    #[error("{step}: {cause}")]
    Tract { step: &'static str, cause: String },
    #[error("{port:?} has datatype {datatype}, which the Open Inference Protocol does not have")]
    Datatype { port: String, datatype: String },
    #[error("the file contradicts itself: its reader failed at it")]
    Panicked,
    /// A few bytes of a file can ask for terabytes.
    #[error("node {node:?} makes a tensor of shape {shape}, of more than {max} bytes")]
    Size { node: String, shape: String, max: i64 },
}

/// Lets a node serve such models.
pub fn register(kinds: &mut ModelKinds) {
    kinds.register_imported(KIND, |_, file| {
        let model = OnnxModel::read(file).map_err(|error| error.to_string())?;
        Ok(Arc::new(model))
    });
}

/// Says at which step `tract` refused.
fn at(step: &'static str) -> impl Fn(TractError) -> OnnxError {
    move |error| OnnxError::Tract { step, cause: told(&error) }
}

/// The causes of an error in one line, which may hold whole tensors.
fn told(error: &TractError) -> String {
    format!("{error:#}").replace('\n', " ").chars().take(CAUSE_MAX).collect()
}

impl OnnxModel {
    /// Reads and plans a model.
    ///
    /// # Errors
    /// The bytes are no model, use an operator that `tract` has not, or take and answer what the
    /// protocol can't say.
    pub fn read(file: &Bytes) -> Result<Self, OnnxError> {
        // `tract` panics at some files that are damaged or hostile.
        catch_unwind(|| Self::plan(file)).unwrap_or(Err(OnnxError::Panicked))
    }

    fn plan(file: &Bytes) -> Result<Self, OnnxError> {
        let onnx = tract_onnx::onnx();
        let proto = onnx.proto_model_for_read(&mut &file[..]);
        let mut proto = proto.map_err(at("the file is no ONNX model"))?;
        unfold::keep_shapes_open(&mut proto);
        let read = onnx.model_for_proto_model(&proto).map_err(at("the model can't be read"))?;
        let (model, names) = tensors::open_dimensions(read)?;
        let model = model.into_typed().map_err(at("its shapes can't be told"))?;
        sizes::check(&model)?;
        let model = model.into_optimized().map_err(at("it can't be prepared"))?;
        sizes::check(&model)?;
        let port = |name: &String, fact: &TypedFact| {
            let datatype = tensors::datatype(name, fact.datum_type)?;
            let dim = |dim: &TDim| dim.to_i64().ok().and_then(|dim| usize::try_from(dim).ok());
            Ok(Port { name: name.clone(), datatype, shape: fact.shape.iter().map(dim).collect() })
        };
        let inputs = names.inputs.iter().enumerate().map(|(index, name)| {
            port(name, model.input_fact(index).map_err(at("an input is missing"))?)
        });
        let inputs = inputs.collect::<Result<_, OnnxError>>()?;
        let outputs = names.outputs.iter().enumerate().map(|(index, name)| {
            port(name, model.output_fact(index).map_err(at("an output is missing"))?)
        });
        let outputs = outputs.collect::<Result<_, OnnxError>>()?;
        let plan = model.into_runnable().map_err(at("it can't be planned"))?;
        Ok(Self { signature: Signature { inputs, outputs }, plan })
    }
}

impl TensorModel for OnnxModel {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn run(&self, inputs: Vec<Tensor>) -> Result<Vec<Tensor>, RunError> {
        let failed = |cause: String| RunError::Failed { cause };
        let mut values = tvec![];
        for input in &inputs {
            values.push(tensors::to_tract(input).map_err(failed)?.into_tvalue());
        }
        let outputs = self.plan.run(values).map_err(|error| failed(told(&error)))?;
        outputs.iter().map(|output| tensors::from_tract(output).map_err(failed)).collect()
    }
}
