use super::*;
use crate::datatype::Datatype;

fn port(name: &str, datatype: Datatype, shape: &[Option<usize>]) -> Port {
    Port { name: name.into(), datatype, shape: shape.to_vec() }
}

/// A classifier of rows.
fn classifier(features: usize, classes: usize) -> Signature {
    Signature {
        inputs: vec![port("input", Datatype::Fp32, &[None, Some(features)])],
        outputs: vec![port("output", Datatype::Fp32, &[None, Some(classes)])],
    }
}

fn spec(text: &str) -> PipelineSpec {
    serde_json::from_str(text).unwrap()
}

const IMAGE: &str = r#"{"kind": "model", "model": "image", "version": "production",
    "inputs": {"input": "pixels"}, "outputs": {"output": "by_image"}}"#;
const HASH: &str = r#"{"kind": "hash-text", "of": "name", "buckets": 8, "as": "words"}"#;
const TEXT: &str = r#"{"kind": "model", "model": "text",
    "inputs": {"input": "words"}, "outputs": {"output": "by_text"}}"#;
const AVERAGE: &str = r#"{"kind": "average", "of": ["by_image", "by_text"], "as": "both"}"#;

fn of(steps: &[&str], outputs: &str) -> PipelineSpec {
    spec(&format!(r#"{{"outputs": {outputs}, "steps": [{}]}}"#, steps.join(", ")))
}

fn refused(spec: &PipelineSpec) -> String {
    Plan::new(spec, &[classifier(4, 3), classifier(8, 3)]).unwrap_err().to_string()
}

#[test]
fn what_no_step_makes_is_an_input_and_comes_first() {
    let spec = of(&[IMAGE, HASH, TEXT, AVERAGE], r#"["both", "by_text"]"#);
    let plan = Plan::new(&spec, &[classifier(4, 3), classifier(8, 3)]).unwrap();
    let expected = Signature {
        inputs: vec![
            port("pixels", Datatype::Fp32, &[None, Some(4)]),
            port("name", Datatype::Bytes, &[None]),
        ],
        outputs: vec![
            port("both", Datatype::Fp32, &[None, Some(3)]),
            port("by_text", Datatype::Fp32, &[None, Some(3)]),
        ],
    };
    assert_eq!(plan.signature, expected);
    assert_eq!(plan.places, 6);
    let text = Operation::HashText { of: 1, buckets: 8, to: 3 };
    let step = Planned { name: "step 2 (hash-text)".into(), operation: text, frees: vec![1] };
    assert_eq!(plan.steps[1], step);
    // The words are needed by the text's model alone, its answer by the caller too.
    assert_eq!((&plan.steps[2].frees[..], &plan.steps[3].frees[..]), (&[3][..], &[2][..]));
    let how = Fusion::Average(vec![1.0, 1.0]);
    assert_eq!(plan.steps[3].operation, Operation::Fuse { how, of: vec![2, 4], to: 5 });
    assert_eq!(plan.outputs, [5, 4]);
}

#[test]
fn an_input_that_two_steps_take_is_what_both_need() {
    let first = r#"{"kind": "concatenate", "of": ["x"], "as": "same"}"#;
    let second =
        r#"{"kind": "model", "model": "m", "inputs": {"input": "x"}, "outputs": {"output": "y"}}"#;
    let spec = of(&[first, second], r#"["same", "y"]"#);
    let plan = Plan::new(&spec, &[classifier(4, 3)]).unwrap();
    assert_eq!(plan.signature.inputs, [port("x", Datatype::Fp32, &[None, Some(4)])]);
}

#[test]
fn what_a_later_step_says_of_an_input_holds_for_the_earlier_ones_too() {
    let average =
        |of: &str, name: &str| format!(r#"{{"kind": "average", "of": {of}, "as": "{name}"}}"#);
    let (first, last) = (average(r#"["x", "y"]"#, "z"), average(r#"["w", "z"]"#, "o"));
    let model = |input: &str, output: &str| {
        format!(
            r#"{{"kind": "model", "model": "m", "inputs": {{"input": "{input}"}}, "outputs": {{"output": "{output}"}}}}"#
        )
    };
    let steps = [first.as_str(), &model("y", "w")];
    let plan = Plan::new(&of(&steps, r#"["z", "w"]"#), &[classifier(4, 3)]).unwrap();
    let widths: Vec<_> = plan.signature.inputs.iter().map(|port| port.shape[1]).collect();
    assert_eq!(widths, [Some(4), Some(4)]);
    assert_eq!(plan.signature.outputs[0].shape, [None, Some(4)]);
    // Then `z` is four wide and `w` three.
    let steps = [first.as_str(), &model("y", "w"), &last];
    let refused = refused(&of(&steps, r#"["o"]"#));
    assert!(refused.starts_with("step 3 (average): \"z\" FP32 [any, 4] does not fit"), "{refused}");
}

#[test]
fn a_tensor_has_a_name() {
    let nameless = HASH.replace("words", "");
    let refused = refused(&of(&[&nameless], r#"[""]"#));
    assert!(refused.contains("step 1 (hash-text): a tensor is called \"\""), "{refused}");
}

#[test]
fn tensors_side_by_side_are_as_wide_as_all_of_them() {
    let both = r#"{"kind": "concatenate", "of": ["by_image", "words"], "as": "both"}"#;
    let plan = Plan::new(&of(&[IMAGE, HASH, both], r#"["both"]"#), &[classifier(4, 3)]).unwrap();
    assert_eq!(plan.signature.outputs[0].shape, [None, Some(11)]);
}

#[test]
fn what_does_not_fit_is_refused_with_the_step() {
    let order = refused(&of(&[TEXT, HASH], r#"["by_text"]"#));
    assert_eq!(
        order,
        "step 1 (text) takes \"words\", which step 2 (hash-text) makes later; put that step before it"
    );
    let width = refused(&of(&[HASH, TEXT], r#"["by_text"]"#));
    assert_eq!(
        width,
        "step 2 (text): \"words\" FP32 [any, 8] does not fit \"input\" FP32 [any, 4]"
    );
    let twice = refused(&of(&[IMAGE, IMAGE], r#"["by_image"]"#));
    assert!(twice.contains("\"by_image\" is made by step 1 (image) already"), "{twice}");
    assert_eq!(refused(&of(&[IMAGE], r#"["pixels"]"#)), "output \"pixels\" is made by no step");
    assert_eq!(
        refused(&of(&[IMAGE], r#"["by_image", "by_image"]"#)),
        "output \"by_image\" is there twice"
    );
    assert!(refused(&of(&[], "[]")).starts_with("it has 0 steps"));
    assert!(refused(&of(&[IMAGE], "[]")).starts_with("it has 1 inputs and 0 outputs"));
}

#[test]
fn ports_that_a_model_does_not_have_are_refused_with_those_it_has() {
    let wrong = IMAGE.replace(r#"{"input":"#, r#"{"pixel":"#);
    let wrong = refused(&of(&[&wrong], r#"["by_image"]"#));
    assert_eq!(wrong, "step 1 (image) has no input \"pixel\"; it has \"input\"");
    let unset = IMAGE.replace(r#"{"input": "pixels"}"#, "{}");
    let unset = refused(&of(&[&unset], r#"["by_image"]"#));
    assert!(unset.contains("its input \"input\" FP32 [any, 4] is given no tensor"), "{unset}");
}

#[test]
fn weights_are_one_for_each_and_above_zero() {
    let weights = |weights: &str| {
        let average = AVERAGE.replace(r#""as""#, &format!(r#""weights": {weights}, "as""#));
        refused(&of(&[IMAGE, HASH, TEXT, &average], r#"["both"]"#))
    };
    assert!(weights("[1]").contains("`weights` has 1 numbers for 2 tensors"));
    assert!(weights("[1, 0]").contains("weight 0 is not a finite number above 0"));
    assert!(weights("[1e308, 1e308]").contains("weight inf is not a finite number above 0"));
    let buckets = HASH.replace("8", "0");
    assert!(refused(&of(&[&buckets], r#"["words"]"#)).contains("`buckets` is 0"));
}

#[test]
fn keys_that_no_step_has_are_refused() {
    let unknown = r#"{"outputs": [], "steps": [{"kind": "vote", "off": [], "as": "x"}]}"#;
    let refused = serde_json::from_str::<PipelineSpec>(unknown).unwrap_err().to_string();
    assert!(refused.contains("off"), "{refused}");
}

#[test]
fn a_version_is_a_number_an_alias_or_latest() {
    let named = |version: &str| {
        let step = IMAGE.replace(r#""production""#, version);
        serde_json::from_str::<PipelineSpec>(&format!(r#"{{"outputs": [], "steps": [{step}]}}"#))
    };
    for (written, meant) in [("3", "3"), (r#""3""#, "3"), (r#""best""#, "best")] {
        let spec = named(written).unwrap();
        assert_eq!(spec.members().next().unwrap().1.to_string(), meant);
    }
    let refused = named("-1").unwrap_err().to_string();
    assert!(refused.contains("`version` is a number, an alias or latest"), "{refused}");
}

#[test]
fn members_are_pinned_in_the_order_of_their_steps() {
    let pinned = of(&[IMAGE, HASH, TEXT, AVERAGE], r#"["both"]"#).pinned([3, 7]);
    let named: Vec<String> =
        pinned.members().map(|(model, version)| format!("{model} {version}")).collect();
    assert_eq!(named, ["image 3", "text 7"]);
}
