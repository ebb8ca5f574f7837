use crate::messages::FetchedModel;
use crate::new_version::NewVersion;
use crate::new_version::tests::{artifact, new_version};
use crate::serving::tests::toy_kinds;

use super::*;

/// The toy of `serving.rs`, which sums two features with these weights.
fn toy(model: &str, version: u64, weights: [f32; 2]) -> Arc<ServedModel> {
    let description = new_version(model, "run").numbered(version, artifact());
    let tensors = vec![weights.to_vec().into()];
    let fetched = FetchedModel { description, tensors, file: None };
    Arc::new(ServedModel::new(&toy_kinds(), fetched, Vec::new()).unwrap())
}

const STEPS: &str = r#"{"outputs": ["mean", "x2"], "steps": [
    {"kind": "model", "model": "a", "version": "1", "inputs": {"input": "xy"}, "outputs": {"output": "x"}},
    {"kind": "model", "model": "b", "version": "2", "inputs": {"input": "xy"}, "outputs": {"output": "y"}},
    {"kind": "concatenate", "of": ["x", "x"], "as": "x2"},
    {"kind": "average", "of": ["x", "y"], "weights": [1, 3], "as": "mean"}
]}"#;

fn pipeline(
    members: &[Arc<ServedModel>],
    change: impl FnOnce(&mut NewVersion),
) -> Result<ServedModel, PredictError> {
    pipeline_of(STEPS, members, change)
}

fn pipeline_of(
    steps: &'static str,
    members: &[Arc<ServedModel>],
    change: impl FnOnce(&mut NewVersion),
) -> Result<ServedModel, PredictError> {
    let spec: PipelineSpec = serde_json::from_str(steps).unwrap();
    let signatures: Vec<_> =
        members.iter().map(|member| signature_of(&member.description)).collect();
    let mut new = new_version("both", "run");
    new.architecture.kind = crate::pipeline::PIPELINE.to_owned();
    new.tensors.clear();
    new.signature = Some(Plan::new(&spec, &signatures).unwrap().signature);
    new.made_of = members.iter().map(|member| member.description.as_member()).collect();
    change(&mut new);
    let file = Some(Bytes::from_static(steps.as_bytes()));
    let description = new.numbered(1, artifact());
    let fetched = FetchedModel { description, tensors: Vec::new(), file };
    ServedModel::new(&toy_kinds(), fetched, members.to_vec())
}

fn members() -> Vec<Arc<ServedModel>> {
    vec![toy("a", 1, [1.0, 0.0]), toy("b", 2, [0.0, 1.0])]
}

fn ask(served: &ServedModel, xy: &[f32]) -> Result<Vec<Vec<f32>>, PredictError> {
    let tensor = Tensor::of_values(xy.to_vec().into(), xy.len() / 2, 2).unwrap();
    let inputs = vec![NamedTensor { name: "xy".into(), tensor }];
    let answer =
        served.predict(vec![Predict::new("both", VersionRef::Latest, inputs)]).remove(0)?;
    Ok(answer.outputs.iter().map(|output| output.tensor.to_f32().unwrap()).collect())
}

#[test]
fn members_answer_and_their_answers_are_fused() {
    let served = pipeline(&members(), |_| {}).unwrap();
    let answers = ask(&served, &[4.0, 8.0, 1.0, 2.0]).unwrap();
    assert_eq!(answers, [vec![7.0, 1.75], vec![4.0, 4.0, 1.0, 1.0]]);
}

#[test]
fn a_member_that_refuses_or_fails_is_named_with_its_step() {
    let served = pipeline(&members(), |_| {}).unwrap();
    let refused = ask(&served, &[f32::NAN, 1.0]).unwrap_err();
    assert!(matches!(refused, PredictError::Input { .. }), "{refused:?}");
    assert!(
        refused.to_string().contains("step 1 (a): feature 0 of row 0 is not a finite"),
        "{refused}"
    );
    assert!(!served.has_panicked());
    let failed = ask(&served, &[13.0, 1.0]).unwrap_err();
    assert!(matches!(failed, PredictError::Model { .. }), "{failed:?}");
    assert!(
        failed.to_string().contains("step 1 (a): version 1 of a failed: it panicked"),
        "{failed}"
    );
    assert!(served.has_panicked(), "its members are loaded again with it");
}

