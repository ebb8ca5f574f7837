//! How large the tensors of a model get.

use tract_onnx::prelude::{SymbolValues, TypedModel};

use super::OnnxError;

/// Rows for which the tensors of a model are counted.
const ROWS: i64 = 64;
/// The largest tensor of so many rows: no model that a node serves on processors needs more, and one
/// that was made to fill the memory is refused before it does.
const TENSOR_BYTES_MAX: i64 = 1 << 30;

/// # Errors
/// A tensor is larger, as far as the file says; what only the data tells has no number yet.
pub(super) fn check(model: &TypedModel) -> Result<(), OnnxError> {
    for node in model.nodes() {
        for output in &node.outputs {
            let mut bytes = i64::try_from(output.fact.datum_type.size_of()).unwrap_or(i64::MAX);
            for dim in output.fact.shape.iter() {
                let symbols = dim.symbols().into_iter();
                let values = symbols.fold(SymbolValues::default(), |all, one| all.with(&one, ROWS));
                let Ok(dim) = dim.eval(&values).to_i64() else { continue };
                bytes = bytes.saturating_mul(dim.max(0));
            }
            if bytes > TENSOR_BYTES_MAX {
                let shape = format!("{:?}", output.fact.shape);
                let node = node.name.clone();
                return Err(OnnxError::Size { node, shape, max: TENSOR_BYTES_MAX });
            }
        }
    }
    Ok(())
}
