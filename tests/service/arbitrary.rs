//! Whatever is sent, the answer is no 5xx, and the next request is answered.

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::support::{Server, sentence};

/// Requests that are nearly right: JSON of the protocol's words with other values.
fn nearly() -> impl Strategy<Value = Value> {
    let datatype = prop::sample::select(vec!["FP32", "FP16", "BYTES", "BOOL", "INT64", "x"]);
    let dim = prop_oneof![Just(json!(1)), Just(json!(2)), Just(json!(-1)), Just(json!(u64::MAX))];
    let shape = prop::collection::vec(dim, 0..4);
    let value = prop_oneof![
        any::<f32>().prop_map(|value| json!(value)),
        any::<i64>().prop_map(|value| json!(value)),
        any::<bool>().prop_map(|value| json!(value)),
        ".{0,3}".prop_map(|value| json!(value)),
        Just(json!([1])),
        Just(Value::Null),
    ];
    let data = prop::option::of(prop::collection::vec(value, 0..4));
    let size = prop::option::of(0usize..20);
    let output = prop::sample::select(vec!["output", "class", "x"]);
    let classes = prop::option::of(-1i64..4);
    (datatype, shape, data, size, output, classes, any::<bool>()).prop_map(
        |(datatype, shape, data, size, output, classes, raw)| {
            let mut input = json!({ "name": "input", "datatype": datatype, "shape": shape });
            if let Some(data) = data {
                input["data"] = json!(data);
            }
            if let Some(size) = size {
                input["parameters"] = json!({ "binary_data_size": size });
            }
            let mut parameters = json!({ "binary_data": raw });
            if let Some(classes) = classes {
                parameters["classification"] = json!(classes);
            }
            let output = json!({ "name": output, "parameters": parameters });
            json!({ "inputs": [input], "outputs": [output] })
        },
    )
}

fn check(server: &Server, path: &str, length: &str, body: &[u8]) -> Result<(), TestCaseError> {
    let answer = server.binary(path, length, body);
    prop_assert!(answer.status < 500, "{}: {}", answer.status, answer.json);
    if answer.status >= 400 {
        sentence(&answer.json);
    }
    Ok(())
}

#[test]
fn arbitrary_bytes_are_refused_as_the_callers_fault() {
    let server = Server::start();
    let bytes = prop::collection::vec(any::<u8>(), 0..200);
    let length = 0usize..220;
    proptest!(ProptestConfig::with_cases(200), |(bytes in bytes, length in length)| {
        check(&server, "/v2/models/pick/infer", &length.to_string(), &bytes)?;
        check(&server, "/v2/repository/index", "0", &bytes)?;
        check(&server, "/v2/repository/models/sum/load", "0", &bytes)?;
        let length = String::from_utf8_lossy(&bytes).replace(|c: char| !c.is_ascii_graphic(), "");
        check(&server, "/v2/models/pick/infer", &length, &bytes)?;
    });
    server.still_answers();
}

#[test]
fn requests_that_are_nearly_right_are_answered_or_refused() {
    let server = Server::start();
    let tail = prop::collection::vec(any::<u8>(), 0..20);
    proptest!(ProptestConfig::with_cases(400), |(request in nearly(), tail in tail)| {
        let json = request.to_string();
        let body = [json.as_bytes(), &tail].concat();
        check(&server, "/v2/models/pick/infer", &json.len().to_string(), &body)?;
    });
    server.still_answers();
}
