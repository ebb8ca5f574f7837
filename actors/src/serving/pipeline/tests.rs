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
    let spec: PipelineSpec = serde_json::from_str(STEPS).unwrap();
    let signatures: Vec<_> =
        members.iter().map(|member| signature_of(&member.description)).collect();
    let mut new = new_version("both", "run");
    new.architecture.kind = crate::pipeline::PIPELINE.to_owned();
    new.tensors.clear();
    new.signature = Some(Plan::new(&spec, &signatures).unwrap().signature);
    new.made_of = members.iter().map(|member| member.description.as_member()).collect();
    change(&mut new);
    let file = Some(Bytes::from_static(STEPS.as_bytes()));
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
