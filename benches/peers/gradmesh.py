"""gradmesh, by its `node` binary: as processes, or embedded in one."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ports import free_ports
from task import LEARNING_RATE, WORKERS, Failed, Seen, Task

# More than any measurement makes; the largest number that is allowed.
EPOCHS = 1_000_000
# Until the first step, and then; each look is one small request.
FIRST_LOOKS_SECONDS = 0.005
LOOK_EVERY_SECONDS = 0.05
ANSWER_SECONDS = 2.0

CONFIGURATION = """\
[cluster]
name = "peers"

[job]
epochs = {epochs}
batch_size = {batch_size}
virtual_workers = {workers}

[job.model]
name = "mnist"
kind = "mlp"
hidden = {hidden}
activation = "relu"
loss = "softmax"

[job.data]
format = "idx"
train = "{data}/train-images-idx3-ubyte"
train_labels = "{data}/train-labels-idx1-ubyte"
{test}
scale = "divide"
divide_by = 255

[job.optimizer]
kind = "sgd"
learning_rate = {learning_rate}

[servers]
shards = {shards}
replicas = 0

[workers]
count = {workers}

[checkpoint]
store = "checkpoints"

[coordination]
store = "coordination"

[registry]
store = "registry"

[service]
listen = "127.0.0.1:{service}"
"""
# Tested after each epoch.
ALL_TEST_ROWS = """\
test = "{data}/t10k-images-idx3-ubyte"
test_labels = "{data}/t10k-labels-idx1-ubyte\""""
# Others test nothing while samples are counted.
FEW_TEST_ROWS = "test_fraction = 0.01"


@dataclass(frozen=True)
class Layout:
    """Which processes there are, by name, with their roles; none: all is in one."""

    name: str
    label: str
    shards: int
    nodes: tuple[tuple[str, list[str]], ...]


MAIN = ("main", ["coordinator", "registry", "service"])
LAYOUTS = (
    Layout(
        "gradmesh",
        "gradmesh, 4 processes and `node up`",
        1,
        (MAIN, ("ps-0", ["server"]), *((f"worker-{index}", ["worker"]) for index in range(WORKERS))),
    ),
    Layout(
        "gradmesh-pairs",
        "gradmesh, 3 processes and `node up`",
        WORKERS,
        (MAIN, *((f"both-{index}", ["server", "worker"]) for index in range(WORKERS))),
    ),
    Layout("gradmesh-embedded", "gradmesh, 1 process", 1, ()),
)
NODE = """
[[nodes]]
name = "{name}"
address = "127.0.0.1:{port}"
roles = {roles}
"""


class Gradmesh:
    def __init__(self, node: Path, layout: Layout) -> None:
        self.name = layout.name
        self.label = layout.label
        self._node = node
        self._layout = layout
        self._service = 0

    def prepare(self) -> None:
        if not self._node.is_file():
            raise Failed(f"{self._node} isn't there; run `cargo build --release`, or name it with --node")

    def command(self, task: Task, scratch: Path) -> tuple[list[str], dict[str, str]]:
        nodes = self._layout.nodes
        self._service, *ports = free_ports(1 + len(nodes))
        test = FEW_TEST_ROWS if task.accuracy is None else ALL_TEST_ROWS.format(data=task.data)
        text = CONFIGURATION.format(
            epochs=EPOCHS,
            batch_size=task.model.batch * WORKERS,
            hidden=list(task.model.hidden),
            data=task.data,
            test=test,
            shards=self._layout.shards,
            learning_rate=LEARNING_RATE,
            workers=WORKERS,
            service=self._service,
        )
        for (name, roles), port in zip(nodes, ports, strict=True):
            text += NODE.format(name=name, port=port, roles=json.dumps(roles))
        file = scratch / "cluster.toml"
        file.write_text(text)
        own = {key: value for key, value in os.environ.items() if not key.startswith("GRADMESH_")}
        verb = "up" if nodes else "run"
        return [str(self._node), "--config", str(file), "--log", "warn", verb], own

    def watch(self, child: subprocess.Popen[bytes], task: Task, scratch: Path) -> Seen:
        progress = Progress(task)
        connection = http.client.HTTPConnection("127.0.0.1", self._service, timeout=ANSWER_SECONDS)
        deadline = time.monotonic() + task.limit_seconds
        while not progress.over(status(connection)):
            if child.poll() is not None:
                raise Failed(f"ended with {child.returncode}")
            if time.monotonic() > deadline:
                raise Failed(f"not done within {task.limit_seconds:.0f} s")
            time.sleep(LOOK_EVERY_SECONDS if progress.started else FIRST_LOOKS_SECONDS)
        connection.close()
        return progress.seen()


def status(connection: http.client.HTTPConnection) -> dict[str, Any] | None:
    """The state of the run; None: it doesn't answer, or not yet."""
    try:
        connection.request("GET", "/gradmesh/status")
        training: dict[str, Any] | None = json.loads(connection.getresponse().read()).get("training")
        return training
    except (OSError, http.client.HTTPException, ValueError):
        connection.close()
        return None


@dataclass(frozen=True)
class Look:
    at: float
    version: int


class Progress:
    """Which version was seen when; counts from change to change."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._first: Look | None = None
        self._first_unix = 0.0
        self._from: Look | None = None
        self._last: Look | None = None
        self._accuracy: float | None = None
        self._reached: float | None = None

    @property
    def started(self) -> bool:
        return self._first is not None

    def over(self, training: dict[str, Any] | None) -> bool:
        """Takes in what was seen now."""
        if not training or not training["version"]:
            return False
        now = Look(time.monotonic(), training["version"])
        if self._first is None:
            self._first, self._first_unix = now, time.time()
        if finished := training["ledger"]["finished"]:
            self._accuracy = finished[-1]["test_accuracy"]
        if self._last and now.version == self._last.version:
            return False
        self._last = now
        warm_up = self._task.warm_up if self._task.accuracy is None else 0
        if self._from is None and now.at >= self._first.at + warm_up:
            self._from = now
        return self._is_enough(now)

    def _is_enough(self, now: Look) -> bool:
        goal = self._task.accuracy
        if goal is not None and self._first and (self._accuracy or 0) >= goal:
            self._reached = now.at - self._first.at
            return True
        return self._from is not None and now.at >= self._from.at + self._task.seconds

    def seen(self) -> Seen:
        assert self._from and self._last
        steps = self._last.version - self._from.version
        return Seen(
            first_step_unix=self._first_unix,
            steps=steps,
            samples=steps * self._task.model.batch * WORKERS,
            seconds=self._last.at - self._from.at,
            accuracy=self._accuracy,
            accuracy_seconds=self._reached,
        )
