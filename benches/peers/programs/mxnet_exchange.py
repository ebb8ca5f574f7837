"""Push and pull of one value with ps-lite, through MXNet's `dist_sync` store: scheduler, server, one worker."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

WARM_UP = 8
REPEATS_MIN = 3


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--bytes", type=int, nargs="+", required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--role", choices=("scheduler", "server", "worker"), default="worker")
    asked = parser.parse_args()
    if asked.role == "worker":
        for role in ("scheduler", "server"):
            subprocess.Popen([sys.executable, *sys.argv, "--role", role], stdout=sys.stderr)
    os.environ |= {
        "DMLC_ROLE": asked.role,
        "DMLC_PS_ROOT_URI": "127.0.0.1",
        "DMLC_PS_ROOT_PORT": str(asked.port),
        "DMLC_NODE_HOST": "127.0.0.1",
        "DMLC_NUM_SERVER": "1",
        "DMLC_NUM_WORKER": "1",
    }
    # A scheduler or server does its work in here, and ends when the worker has ended.
    import mxnet as mx

    store = mx.kv.create("dist_sync")
    # Without an optimizer, which would be Python's: the server keeps the sum of what is pushed.
    medians = {}
    for key, count in enumerate(asked.bytes):
        values = count // 4
        parameters = mx.nd.ones((values,))
        gradient = mx.nd.full((values,), 1e-6)
        store.init(key, parameters)
        mx.nd.waitall()

        def exchange(key: int = key, gradient: object = gradient, parameters: object = parameters) -> float:
            began = time.perf_counter()
            store.push(key, gradient)
            store.pull(key, out=parameters)
            parameters.wait_to_read()
            return time.perf_counter() - began

        for _ in range(WARM_UP):
            exchange()
        until = time.monotonic() + asked.seconds
        times = []
        while len(times) < REPEATS_MIN or time.monotonic() < until:
            times.append(exchange())
        medians[str(count)] = statistics.median(times)
    print(json.dumps({"seconds": medians}), flush=True)


if __name__ == "__main__":
    main()
