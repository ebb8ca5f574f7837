"""magika's model, imported into a running `node`, against onnxruntime: check_onnx.py HTTP_ADDRESS GRPC_ADDRESS.

See `run`. magika (Google, Apache-2.0) says which type a file has, from its first and last 1,024 bytes.
"""

import pathlib

import magika
import numpy as np
import onnxruntime
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http

from shared import GRPC, HTTP, run

FOLDER = pathlib.Path(magika.__file__).parent / "models" / "standard_v3_3"
HALF, PADDING, MODEL = 1024, 256, "magika"
SESSION = onnxruntime.InferenceSession(str(FOLDER / "model.onnx"), providers=["CPUExecutionProvider"])
(INPUT,), (OUTPUT,) = SESSION.get_inputs(), SESSION.get_outputs()


def features(content):
    """What the model takes of a file: its two ends without white space, filled up."""
    first, last = list(content.lstrip()[:HALF]), list(content.rstrip()[-HALF:])
    return first + [PADDING] * (HALF - len(first)) + [PADDING] * (HALF - len(last)) + last


CONTENTS = [
    b"import os\n\n\ndef main():\n    print(os.listdir('.'))\n" * 9,
    b'{"name": "gradmesh", "layers": [784, 128, 10], "rate": 0.05}\n',
    b"<!DOCTYPE html>\n<html><head><title>Hello</title></head><body><p>Text</p></body></html>\n",
    bytes((7 * at * at + 3) % 256 for at in range(5000)),
]
ROWS = np.array([features(content) for content in CONTENTS], dtype=np.int32)
# Each row alone: beside others onnxruntime's own answers differ by more than we may.
EXPECTED = np.concatenate([SESSION.run(None, {INPUT.name: row[None]})[0] for row in ROWS])


def close(got):
    assert got.shape == EXPECTED.shape, got.shape
    far = np.abs(got - EXPECTED).max()
    print(f"   {far:.1e} from onnxruntime", flush=True)
    assert far <= 1e-4


def the_model_says_what_it_takes_and_answers():
    client = triton_http.InferenceServerClient(HTTP)
    about = client.get_model_metadata(MODEL)
    assert about["inputs"] == [{"name": INPUT.name, "datatype": "INT32", "shape": [-1, 2 * HALF]}]
    assert about["outputs"] == [{"name": OUTPUT.name, "datatype": "FP32", "shape": [-1, EXPECTED.shape[1]]}]


def http_answers_what_onnxruntime_answers():
    client = triton_http.InferenceServerClient(HTTP, network_timeout=60)
    for binary in [True, False]:
        tensor = triton_http.InferInput(INPUT.name, list(ROWS.shape), "INT32")
        tensor.set_data_from_numpy(ROWS, binary_data=binary)
        close(client.infer(MODEL, [tensor]).as_numpy(OUTPUT.name))


def grpc_answers_what_onnxruntime_answers():
    client = triton_grpc.InferenceServerClient(GRPC)
    tensor = triton_grpc.InferInput(INPUT.name, list(ROWS.shape), "INT32")
    tensor.set_data_from_numpy(ROWS)
    close(client.infer(MODEL, [tensor]).as_numpy(OUTPUT.name))


if __name__ == "__main__":
    run([
        the_model_says_what_it_takes_and_answers,
        http_answers_what_onnxruntime_answers,
        grpc_answers_what_onnxruntime_answers,
    ])
