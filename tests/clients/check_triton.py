"""tritonclient against a running `node`: check_triton.py HTTP_ADDRESS GRPC_ADDRESS. See `run`."""

import numpy as np
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from tritonclient.utils import InferenceServerException, triton_to_np_dtype

from shared import CLASSES, GRPC, HTTP, MODEL, ROWS, plain, run, same


def refused(ask, *words):
    """Runs `ask`, which the server is to refuse with a text that has these words."""
    try:
        ask()
    except InferenceServerException as error:
        missing = [word for word in words if word not in str(error)]
        assert not missing, f"{missing} not in {error}"
        return error
    raise AssertionError("it was not refused")


# tritonclient over HTTP


def triton_http_inputs(data, datatype="FP32", binary=True):
    tensor = triton_http.InferInput("input", list(data.shape), datatype)
    tensor.set_data_from_numpy(data, binary_data=binary)
    return [tensor]


def http_describes_the_server_and_the_model(client):
    assert client.is_server_live() and client.is_server_ready()
    assert client.is_model_ready(MODEL) and client.is_model_ready(MODEL, "1")
    assert not client.is_model_ready("none")
    about = client.get_server_metadata()
    assert about["name"] == "gradmesh" and "binary_tensor_data" in about["extensions"]
    metadata = client.get_model_metadata(MODEL)
    assert metadata["inputs"] == [{"name": "input", "datatype": "FP32", "shape": [-1, 64]}]
    config = client.get_model_config(MODEL)
    assert config["input"][0]["dims"] == [64] and config["max_batch_size"] > 1000


def http_answers_binary_and_json_with_the_same_bits(client):
    for binary in [True, False]:
        outputs = [
            triton_http.InferRequestedOutput("output", binary_data=binary),
            triton_http.InferRequestedOutput("class", binary_data=not binary),
        ]
        inputs = triton_http_inputs(ROWS, binary=binary)
        answer = client.infer(MODEL, inputs, outputs=outputs, request_id="seven")
        same(answer.as_numpy("output"))
        same(answer.as_numpy("class"), CLASSES)
        assert answer.get_response()["id"] == "seven"
    # Without outputs it asks for all of them as binary.
    answer = client.infer(MODEL, triton_http_inputs(ROWS), model_version="1")
    same(answer.as_numpy("output"))


def http_takes_every_numeric_datatype(client):
    whole = ["UINT8", "INT8", "UINT16", "INT16", "UINT32", "INT32", "UINT64", "INT64"]
    for datatype in [*whole, "FP16", "BF16", "FP64"]:
        data = ROWS.astype(triton_to_np_dtype(datatype))
        answer = client.infer(MODEL, triton_http_inputs(data, datatype))
        same(answer.as_numpy("output"))
    bits = ROWS > 8
    answer = client.infer(MODEL, triton_http_inputs(bits, "BOOL"))
    same(answer.as_numpy("output"), plain(bits.astype(np.float32))[0])


def http_takes_compressed_requests(client):
    for algorithm in ["gzip", "deflate"]:
        answer = client.infer(
            MODEL,
            triton_http_inputs(ROWS),
            request_compression_algorithm=algorithm,
            response_compression_algorithm=algorithm,
        )
        same(answer.as_numpy("output"))


def http_classifies(client):
    outputs = [triton_http.InferRequestedOutput("output", class_count=3)]
    texts = client.infer(MODEL, triton_http_inputs(ROWS), outputs=outputs).as_numpy("output")
    assert texts.shape == (5, 3)
    best = [int(row[0].decode().split(":")[1]) for row in texts]
    assert best == CLASSES.tolist(), texts


def http_refuses_with_a_text(client):
    refused(lambda: client.infer("none", triton_http_inputs(ROWS)), "404", "no model")
    refused(lambda: client.infer(MODEL, triton_http_inputs(ROWS[:, :3])), "400", "64 features")
    text = np.array([[b"a"] * 64], dtype=np.object_)
    refused(lambda: client.infer(MODEL, triton_http_inputs(text, "BYTES")), "400", "not numeric")
    refused(lambda: client.unload_model("none"), "404", "no model")


def http_unloads_and_loads(client):
    states = lambda: {entry["state"] for entry in client.get_model_repository_index()}
    assert states() == {"READY"}
    client.unload_model(MODEL)
    assert states() == {"UNAVAILABLE"} and not client.is_model_ready(MODEL)
    refused(lambda: client.infer(MODEL, triton_http_inputs(ROWS)), "503", "unloaded")
    client.load_model(MODEL)
    assert states() == {"READY"} and client.is_model_ready(MODEL)


def http_counts(client):
    def executions():
        return client.get_inference_statistics(MODEL)["model_stats"][0]["execution_count"]

    before = executions()
    client.infer(MODEL, triton_http_inputs(ROWS))
    assert executions() == before + 1
    assert client.get_inference_statistics()["model_stats"]


