//! A small random model of the BERT family, which `make_model.py` has made together with what a
//! computation of its own answers. A real one: `tests/clients/run`.

#![allow(clippy::unwrap_used, reason = "the helpers of a test fail with it")]

use std::fs;
use std::path::Path;

use gradmesh::bert::{BertModel, pack};
use gradmesh_actors::tensor::Tensor;
use gradmesh_actors::tensor_model::{RunError, TensorModel};
use serde::Deserialize;

#[derive(Deserialize)]
struct Golden {
    text: String,
    ids: Vec<u32>,
    embedding: Vec<f32>,
}

fn golden() -> Vec<Golden> {
    serde_json::from_str(include_str!("golden.json")).unwrap()
}

fn folder() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/bert/tiny"))
}

fn model() -> BertModel {
    BertModel::read(&pack(folder()).unwrap().into()).unwrap()
}

fn texts(texts: &[&[u8]]) -> Vec<Tensor> {
    vec![Tensor::of_strings(vec![texts.len()], texts.iter().copied()).unwrap()]
}

#[test]
fn embeddings_and_numbers_of_tokens_are_those_of_the_model_s_makers() {
    let model = model();
    let told: Vec<_> = model.signature().outputs.iter().map(ToString::to_string).collect();
    assert_eq!(told, ["\"embedding\" FP32 [any, 32]", "\"tokens\" INT64 [any]"]);
    for Golden { text, ids, embedding } in golden() {
        let answer = model.run(texts(&[text.as_bytes()])).unwrap();
        let got = answer[0].f32s();
        let far = std::iter::zip(&*got, &embedding).map(|(a, b)| (a - b).abs());
        let far = far.fold(0.0, f32::max);
        assert!(far < 1e-4, "{text:?}: {far}");
        assert_eq!(**answer[1].bytes(), (ids.len() as i64).to_le_bytes(), "{text:?}");
    }
}

#[test]
fn a_text_has_the_same_bits_whatever_texts_come_with_it() {
    let (model, golden) = (model(), golden());
    let all: Vec<&[u8]> = golden.iter().map(|case| case.text.as_bytes()).collect();
    let together = model.run(texts(&all)).unwrap();
    let mut alone = Vec::new();
    for text in &all {
        alone.extend_from_slice(model.run(texts(&[text])).unwrap()[0].bytes());
    }
    assert_eq!(**together[0].bytes(), alone);
}

#[test]
fn a_text_that_is_too_long_or_no_text_is_refused_with_its_number() {
    let model = model();
    let long = "today ".repeat(100);
    let refused = |wrong: &[u8]| match model.run(texts(&[b"today", wrong])).unwrap_err() {
        RunError::Input { cause } => cause,
        other => panic!("{other}"),
    };
    assert_eq!(
        refused(long.as_bytes()),
        "text 1: it has 102 tokens, it can have 1 to 64; send a part"
    );
    assert!(refused(b"\xff").starts_with("text 1: invalid utf-8"));
    assert_eq!(model.run(texts(&[])).unwrap()[0].shape(), [0, 32]);
    assert!(model.run(texts(&[b""])).is_ok(), "the two marks are tokens");
}

#[test]
fn a_folder_gives_the_same_bytes_each_time_and_one_that_is_no_such_model_says_why() {
    assert_eq!(pack(folder()).unwrap(), pack(folder()).unwrap());
    let other = tempfile::tempdir().unwrap();
    for file in ["config.json", "tokenizer.json", "model.safetensors"] {
        fs::copy(folder().join(file), other.path().join(file)).unwrap();
    }
    assert!(pack(other.path()).is_ok(), "a folder without a pooling takes the mean");
    let refused = |file: &str, content: &str| {
        let path = other.path().join(file);
        let before = fs::read(&path).unwrap();
        fs::write(&path, content).unwrap();
        let refused = pack(other.path()).map_err(|error| error.to_string()).and_then(|packed| {
            BertModel::read(&packed.into()).map(drop).map_err(|error| error.to_string())
        });
        fs::write(&path, before).unwrap();
        refused.unwrap_err()
    };
    assert!(refused("config.json", "{}").starts_with("config.json can't be read"));
    let gpt = "{\"model_type\": \"gpt2\"}";
    assert_eq!(refused("config.json", gpt), "a \"gpt2\" model is not of the BERT family");
    assert!(refused("tokenizer.json", "{}").starts_with("the tokenizer can't be read"));
    assert!(refused("model.safetensors", "no").starts_with("model.safetensors can't be read"));
    let config = fs::read_to_string(folder().join("config.json")).unwrap();
    let wider = config.replace("\"hidden_size\": 32", "\"hidden_size\": 64");
    assert!(refused("config.json", &wider).starts_with("a tensor has a shape"), "{wider}");
    let relu = config.replace("\"gelu\"", "\"relu\"");
    assert!(refused("config.json", &relu).contains("hidden_act relu"));
    fs::remove_file(other.path().join("tokenizer.json")).unwrap();
    assert!(pack(other.path()).unwrap_err().to_string().starts_with("tokenizer.json: "));
}
