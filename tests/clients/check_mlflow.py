"""MLflow's client against the registry of a running `node`: check_mlflow.py HTTP_ADDRESS GRPC_ADDRESS.

See `run`. The node has `service.registry_writes`, and serves `digits`, which it has trained.
"""

import json
import os
import tempfile
import urllib.request

# It asks again by itself where a server is away; here that would only hide it.
os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "0"

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from shared import HTTP, MODEL, ROWS, run

mlflow.set_tracking_uri(f"http://{HTTP}")
mlflow.set_registry_uri(f"http://{HTTP}")
CLIENT = MlflowClient()
NAME = "from-mlflow"


def refused(code, call, *arguments, **named):
    """The call fails, and MLflow's client understands why."""
    try:
        call(*arguments, **named)
    except MlflowException as error:
        assert error.error_code == code, (error.error_code, str(error))
        return
    raise AssertionError(f"{call.__name__} was not refused")


def served_version(reference):
    tensor = {"name": "input", "shape": [1, 64], "datatype": "FP32", "data": ROWS[0].tolist()}
    url = f"http://{HTTP}/v2/models/{MODEL}/versions/{reference}/infer"
    request = urllib.request.Request(url, data=json.dumps({"inputs": [tensor]}).encode())
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)["model_version"]


def what_was_trained_is_found_with_its_lineage():
    assert MODEL in [model.name for model in CLIENT.search_registered_models()]
    model = CLIENT.get_registered_model(MODEL)
    version = CLIENT.get_model_version(MODEL, model.latest_versions[0].version)
    assert version.status == "READY" and version.run_id
    assert float(version.tags["gradmesh.metrics.test_accuracy"]) > 0.8
    assert len(version.tags["gradmesh.artifact_blake3"]) == 64
    good = CLIENT.search_model_versions(f"name='{MODEL}' and metrics.test_accuracy > 0.8")
    assert [found.version for found in good] == [version.version]
    assert CLIENT.search_model_versions(f"name='{MODEL}' and metrics.test_accuracy > 1") == []


def what_was_trained_is_downloaded_with_its_description():
    uri = f"models:/{MODEL}/1"
    with tempfile.TemporaryDirectory() as folder:
        mlflow.artifacts.download_artifacts(uri, dst_path=folder)
        with open(os.path.join(folder, "description.json"), encoding="utf-8") as file:
            description = json.load(file)
        with open(os.path.join(folder, description["artifact"]["file"]), "rb") as file:
            tensors = file.read()
    assert (description["model"], description["version"]) == (MODEL, 1)
    assert len(tensors) == description["artifact"]["bytes"]
    # safetensors: the length of the header, the header, the tensors
    header = json.loads(tensors[8:8 + int.from_bytes(tensors[:8], "little")])
    assert {tensor["name"] for tensor in description["tensors"]} <= set(header)


def an_alias_that_the_client_sets_is_served():
    CLIENT.set_registered_model_alias(MODEL, "champion", "1")
    assert CLIENT.get_model_version_by_alias(MODEL, "champion").version == "1"
    assert CLIENT.get_registered_model(MODEL).aliases == {"champion": "1"}
    assert served_version("champion") == "1"
    CLIENT.delete_registered_model_alias(MODEL, "champion")
    refused("INVALID_PARAMETER_VALUE", CLIENT.get_model_version_by_alias, MODEL, "champion")


def models_are_created_updated_searched_and_tagged():
    made = CLIENT.create_registered_model(NAME, {"team": "vision"}, "first")
    assert made.name == NAME and made.tags == {"team": "vision"} and made.description == "first"
    refused("RESOURCE_ALREADY_EXISTS", CLIENT.create_registered_model, NAME)
    assert CLIENT.update_registered_model(NAME, "second").description == "second"
    CLIENT.set_registered_model_tag(NAME, "stage of life", "young, 'quoted'")
    assert CLIENT.get_registered_model(NAME).tags["stage of life"] == "young, 'quoted'"
    for found in [f"name = '{NAME}'", f"name ILIKE '{NAME.upper()}'", "tags.team = 'vision'"]:
        assert [model.name for model in CLIENT.search_registered_models(found)] == [NAME], found
    CLIENT.delete_registered_model_tag(NAME, "team")
    assert CLIENT.search_registered_models("tags.team = 'vision'") == []
    pages = CLIENT.search_registered_models(max_results=1, order_by=["name DESC"])
    assert [model.name for model in pages] == [NAME] and pages.token
    rest = CLIENT.search_registered_models(max_results=1, order_by=["name DESC"], page_token=pages.token)
    assert [model.name for model in rest] == [MODEL] and not rest.token
    refused("RESOURCE_DOES_NOT_EXIST", CLIENT.get_registered_model, "none")


def versions_are_created_updated_searched_and_tagged():
    for number in ["1", "2", "3"]:
        made = CLIENT.create_model_version(NAME, f"s3://bucket/{number}", run_id=f"run{number}")
        assert (made.version, made.source, made.status) == (number, f"s3://bucket/{number}", "READY")
    assert CLIENT.update_model_version(NAME, "2", "the second").description == "the second"
    CLIENT.set_model_version_tag(NAME, "2", "validation", "passed")
    assert CLIENT.get_model_version(NAME, "2").tags == {"validation": "passed"}
    for found in [f"name='{NAME}' and run_id='run2'", "tags.validation = 'passed'", "run_id IN ('run2')"]:
        assert [version.version for version in CLIENT.search_model_versions(found)] == ["2"], found
    ordered = CLIENT.search_model_versions(f"name='{NAME}'", order_by=["version_number ASC"])
    assert [version.version for version in ordered] == ["1", "2", "3"]
    CLIENT.delete_model_version_tag(NAME, "2", "validation")
    assert CLIENT.get_model_version(NAME, "2").tags == {}
    assert CLIENT.get_model_version_download_uri(NAME, "3") == "s3://bucket/3"


def versions_move_between_stages():
    CLIENT.transition_model_version_stage(NAME, "2", "Production")
    assert CLIENT.get_model_version(NAME, "2").current_stage == "Production"
    latest = CLIENT.get_latest_versions(NAME, ["Production"])
    assert [version.version for version in latest] == ["2"]
    CLIENT.transition_model_version_stage(NAME, "2", "Archived")
    assert CLIENT.get_model_version(NAME, "2").current_stage == "None"


def versions_and_models_are_deleted():
    CLIENT.delete_model_version(NAME, "3")
    refused("RESOURCE_DOES_NOT_EXIST", CLIENT.get_model_version, NAME, "3")
    assert CLIENT.create_model_version(NAME, "s3://bucket/4").version == "4"
    CLIENT.set_registered_model_alias(NAME, "challenger", "4")
    CLIENT.delete_registered_model(NAME)
    refused("RESOURCE_DOES_NOT_EXIST", CLIENT.get_registered_model, NAME)
    assert [model.name for model in CLIENT.search_registered_models()] == [MODEL]


if __name__ == "__main__":
    run([
        what_was_trained_is_found_with_its_lineage,
        what_was_trained_is_downloaded_with_its_description,
        an_alias_that_the_client_sets_is_served,
        models_are_created_updated_searched_and_tagged,
        versions_are_created_updated_searched_and_tagged,
        versions_move_between_stages,
        versions_and_models_are_deleted,
    ])
