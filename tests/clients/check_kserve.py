"""kserve's clients against a running `node`: check_kserve.py HTTP_ADDRESS GRPC_ADDRESS. See `run`.

A program of its own: kserve and tritonclient both bring messages of the package `inference` along,
of which protobuf has one a process.
"""

import asyncio

from kserve import (
    InferenceGRPCClient,
    InferenceRESTClient,
    InferInput,
    InferRequest,
    RESTConfig,
)

from shared import CLASSES, GRPC, HTTP, MODEL, ROWS, run, same


def kserve_request(binary):
    tensor = InferInput("input", list(ROWS.shape), "FP32")
    tensor.set_data_from_numpy(ROWS, binary_data=binary)
    return InferRequest(model_name=MODEL, infer_inputs=[tensor], request_id="seven")


async def rest():
    client = InferenceRESTClient(RESTConfig(protocol="v2", retries=0, timeout=30))
    base = f"http://{HTTP}"
    assert await client.is_server_live(base) is True
    assert await client.is_server_ready(base) is True
    assert await client.is_model_ready(base, MODEL) is True
    assert await client.is_model_ready(base, "none") is False
    for binary in [True, False]:
        answer = await client.infer(base, kserve_request(binary), model_name=MODEL)
        outputs = {output.name: output for output in answer.outputs}
        same(outputs["output"].as_numpy())
        same(outputs["class"].as_numpy(), CLASSES)
    await client.close()


async def grpc():
    client = InferenceGRPCClient(GRPC, retries=0, timeout=30)
    assert await client.is_server_live() and await client.is_server_ready()
    assert await client.is_model_ready(MODEL)
    for binary in [True, False]:
        answer = await client.infer(kserve_request(binary))
        outputs = {output.name: output for output in answer.outputs}
        same(outputs["output"].as_numpy())
        same(outputs["class"].as_numpy(), CLASSES)
    await client.close()


def kserve_rest_answers_with_the_same_bits():
    asyncio.run(rest())


def kserve_grpc_answers_with_the_same_bits():
    asyncio.run(grpc())


if __name__ == "__main__":
    run([kserve_rest_answers_with_the_same_bits, kserve_grpc_answers_with_the_same_bits])
