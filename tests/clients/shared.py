"""What the checks of all clients have in common.

The node serves `digits`: 64 pixels a row, 10 classes.
"""

import csv
import gzip
import json
import sys
import time
import urllib.error
import urllib.request

import numpy as np

HTTP, GRPC = sys.argv[1:3]
MODEL = "digits"


def rows(count):
    """The first rows of the data that the model was trained with: pixels from 0 to 16."""
    with gzip.open("data/digits/digits.csv.gz", "rt") as file:
        lines = [line for _, line in zip(range(count), csv.reader(file))]
    return np.array(lines, dtype=np.float32)[:, :64]


ROWS = rows(5)


def wait_for_model():
    """The job takes seconds; two minutes are for a machine with much else to do."""
    until = time.monotonic() + 120
    while True:
        try:
            url = f"http://{HTTP}/v2/models/{MODEL}/ready"
            return urllib.request.urlopen(url, timeout=10).close()
        except (urllib.error.URLError, ConnectionError):
            if time.monotonic() > until:
                raise
            time.sleep(0.1)


def plain(data):
    """What the service answers to JSON that no client made: probabilities and classes."""
    tensor = {"name": "input", "shape": list(data.shape), "datatype": "FP32"}
    body = json.dumps({"inputs": [{**tensor, "data": data.flatten().tolist()}]}).encode()
    request = urllib.request.Request(f"http://{HTTP}/v2/models/{MODEL}/infer", data=body)
    with urllib.request.urlopen(request, timeout=30) as answer:
        outputs = {output["name"]: output for output in json.load(answer)["outputs"]}
    values = {name: np.array(output["data"]) for name, output in outputs.items()}
    return values["output"].reshape(outputs["output"]["shape"]), values["class"]


wait_for_model()
EXPECTED, CLASSES = plain(ROWS)


def same(got, expected=EXPECTED):
    """The same bits: every way leads to the same model."""
    np.testing.assert_array_equal(np.asarray(got, np.float32), np.asarray(expected, np.float32))


def run(checks, *arguments):
    """Runs the checks, each of which says in its name what holds; the first that fails ends it."""
    for check in checks:
        check(*arguments)
        print("ok", check.__name__.replace("_", " "), flush=True)
