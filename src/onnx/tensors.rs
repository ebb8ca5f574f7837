//! Tensors of the protocol as `tract` has them, and back; and what the ports of a model are.

use std::borrow::Cow;

use bytes::Bytes;
use gradmesh_actors::datatype::Datatype;
use gradmesh_actors::tensor::Tensor;
use tract_onnx::prelude::{
    DatumType, InferenceFact, InferenceModel, TVec, Tensor as TractTensor, ToDim, TractError, tvec,
};
use tract_onnx::tract_hir::infer::Factoid;

use super::{OnnxError, at};

/// Names of a model's inputs and outputs, as its file has them.
pub(super) struct Names {
    pub(super) inputs: Vec<String>,
    pub(super) outputs: Vec<String>,
}

/// Gives each open dimension of the inputs a name: the first one of all inputs the same, that of rows.
pub(super) fn open_dimensions(
    mut model: InferenceModel,
) -> Result<(InferenceModel, Names), OnnxError> {
    let wrong = at("its inputs and outputs can't be told");
    // An input is a node, an output the label of an outlet; preparing the model loses both.
    let inputs = model.input_outlets().map_err(&wrong)?.iter();
    let inputs: Vec<String> = inputs.map(|outlet| model.node(outlet.node).name.clone()).collect();
    let outputs = model.output_outlets().map_err(&wrong)?.iter().map(|&outlet| {
        let label = model.outlet_label(outlet).map(str::to_owned);
        label.unwrap_or_else(|| model.node(outlet.node).name.clone())
    });
    let outputs = outputs.collect();
    let rows = model.symbols.new_with_prefix("rows");
    for (index, name) in inputs.iter().enumerate() {
        let fact = model.input_fact(index).map_err(&wrong)?.clone();
        let Some(datum_type) = fact.datum_type.concretize() else {
            let (port, datatype) = (name.clone(), "none".to_owned());
            return Err(OnnxError::Datatype { port, datatype });
        };
        let mut dims: TVec<_> = tvec![];
        for (axis, dim) in fact.shape.dims().enumerate() {
            dims.push(match dim.concretize() {
                Some(dim) if dim.to_i64().is_ok() => dim,
                _ if axis == 0 => rows.to_dim(),
                Some(dim) => dim,
                None => model.symbols.new_with_prefix("d").to_dim(),
            });
        }
        let fact = InferenceFact::dt_shape(datum_type, dims);
        model.set_input_fact(index, fact).map_err(&wrong)?;
    }
    Ok((model, Names { inputs, outputs }))
}

/// # Errors
/// The protocol has no such datatype.
pub(super) fn datatype(port: &str, datum_type: DatumType) -> Result<Datatype, OnnxError> {
    known(datum_type).ok_or_else(|| OnnxError::Datatype {
        port: port.to_owned(),
        datatype: format!("{datum_type:?}"),
    })
}

fn known(datum_type: DatumType) -> Option<Datatype> {
    Some(match datum_type {
        DatumType::Bool => Datatype::Bool,
        DatumType::U8 => Datatype::Uint8,
        DatumType::U16 => Datatype::Uint16,
        DatumType::U32 => Datatype::Uint32,
        DatumType::U64 => Datatype::Uint64,
        DatumType::I8 => Datatype::Int8,
        DatumType::I16 => Datatype::Int16,
        DatumType::I32 => Datatype::Int32,
        // A length that the model computes is answered as a number.
        DatumType::I64 | DatumType::TDim => Datatype::Int64,
        DatumType::F16 => Datatype::Fp16,
        DatumType::F32 => Datatype::Fp32,
        DatumType::F64 => Datatype::Fp64,
        _ => return None,
    })
}

fn datum_type(datatype: Datatype) -> Option<DatumType> {
    Some(match datatype {
        Datatype::Bool => DatumType::Bool,
        Datatype::Uint8 => DatumType::U8,
        Datatype::Uint16 => DatumType::U16,
        Datatype::Uint32 => DatumType::U32,
        Datatype::Uint64 => DatumType::U64,
        Datatype::Int8 => DatumType::I8,
        Datatype::Int16 => DatumType::I16,
        Datatype::Int32 => DatumType::I32,
        Datatype::Int64 => DatumType::I64,
        Datatype::Fp16 => DatumType::F16,
        Datatype::Fp32 => DatumType::F32,
        Datatype::Fp64 => DatumType::F64,
        Datatype::Bf16 | Datatype::Bytes => return None,
    })
}

/// Copied: its bytes lie where the request has them.
pub(super) fn to_tract(tensor: &Tensor) -> Result<TractTensor, String> {
    let told = |error: TractError| error.to_string();
    let Some(datum_type) = datum_type(tensor.datatype()) else {
        return Err(format!("an input of datatype {} is never read", tensor.datatype()));
    };
    let mut zeros = TractTensor::zero_dt(datum_type, tensor.shape()).map_err(told)?;
    let (to, from) = (zeros.as_bytes_mut(), tensor.bytes());
    if to.len() != from.len() {
        return Err(format!("{} bytes where {} are expected", from.len(), to.len()));
    }
    to.copy_from_slice(from);
    Ok(zeros)
}

pub(super) fn from_tract(tensor: &TractTensor) -> Result<Tensor, String> {
    let told = |error: TractError| error.to_string();
    let tensor = match tensor.datum_type() {
        DatumType::TDim => tensor.cast_to::<i64>().map_err(told)?,
        _ => Cow::Borrowed(tensor),
    };
    let Some(datatype) = known(tensor.datum_type()).filter(|_| tensor.is_plain_ram()) else {
        return Err(format!("an output is {:?}, which can't be said", tensor.datum_type()));
    };
    let bytes = Bytes::copy_from_slice(tensor.as_bytes());
    Tensor::new(datatype, tensor.shape().to_vec(), bytes).map_err(|error| error.to_string())
}
