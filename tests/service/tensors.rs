//! Models that were imported: any number of named tensors, of any datatype, in and out.

use std::sync::Arc;

use bytes::Bytes;
use gradmesh_actors::datatype::Datatype;
use gradmesh_actors::messages::PublishModel;
use gradmesh_actors::model::{ModelDescription, ModelKinds};
use gradmesh_actors::new_version::NewVersion;
use gradmesh_actors::tensor::Tensor;
use gradmesh_actors::tensor_model::{Port, RunError, Signature, TensorModel};
use serde_json::{Value, json};

use crate::support::{Server, error, sum};

/// Answers how long each text is, and the numbers of each row added up and multiplied by the first byte
/// of its file. It refuses the text `refuse`, panics at `panic`, and forgets an output at `forget`.
#[derive(Debug)]
struct Measure {
    signature: Signature,
    factor: f32,
}

fn signature() -> Signature {
    let port = |name: &str, datatype, shape: &[Option<usize>]| Port {
        name: name.into(),
        datatype,
        shape: shape.to_vec(),
    };
    Signature {
        inputs: vec![
            port("text", Datatype::Bytes, &[None]),
            port("numbers", Datatype::Fp64, &[None, Some(2)]),
        ],
        outputs: vec![
            port("sum", Datatype::Fp32, &[None, Some(1)]),
            port("length", Datatype::Int64, &[None]),
        ],
    }
}

impl TensorModel for Measure {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn run(&self, inputs: Vec<Tensor>) -> Result<Vec<Tensor>, RunError> {
        let texts: Vec<&[u8]> = inputs[0].strings().collect();
        if texts.contains(&&b"refuse"[..]) {
            let cause = "it does not like this text".into();
            return Err(RunError::Input { cause });
        }
        assert!(!texts.contains(&&b"panic"[..]), "it knows this text");
        let lengths: Vec<u8> =
            texts.iter().flat_map(|text| (text.len() as i64).to_le_bytes()).collect();
        let numbers = inputs[1].to_f32().unwrap();
        let sums: Vec<f32> = numbers.chunks(2).map(|row| (row[0] + row[1]) * self.factor).collect();
        let rows = sums.len();
        let mut outputs = vec![
            Tensor::of_values(sums.into(), rows, 1).unwrap(),
            Tensor::new(Datatype::Int64, vec![texts.len()], lengths.into()).unwrap(),
        ];
        if texts.contains(&&b"forget"[..]) {
            outputs.pop();
        }
        Ok(outputs)
    }
}

pub(crate) fn register(kinds: &mut ModelKinds) {
    kinds.register_imported("measure", |_, file| match file.first() {
        Some(&factor) if factor > 0 => {
            Ok(Arc::new(Measure { signature: signature(), factor: factor.into() }))
        }
        _ => Err("it begins with zero".into()),
    });
}

fn imported(file: &'static [u8], run: &str) -> PublishModel {
    let sum = sum(run, 1.0).description;
    let description = NewVersion {
        model: "measure".into(),
        architecture: ModelDescription { kind: "measure".into(), settings: Value::Null },
        tensors: Vec::new(),
        features: 0,
        outputs: 0,
        signature: Some(signature()),
        made_of: Vec::new(),
        parent: None,
        ..sum
    };
    PublishModel { description, tensors: Vec::new(), file: Some(Bytes::from_static(file)) }
}

fn start() -> Server {
    let server = Server::start();
    publish(&server, imported(&[2], "x")).unwrap();
    server
}

fn publish(server: &Server, message: PublishModel) -> Result<u64, String> {
    let registry = server.registry.clone();
    let published =
        actix_rt::System::new().block_on(async { registry.send(message).await.unwrap() });
    published.map(|published| published.version).map_err(|error| error.to_string())
}

fn text(texts: &[&str]) -> Value {
    json!({ "name": "text", "datatype": "BYTES", "shape": [texts.len()], "data": texts })
}

fn numbers(values: &[f64]) -> Value {
    let shape = [values.len() / 2, 2];
    json!({ "name": "numbers", "datatype": "FP64", "shape": shape, "data": values })
}

#[test]
fn a_model_of_several_tensors_says_what_they_are() {
    let server = start();
    let (status, about) = server.get("/v2/models/measure");
    assert_eq!(status, 200, "{about}");
    let tensor = |name: &str, datatype: &str, shape: Value| json!({ "name": name, "datatype": datatype, "shape": shape });
    assert_eq!(
        about["inputs"],
        json!([tensor("text", "BYTES", json!([-1])), tensor("numbers", "FP64", json!([-1, 2]))])
    );
    assert_eq!(
        about["outputs"],
        json!([tensor("sum", "FP32", json!([-1, 1])), tensor("length", "INT64", json!([-1]))])
    );
    assert_eq!(about["properties"]["kind"], "measure");
    let (_, config) = server.get("/v2/models/measure/config");
    assert_eq!(config["input"][0]["data_type"], "TYPE_STRING");
    assert_eq!(config["input"][0]["dims"], json!([1]));
    assert_eq!(config["input"][1]["dims"], json!([2]));
    assert!(config["max_batch_size"].as_i64().unwrap() > 0);
}

