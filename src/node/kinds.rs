//! The kinds of models that this build knows.

use gradmesh_actors::model::ModelKinds;

/// Those that it trains, and those that it serves once they were imported: `onnx` and `bert`,
/// with the features `onnx` and `transformers`.
pub fn kinds() -> ModelKinds {
    #[cfg_attr(
        not(any(feature = "onnx", feature = "transformers")),
        expect(unused_mut, reason = "nothing is added")
    )]
    let mut kinds = ModelKinds::builtin();
    #[cfg(feature = "onnx")]
    crate::onnx::register(&mut kinds);
    #[cfg(feature = "transformers")]
    crate::bert::register(&mut kinds);
    kinds
}
