//! Shapes that a model computes from its inputs' shapes.
//!
//! TensorFlow and JAX write such computations in int32, and "to the end" as 10⁹ or the largest int32.
//! `tract` follows an open dimension through int64 alone, and knows the largest int64 as an end; so
//! the part of a graph that only counts is rewritten to int64 before it is read.

use std::collections::BTreeSet;

use tract_onnx::pb::{ModelProto, NodeProto, TensorProto};

/// Datatypes of `onnx.proto`.
const INT32: i32 = 6;
const INT64: i32 = 7;
/// An end that is beyond each tensor.
const BEYOND: i64 = 1_000_000_000;

pub(super) fn keep_shapes_open(model: &mut ModelProto) {
    let Some(graph) = &mut model.graph else { return };
    let slices = graph.node.iter().filter(|node| node.op_type == "Slice");
    let ends: BTreeSet<String> = slices.filter_map(|node| node.input.get(2).cloned()).collect();
    let only_end = |name: &String| {
        let mut uses = graph.node.iter().flat_map(|node| {
            node.input.iter().enumerate().map(move |(at, input)| (node, at, input))
        });
        uses.all(|(node, at, input)| input != name || (node.op_type == "Slice" && at == 2))
    };
    let ends: BTreeSet<String> = ends.into_iter().filter(only_end).collect();
    graph.initializer.iter_mut().filter(|tensor| ends.contains(&tensor.name)).for_each(open_end);
    let results: BTreeSet<String> = graph.output.iter().map(|output| output.name.clone()).collect();
    let mut counts = BTreeSet::new();
    for node in &mut graph.node {
        if counts_only(node, &counts) && widened(node, &results) {
            counts.extend(node.output.iter().cloned());
        }
    }
}

/// Whether a node computes with lengths. `counts`: what nodes before it did.
fn counts_only(node: &NodeProto, counts: &BTreeSet<String>) -> bool {
    match node.op_type.as_str() {
        "Shape" | "Size" => true,
        "Cast" | "Slice" | "Squeeze" | "Unsqueeze" | "Gather" | "Identity" | "Reshape"
        | "ReduceProd" => node.input.first().is_some_and(|input| counts.contains(input)),
        "Concat" | "Add" | "Sub" | "Mul" | "Div" | "Max" | "Min" => {
            node.input.iter().any(|input| counts.contains(input))
        }
        _ => false,
    }
}

/// Makes a cast to int32 one to int64; whether the node's output is int64.
fn widened(node: &mut NodeProto, results: &BTreeSet<String>) -> bool {
    if node.op_type != "Cast" {
        return true;
    }
    // What the model answers keeps its datatype.
    let answered = node.output.iter().any(|output| results.contains(output));
    match node.attribute.iter_mut().find(|attribute| attribute.name == "to") {
        Some(to) if to.i == i64::from(INT32) && !answered => {
            to.i = i64::from(INT64);
            true
        }
        Some(to) => to.i == i64::from(INT64),
        None => false,
    }
}

/// Ends beyond each tensor become the largest int64.
fn open_end(tensor: &mut TensorProto) {
    let raw = &tensor.raw_data;
    let values: Vec<i64> = match (tensor.data_type, raw.is_empty()) {
        (INT32, false) => {
            raw.as_chunks().0.iter().map(|&bytes| i32::from_le_bytes(bytes).into()).collect()
        }
        (INT32, true) => tensor.int32_data.iter().map(|&value| value.into()).collect(),
        (INT64, false) => {
            raw.as_chunks().0.iter().map(|&bytes| i64::from_le_bytes(bytes)).collect()
        }
        (INT64, true) => tensor.int64_data.clone(),
        _ => return,
    };
    if values.iter().all(|&value| value < BEYOND) {
        return;
    }
    let open = |value: i64| if value >= BEYOND { i64::MAX } else { value };
    tensor.data_type = INT64;
    tensor.int32_data.clear();
    tensor.int64_data.clear();
    tensor.raw_data = values.into_iter().flat_map(|value| open(value).to_le_bytes()).collect();
}