#[test]
fn what_the_steps_of_a_request_hold_is_bounded() {
    assert_eq!(check_held("step 1", HELD_MAX), Ok(()));
    let refused = check_held("step 1", HELD_MAX + 1).unwrap_err().to_string();
    assert!(refused.ends_with("send fewer rows"), "{refused}");
    // 40 x 8 MiB: more than may be held at a time, and never held at a time.
    let step = |at: usize| {
        format!(r#"{{"kind": "hash-text", "of": "text", "buckets": 1024, "as": "w{at}"}}"#)
    };
    let steps = |outputs: &str| {
        let steps: Vec<String> = (0..40).map(step).collect();
        let text = format!(r#"{{"outputs": {outputs}, "steps": [{}]}}"#, steps.join(", "));
        let spec: PipelineSpec = serde_json::from_str(&text).unwrap();
        Pipeline { plan: Plan::new(&spec, &[]).unwrap(), members: Vec::new() }
    };
    let texts = || {
        let texts = vec![&b"a"[..]; 2048];
        vec![Tensor::of_strings(vec![2048], texts).unwrap()]
    };
    assert_eq!(steps(r#"["w0"]"#).run(texts()).unwrap().len(), 1);
    let all: Vec<String> = (0..40).map(|at| format!("w{at}")).collect();
    let all = serde_json::to_string(&all).unwrap();
    assert!(matches!(steps(&all).run(texts()), Err(RunError::Input { .. })));
}

#[test]
fn a_pipeline_of_other_members_or_another_signature_is_not_loaded() {
    let other = vec![toy("a", 1, [1.0, 0.0]), toy("b", 3, [0.0, 1.0])];
    let refused = pipeline(&other, |_| {}).unwrap_err().to_string();
    assert!(refused.ends_with("other versions than its description"), "{refused}");
    let refused = pipeline(&members(), |new| new.signature = None).unwrap_err().to_string();
    assert!(refused.ends_with("another signature than its description"), "{refused}");
}

/// The head has been trained on what the branches say side by side.
const THREE_KINDS: &str = r#"{"outputs": ["answer", "by_table"], "steps": [
    {"kind": "model", "model": "image", "version": "1", "inputs": {"input": "picture"}, "outputs": {"output": "by_image"}},
    {"kind": "hash-text", "of": "name", "buckets": 2, "as": "words"},
    {"kind": "model", "model": "text", "version": "2", "inputs": {"input": "words"}, "outputs": {"output": "by_text"}},
    {"kind": "model", "model": "table", "version": "3", "inputs": {"input": "columns"}, "outputs": {"output": "by_table"}},
    {"kind": "concatenate", "of": ["by_image", "by_text"], "as": "both"},
    {"kind": "model", "model": "head", "version": "4", "inputs": {"input": "both"}, "outputs": {"output": "fused"}},
    {"kind": "average", "of": ["fused", "by_table"], "weights": [3, 1], "as": "answer"}
]}"#;

#[test]
fn pictures_texts_and_rows_of_a_table_go_into_one_answer_through_a_trained_head() {
    let members = [
        toy("image", 1, [1.0, 10.0]),
        toy("text", 2, [1.0, -1.0]),
        toy("table", 3, [0.5, 0.25]),
        toy("head", 4, [2.0, 100.0]),
    ];
    let served = pipeline_of(THREE_KINDS, &members, |_| {}).unwrap();
    let signature = signature_of(&served.description);
    let inputs: Vec<_> = signature.inputs.iter().map(|port| port.name.as_str()).collect();
    assert_eq!(inputs, ["picture", "name", "columns"]);

    let numbers = |name: &str, values: [f32; 4]| {
        let tensor = Tensor::of_values(values.to_vec().into(), 2, 2).unwrap();
        NamedTensor { name: name.to_owned(), tensor }
    };
    let names = ["grinning face", "cat"];
    let texts = Tensor::of_strings(vec![2], names.iter().map(|name| name.as_bytes())).unwrap();
    let inputs = vec![
        numbers("picture", [1.0, 2.0, 3.0, 4.0]),
        NamedTensor { name: "name".to_owned(), tensor: texts },
        numbers("columns", [4.0, 8.0, 0.0, 4.0]),
    ];
    let request = Predict::new("both", VersionRef::Latest, inputs);
    let answer = served.predict(vec![request]).remove(0).unwrap();
    let by_text = names.map(|name| {
        let mut words = [0.0; 2];
        crate::hashing::hash_text(name, &mut words);
        words[0] - words[1]
    });
    let head = |image: f32, text: f32| 2.0 * image + 100.0 * text;
    let fused = [head(21.0, by_text[0]), head(43.0, by_text[1])];
    let expected = [0.75 * fused[0] + 0.25 * 4.0, 0.75 * fused[1] + 0.25 * 1.0];
    assert_eq!(answer.outputs[0].tensor.to_f32().unwrap(), expected);
    assert_eq!(answer.outputs[1].tensor.to_f32().unwrap(), [4.0, 1.0]);
}