#[test]
fn inputs_of_any_order_are_answered_with_the_outputs_that_are_asked_for() {
    let server = start();
    let inputs = json!([numbers(&[1.0, 2.0, 3.0, 4.5]), text(&["four", "é"])]);
    let (status, answer) = server.infer("measure", &json!({ "inputs": inputs }));
    assert_eq!(status, 200, "{answer}");
    assert_eq!(
        (&answer["model_version"], &answer["parameters"]["digest"]),
        (&json!("1"), &json!("state of x"))
    );
    assert_eq!(answer["outputs"][0]["data"], json!([6.0, 15.0]));
    assert_eq!(answer["outputs"][1]["data"], json!([4, 2]));
    let one = json!({ "inputs": inputs, "outputs": [{ "name": "length" }] });
    let (_, answer) = server.infer("measure", &one);
    assert_eq!(answer["outputs"].as_array().unwrap().len(), 1);
    let unknown = json!({ "inputs": inputs, "outputs": [{ "name": "width" }] });
    let told = "measure has no output \"width\"; it has sum, length";
    assert_eq!(server.infer("measure", &unknown), (400, error(told)));
    let largest = json!({ "inputs": inputs, "outputs": [{ "name": "length", "parameters": { "classification": 1 } }] });
    assert_eq!(server.infer("measure", &largest).0, 400);
}

#[test]
fn raw_tensors_come_and_go_beside_json() {
    let server = start();
    let numbers: Vec<u8> = [1.0f64, 2.0].iter().flat_map(|number| number.to_le_bytes()).collect();
    let head = json!({
        "inputs": [
            text(&["abc"]),
            { "name": "numbers", "datatype": "FP64", "shape": [1, 2], "parameters": { "binary_data_size": 16 } },
        ],
        "outputs": [{ "name": "length", "parameters": { "binary_data": true } }],
    });
    let head = head.to_string();
    let body = [head.as_bytes(), &numbers].concat();
    let answer = server.binary("/v2/models/measure/infer", &head.len().to_string(), &body);
    assert_eq!(answer.status, 200, "{:?}", answer.json);
    assert_eq!(answer.tensors, 3i64.to_le_bytes());
}

#[test]
fn inputs_that_do_not_fit_are_refused_with_what_the_model_takes() {
    let server = start();
    let takes = "the model takes \"text\" BYTES [any], \"numbers\" FP64 [any, 2]";
    let other = json!({ "name": "x", "datatype": "FP32", "shape": [1], "data": [1] });
    let single = json!({ "name": "numbers", "datatype": "FP32", "shape": [1, 2], "data": [1, 2] });
    let wide = json!({ "name": "numbers", "datatype": "FP64", "shape": [1, 3], "data": [1, 2, 3] });
    let row = || numbers(&[1.0, 2.0]);
    for (inputs, told) in [
        (json!([row()]), format!("input \"text\" is missing; {takes}")),
        (json!([row(), text(&["a"]), other]), format!("no input \"x\"; {takes}")),
        (json!([row(), row(), text(&["a"])]), "input \"numbers\" is there twice".to_owned()),
        (json!([single, text(&["a"])]), "\"numbers\" has datatype FP32, it is FP64".to_owned()),
        (json!([wide, text(&["a"])]), "\"numbers\" has shape [1, 3], it is [any, 2]".to_owned()),
    ] {
        assert_eq!(server.infer("measure", &json!({ "inputs": inputs })), (400, error(&told)));
    }
    let (status, answer) =
        server.infer("measure", &json!({ "inputs": [row(), text(&["refuse"])] }));
    assert_eq!((status, answer), (400, error("it does not like this text")));
}

#[test]
fn a_model_that_panics_or_answers_something_else_is_an_error_of_that_version_alone() {
    let server = start();
    let ask = |word: &str| {
        let inputs = json!([numbers(&[1.0, 2.0]), text(&[word])]);
        server.infer("measure", &json!({ "inputs": inputs }))
    };
    for (word, told) in [
        ("panic", "version 1 of measure failed: it panicked: it knows this text"),
        ("forget", "version 1 of measure failed: the model answers 1 outputs, it has 2"),
    ] {
        assert_eq!(ask(word), (500, error(told)));
        assert_eq!(ask("fine").0, 200);
    }
    server.still_answers();
}

#[test]
fn a_file_that_its_kind_refuses_is_published_and_not_served_and_one_without_a_file_is_not_published()
 {
    let server = start();
    assert_eq!(publish(&server, imported(&[0], "y")), Ok(2));
    let inputs = json!([numbers(&[1.0, 2.0]), text(&["a"])]);
    let (status, answer) = server.infer("measure", &json!({ "inputs": inputs }));
    assert_eq!(status, 500, "{answer}");
    let told = "version 2 of measure can't be loaded: the measure model can't be read: it begins with zero";
    assert_eq!(answer, error(told));
    let one = "/v2/models/measure/versions/1/infer";
    assert_eq!(server.post(one, &json!({ "inputs": inputs })).0, 200);
    for message in [
        PublishModel { file: None, ..imported(&[2], "z") },
        PublishModel { file: Some(Bytes::from_static(&[1])), ..sum("z", 1.0) },
    ] {
        assert!(publish(&server, message).is_err());
    }
}