# tritonclient over gRPC


def triton_grpc_inputs(data, datatype="FP32"):
    tensor = triton_grpc.InferInput("input", list(data.shape), datatype)
    tensor.set_data_from_numpy(data)
    return [tensor]


def grpc_describes_the_server_and_the_model(client):
    assert client.is_server_live() and client.is_server_ready()
    assert client.is_model_ready(MODEL)
    assert client.get_server_metadata().name == "gradmesh"
    metadata = client.get_model_metadata(MODEL)
    assert list(metadata.inputs[0].shape) == [-1, 64]
    config = client.get_model_config(MODEL).config
    assert config.backend == "gradmesh" and list(config.input[0].dims) == [64]
    as_json = client.get_model_config(MODEL, as_json=True)["config"]
    assert as_json["input"][0]["data_type"] == "TYPE_FP32", as_json


def grpc_answers_with_the_same_bits(client):
    answer = client.infer(MODEL, triton_grpc_inputs(ROWS), request_id="seven")
    same(answer.as_numpy("output"))
    same(answer.as_numpy("class"), CLASSES)
    assert answer.get_response().id == "seven"
    for datatype in ["UINT8", "INT64", "FP16", "BF16", "FP64"]:
        data = ROWS.astype(triton_to_np_dtype(datatype))
        same(client.infer(MODEL, triton_grpc_inputs(data, datatype)).as_numpy("output"))
    for algorithm in ["gzip", "deflate"]:
        inputs = triton_grpc_inputs(ROWS)
        same(client.infer(MODEL, inputs, compression_algorithm=algorithm).as_numpy("output"))


def grpc_classifies(client):
    outputs = [triton_grpc.InferRequestedOutput("output", class_count=1)]
    texts = client.infer(MODEL, triton_grpc_inputs(ROWS), outputs=outputs).as_numpy("output")
    assert [int(text.decode().split(":")[1]) for text in texts[:, 0]] == CLASSES.tolist()


def grpc_streams(client):
    answers = []
    client.start_stream(lambda result, error: answers.append((result, error)))
    for model in [MODEL, "none", MODEL]:
        client.async_stream_infer(model, triton_grpc_inputs(ROWS))
    client.stop_stream()
    assert len(answers) == 3
    same(answers[0][0].as_numpy("output"))
    assert "no model" in str(answers[1][1])
    same(answers[2][0].as_numpy("output"))


def grpc_refuses_with_a_code_and_a_text(client):
    for ask, code, word in [
        (lambda: client.infer("none", triton_grpc_inputs(ROWS)), "NOT_FOUND", "no model"),
        (lambda: client.infer(MODEL, triton_grpc_inputs(ROWS[:, :3])), "INVALID", "64 features"),
        (lambda: client.unload_model("none"), "NOT_FOUND", "no model"),
        (lambda: client.get_model_metadata(MODEL, "77"), "NOT_FOUND", "no version 77"),
        (lambda: client.get_trace_settings(), "UNIMPLEMENTED", ""),
    ]:
        assert code in refused(ask, word).status()


def grpc_unloads_and_loads(client):
    client.unload_model(MODEL)
    assert not client.is_model_ready(MODEL)
    state = client.get_model_repository_index().models[0].state
    assert state == "UNAVAILABLE", state
    error = refused(lambda: client.infer(MODEL, triton_grpc_inputs(ROWS)), "unloaded")
    assert "UNAVAILABLE" in error.status()
    client.load_model(MODEL)
    assert client.is_model_ready(MODEL)


def grpc_counts(client):
    statistics = client.get_inference_statistics(MODEL).model_stats[0]
    assert statistics.inference_stats.success.count == statistics.execution_count > 0
    assert statistics.inference_stats.compute_infer.ns > 0


def main():
    client = triton_http.InferenceServerClient(HTTP, network_timeout=30)
    over_http = [
        http_describes_the_server_and_the_model,
        http_answers_binary_and_json_with_the_same_bits,
        http_takes_every_numeric_datatype,
        http_takes_compressed_requests,
        http_classifies,
        http_refuses_with_a_text,
        http_unloads_and_loads,
        http_counts,
    ]
    run(over_http, client)
    client.close()
    client = triton_grpc.InferenceServerClient(GRPC)
    over_grpc = [
        grpc_describes_the_server_and_the_model,
        grpc_answers_with_the_same_bits,
        grpc_classifies,
        grpc_streams,
        grpc_refuses_with_a_code_and_a_text,
        grpc_unloads_and_loads,
        grpc_counts,
    ]
    run(over_grpc, client)
    client.close()


if __name__ == "__main__":
    main()
