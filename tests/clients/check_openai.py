"""OpenAI's client against text-embedding models of a running `node`:
check_openai.py HTTP_ADDRESS GRPC_ADDRESS MODEL=GOLDEN...

GOLDEN: a JSON file with texts and what the model's makers answer to them. See `run`.
"""

import json
import sys

import numpy as np
import openai

HTTP = sys.argv[1]
MODELS = [named.split("=", 1) for named in sys.argv[3:]]
CLIENT = openai.OpenAI(base_url=f"http://{HTTP}/v1", api_key="none", max_retries=0, timeout=60)


def close(got, expected):
    far = np.abs(np.array(got, np.float32) - np.array(expected, np.float32)).max()
    assert far <= 1e-4, far
    return far


def embeddings_are_those_of_the_models_makers(model, golden):
    texts, expected = [case["text"] for case in golden], [case["embedding"] for case in golden]
    # base64, which the client asks for by itself and unpacks.
    answer = CLIENT.embeddings.create(model=model, input=texts)
    assert [one.index for one in answer.data] == list(range(len(texts)))
    far = close([one.embedding for one in answer.data], expected)
    assert answer.model == model
    assert answer.usage.prompt_tokens == answer.usage.total_tokens == sum(len(case["ids"]) for case in golden)
    plain = CLIENT.embeddings.create(model=model, input=texts[0], encoding_format="float")
    close(plain.data[0].embedding, expected[0])
    width = len(expected[0])
    CLIENT.embeddings.create(model=model, input=texts[0], dimensions=width)
    print(f"   {model}: {far:.1e} from its makers'", flush=True)


def models_are_listed(model, _):
    listed = {one.id: one for one in CLIENT.models.list()}
    assert model in listed and listed[model].object == "model"
    assert CLIENT.models.retrieve(model).created == listed[model].created


def refused(kind, code, call, *arguments, **named):
    try:
        call(*arguments, **named)
    except kind as error:
        assert error.code == code, error
        assert str(error)
        return
    raise AssertionError("it was not refused")


def what_can_not_be_answered_is_refused_in_openais_words(model, _):
    create = CLIENT.embeddings.create
    refused(openai.NotFoundError, "model_not_found", create, model="none", input="a")
    refused(openai.NotFoundError, "model_not_found", CLIENT.models.retrieve, "none")
    refused(openai.BadRequestError, None, create, model=model, input=[])
    refused(openai.BadRequestError, None, create, model=model, input=[[1, 2, 3]])
    refused(openai.BadRequestError, None, create, model=model, input="a", dimensions=7)
    refused(openai.BadRequestError, None, create, model=model, input="a " * 600)
    # It classifies digits.
    refused(openai.BadRequestError, None, create, model="digits", input="a")


if __name__ == "__main__":
    for name, path in MODELS:
        with open(path) as file:
            cases = json.load(file)
        for check in [
            embeddings_are_those_of_the_models_makers,
            models_are_listed,
            what_can_not_be_answered_is_refused_in_openais_words,
        ]:
            check(name, cases)
            print("ok", check.__name__.replace("_", " "), flush=True)
