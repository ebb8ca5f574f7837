"""Two tiny ONNX models for tests (no network), their inputs and onnxruntime's outputs.

Usage: pip install onnx onnxruntime numpy; python make_models.py   (writes beside itself)
"""
import json, pathlib
import numpy as np
import onnx
from onnx import TensorProto as T, helper as h, numpy_helper as nh

here = pathlib.Path(__file__).parent
OPSET = [h.make_opsetid("", 13)]


def save(name, graph):
    m = h.make_model(graph, opset_imports=OPSET, ir_version=8, producer_name="gradmesh-test")
    onnx.checker.check_model(m, full_check=True)
    (here / name).write_bytes(m.SerializeToString())
    print(name, (here / name).stat().st_size, "bytes")


# (a) linear + softmax: x f32 [N,4] -> probs f32 [N,3]
W = np.array([[0.5, -0.25, 0.125], [-1.0, 0.75, 0.5], [0.25, 0.5, -0.75], [1.0, -0.5, 0.25]], np.float32)
b = np.array([0.1, -0.2, 0.3], np.float32)
save("linear_softmax.onnx", h.make_graph(
    [h.make_node("Gemm", ["x", "w", "b"], ["logits"]), h.make_node("Softmax", ["logits"], ["probs"], axis=-1)],
    "linear_softmax",
    [h.make_tensor_value_info("x", T.FLOAT, ["N", 4])],
    [h.make_tensor_value_info("probs", T.FLOAT, ["N", 3])],
    [nh.from_array(W, "w"), nh.from_array(b, "b")]))

# (b) ids i64 [N,2], weights f32 [N,3] -> total i64 [N,1] (sum of ids), score f32 [N,5]
#     score = concat(embedding[ids] summed over the 2 ids (2 wide), relu(weights) (3 wide))
E = np.array([[0.0, 1.0], [2.0, -1.0], [0.5, 0.25], [-3.0, 4.0]], np.float32)
save("two_inputs.onnx", h.make_graph(
    [h.make_node("ReduceSum", ["ids", "axis1"], ["total"], keepdims=1),
     h.make_node("Gather", ["table", "ids"], ["rows"], axis=0),
     h.make_node("ReduceSum", ["rows", "axis1"], ["pooled"], keepdims=0),
     h.make_node("Relu", ["weights"], ["gated"]),
     h.make_node("Concat", ["pooled", "gated"], ["score"], axis=1)],
    "two_inputs",
    [h.make_tensor_value_info("ids", T.INT64, ["N", 2]), h.make_tensor_value_info("weights", T.FLOAT, ["N", 3])],
    [h.make_tensor_value_info("total", T.INT64, ["N", 1]), h.make_tensor_value_info("score", T.FLOAT, ["N", 5])],
    [nh.from_array(np.array([1], np.int64), "axis1"), nh.from_array(E, "table")]))

import onnxruntime as ort
golden = {}
x = (np.arange(12, dtype=np.float32).reshape(3, 4) - 5) / 4
s = ort.InferenceSession(str(here / "linear_softmax.onnx"))
golden["linear_softmax"] = {"x": x.tolist(), "probs": s.run(None, {"x": x})[0].tolist()}
ids = np.array([[0, 1], [3, 3], [2, 1]], np.int64)
w = np.array([[1, -1, 0.5], [-2, 2, -0.25], [0, 3, 4]], np.float32)
s = ort.InferenceSession(str(here / "two_inputs.onnx"))
t, sc = s.run(["total", "score"], {"ids": ids, "weights": w})
golden["two_inputs"] = {"ids": ids.tolist(), "weights": w.tolist(), "total": t.tolist(), "score": sc.tolist()}
(here / "golden.json").write_text(json.dumps(golden, indent=1))
