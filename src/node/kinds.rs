//! The kinds of models that this build knows.

use gradmesh_actors::model::ModelKinds;

/// Those that it trains, and those that it serves once they were imported: `onnx`, with the feature
/// of that name.
pub fn kinds() -> ModelKinds {
    #[cfg_attr(not(feature = "onnx"), expect(unused_mut, reason = "nothing is added"))]
    let mut kinds = ModelKinds::builtin();
    #[cfg(feature = "onnx")]
    crate::onnx::register(&mut kinds);
    kinds
}
