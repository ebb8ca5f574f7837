//! ONNX models: two small ones, which `make_models.py` has made together with what onnxruntime answers. A
//! real one: `tests/clients/run`.

#![allow(clippy::unwrap_used, reason = "the helpers of a test fail with it")]

use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use gradmesh::onnx::OnnxModel;
use gradmesh_actors::datatype::Datatype;
use gradmesh_actors::tensor::Tensor;
use gradmesh_actors::tensor_model::TensorModel;
use serde_json::Value;

const LINEAR: &[u8] = include_bytes!("linear_softmax.onnx");
const TWO_INPUTS: &[u8] = include_bytes!("two_inputs.onnx");

fn read(file: &'static [u8]) -> OnnxModel {
    OnnxModel::read(&Bytes::from_static(file)).unwrap()
}

fn golden() -> Value {
    serde_json::from_str(include_str!("golden.json")).unwrap()
}

/// Numbers of nested arrays, row-major.
fn numbers(value: &Value) -> Vec<f64> {
    match value {
        Value::Array(values) => values.iter().flat_map(numbers).collect(),
        number => vec![number.as_f64().unwrap()],
    }
}

fn f32s(value: &Value) -> Vec<f32> {
    numbers(value).into_iter().map(|number| number as f32).collect()
}

fn tensor(datatype: Datatype, shape: &[usize], values: &Value) -> Tensor {
    let bytes: Vec<u8> = match datatype {
        Datatype::Fp32 => f32s(values).iter().flat_map(|value| value.to_le_bytes()).collect(),
        Datatype::Int64 => {
            numbers(values).iter().flat_map(|&value| (value as i64).to_le_bytes()).collect()
        }
        Datatype::Int32 => {
            numbers(values).iter().flat_map(|&value| (value as i32).to_le_bytes()).collect()
        }
        other => panic!("no {other} here"),
    };
    Tensor::new(datatype, shape.to_vec(), bytes.into()).unwrap()
}

fn close(got: &[f32], expected: &[f32]) {
    assert_eq!(got.len(), expected.len());
    let far = std::iter::zip(got, expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(far <= 1e-4, "{far}");
}

#[test]
fn a_model_says_what_it_takes_and_leaves_the_number_of_rows_open() {
    let told = |model: &OnnxModel| {
        let ports = model.signature().inputs.iter().chain(&model.signature().outputs);
        ports.map(ToString::to_string).collect::<Vec<_>>().join(", ")
    };
    assert_eq!(told(&read(LINEAR)), "\"x\" FP32 [any, 4], \"probs\" FP32 [any, 3]");
    assert_eq!(
        told(&read(TWO_INPUTS)),
        "\"ids\" INT64 [any, 2], \"weights\" FP32 [any, 3], \"total\" INT64 [any, 1], \"score\" FP32 [any, 5]"
    );
}

#[test]
fn a_model_answers_what_onnxruntime_answers_for_any_number_of_rows() {
    let (model, golden) = (read(LINEAR), golden());
    let (x, expected) = (&golden["linear_softmax"]["x"], f32s(&golden["linear_softmax"]["probs"]));
    let all = model.run(vec![tensor(Datatype::Fp32, &[3, 4], x)]).unwrap();
    assert_eq!(all[0].shape(), [3, 3]);
    close(&all[0].f32s(), &expected);
    for (row, expected) in expected.chunks(3).enumerate() {
        let alone = model.run(vec![tensor(Datatype::Fp32, &[1, 4], &x[row])]).unwrap();
        close(&alone[0].f32s(), expected);
    }
}

#[test]
fn inputs_and_outputs_of_several_datatypes_keep_their_order() {
    let (model, golden) = (read(TWO_INPUTS), golden());
    let case = &golden["two_inputs"];
    let ids = tensor(Datatype::Int64, &[3, 2], &case["ids"]);
    let weights = tensor(Datatype::Fp32, &[3, 3], &case["weights"]);
    let outputs = model.run(vec![ids, weights]).unwrap();
    let total: Vec<u8> =
        numbers(&case["total"]).iter().flat_map(|&total| (total as i64).to_le_bytes()).collect();
    assert_eq!(outputs[0].bytes(), &total);
    close(&outputs[1].f32s(), &f32s(&case["score"]));
}

#[test]
fn what_is_no_model_is_refused_with_a_reason() {
    let refused = |bytes: Vec<u8>| OnnxModel::read(&bytes.into()).unwrap_err().to_string();
    assert!(refused(b"not a model at all".to_vec()).starts_with("the file is no ONNX model: "));
    // An output that no node makes, at which the reader itself panics.
    let named = LINEAR.windows(5).rposition(|name| name == b"probs").unwrap();
    let mut dangling = LINEAR.to_vec();
    dangling[named] = b'q';
    assert!(!refused(dangling).is_empty());
    for cut in [0, 1, 40, LINEAR.len() - 1] {
        assert!(!refused(LINEAR[..cut].to_vec()).is_empty(), "{cut}");
    }
}

#[test]
fn an_input_that_the_model_has_no_answer_to_is_an_error() {
    let model = read(TWO_INPUTS);
    let ids = tensor(Datatype::Int64, &[1, 2], &serde_json::json!([0, 99]));
    let weights = tensor(Datatype::Fp32, &[1, 3], &serde_json::json!([1, 2, 3]));
    // The table has four rows.
    let run = AssertUnwindSafe(|| model.run(vec![ids, weights]));
    let answer = catch_unwind(run);
    assert!(!matches!(answer, Ok(Ok(_))), "{answer:?}");
}
