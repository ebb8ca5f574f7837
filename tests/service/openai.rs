//! Text embeddings as clients of OpenAI ask for them. What its client itself does: `tests/clients/run`.

use std::sync::Arc;

use bytes::Bytes;
use gradmesh_actors::datatype::Datatype;
use gradmesh_actors::messages::PublishModel;
use gradmesh_actors::model::{ModelDescription, ModelKinds};
use gradmesh_actors::tensor::Tensor;
use gradmesh_actors::tensor_model::{Port, RunError, Signature, TensorModel};
use serde_json::{Value, json};

use crate::support::{Server, sum};

/// Embeds a text as its length and half of it, a token each byte; it refuses texts of a hundred bytes.
#[derive(Debug)]
struct Length(Signature);

fn signature() -> Signature {
    let port = |name: &str, datatype, shape: &[Option<usize>]| Port {
        name: name.into(),
        datatype,
        shape: shape.to_vec(),
    };
    Signature {
        inputs: vec![port("words", Datatype::Bytes, &[None])],
        outputs: vec![
            port("count", Datatype::Int64, &[None]),
            port("vector", Datatype::Fp32, &[None, Some(2)]),
        ],
    }
}

impl TensorModel for Length {
    fn signature(&self) -> &Signature {
        &self.0
    }

    fn run(&self, inputs: Vec<Tensor>) -> Result<Vec<Tensor>, RunError> {
        let lengths: Vec<usize> = inputs[0].strings().map(<[u8]>::len).collect();
        if lengths.contains(&100) {
            return Err(RunError::Input { cause: "a text is too long".into() });
        }
        let counts: Vec<u8> =
            lengths.iter().flat_map(|&length| (length as i64).to_le_bytes()).collect();
        let values: Vec<f32> =
            lengths.iter().flat_map(|&length| [length as f32, length as f32 / 2.0]).collect();
        Ok(vec![
            Tensor::new(Datatype::Int64, vec![lengths.len()], counts.into()).unwrap(),
            Tensor::of_values(values.into(), lengths.len(), 2).unwrap(),
        ])
    }
}

pub(crate) fn register(kinds: &mut ModelKinds) {
    kinds.register_imported("length", |_, _| Ok(Arc::new(Length(signature()))));
}

fn start() -> Server {
    let server = Server::start();
    let mut publish: PublishModel = sum("x", 1.0);
    publish.description.model = "length".into();
    publish.description.architecture =
        ModelDescription { kind: "length".into(), settings: Value::Null };
    publish.description.signature = Some(signature());
    publish.description.tensors = Vec::new();
    (publish.tensors, publish.file) = (Vec::new(), Some(Bytes::from_static(b"x")));
    let registry = server.registry.clone();
    actix_rt::System::new().block_on(async { registry.send(publish).await.unwrap().unwrap() });
    server
}

fn embed(server: &Server, body: Value) -> (u16, Value) {
    server.post("/v1/embeddings", &body)
}

#[test]
fn each_text_has_a_vector_as_numbers_or_as_base64() {
    let server = start();
    let (status, answer) = embed(&server, json!({ "model": "length", "input": ["four", "é"] }));
    assert_eq!(status, 200, "{answer}");
    let one = |index: usize, embedding: Value| json!({ "object": "embedding", "index": index, "embedding": embedding });
    assert_eq!(
        answer,
        json!({
            "object": "list",
            "model": "length",
            "data": [one(0, json!([4.0, 2.0])), one(1, json!([2.0, 1.0]))],
            "usage": { "prompt_tokens": 6, "total_tokens": 6 },
        })
    );
    let packed =
        json!({ "model": "length", "input": "four", "encoding_format": "base64", "user": "x" });
    // 4 and 2 as FP32, little-endian.
    assert_eq!(embed(&server, packed).1["data"][0]["embedding"], "AACAQAAAAEA=");
    let counted = server.agent().get(server.url("/metrics")).call().unwrap();
    let page = counted.into_body().read_to_string().unwrap();
    assert!(page.contains("model=\"length\""), "{page}");
}

#[test]
fn what_can_not_be_embedded_is_refused_in_openais_form() {
    let server = start();
    for (body, status, code) in [
        (json!({ "model": "none", "input": "a" }), 404, Some("model_not_found")),
        (json!({ "model": "sum", "input": "a" }), 400, None),
        (json!({ "model": "length", "input": [] }), 400, None),
        (json!({ "model": "length", "input": [1, 2] }), 400, None),
        (json!({ "model": "length", "input": [[1], [2]] }), 400, None),
        (json!({ "model": "length", "input": { "text": "a" } }), 400, None),
        (json!({ "model": "length", "input": "a", "dimensions": 3 }), 400, None),
        (json!({ "model": "length", "input": "a", "encoding_format": "int8" }), 400, None),
        (json!({ "model": "length", "input": "a".repeat(100) }), 400, None),
        (json!({ "input": "a" }), 400, None),
        (json!([]), 400, None),
    ] {
        let (got, answer) = embed(&server, body.clone());
        assert_eq!(got, status, "{body}: {answer}");
        let error = &answer["error"];
        assert_eq!(error["code"], json!(code), "{body}");
        assert_eq!(error["type"], "invalid_request_error", "{body}");
        assert!(!error["message"].as_str().unwrap().is_empty());
    }
    for (path, code) in
        [("/v1/none", None), ("/v1/embeddings", None), ("/v1/models/none", Some("model_not_found"))]
    {
        let (status, answer) = server.get(path);
        assert_eq!((status, &answer["error"]["code"]), (404, &json!(code)), "{path}");
    }
}

#[test]
fn models_are_listed_with_the_time_of_their_newest_version() {
    let server = start();
    let (_, listed) = server.get("/v1/models");
    let names: Vec<_> = listed["data"].as_array().unwrap().iter().map(|m| &m["id"]).collect();
    assert_eq!(names, ["length", "pick", "sum"]);
    let (_, one) = server.get("/v1/models/sum");
    assert_eq!(
        one,
        json!({ "id": "sum", "object": "model", "created": 0, "owned_by": "gradmesh" })
    );
}
