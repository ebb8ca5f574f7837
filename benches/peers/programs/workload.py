"""What the programs of all peers share: the task, its rows, and when to stop.

A program runs in its system's own virtual environment: numpy is all that it may count on.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

FEATURES = 784
CLASSES = 10
TRAIN_ROWS = 60_000
LEARNING_RATE = 0.1
SEED = 1
# Bytes before the first row of an IDX file of images, and of labels.
IMAGES_HEADER = 16
LABELS_HEADER = 8


@dataclass(frozen=True)
class Workload:
    """One task, as the driver orders it."""

    data: Path
    hidden: list[int]
    # Rows of a worker and step.
    batch: int
    # Measured time and, before it, time that doesn't count.
    seconds: float
    warm_up: float
    # Train until this part of the test rows is right; None: for `seconds`.
    accuracy: float | None
    # Ports of loopback that are free, as many as the system needs.
    ports: list[int]
    # What this process is, where a program starts itself more than once.
    task: str

    @staticmethod
    def from_arguments() -> Workload:
        parser = argparse.ArgumentParser()
        parser.add_argument("--data", type=Path, required=True)
        parser.add_argument("--hidden", type=int, nargs="+", required=True)
        parser.add_argument("--batch", type=int, required=True)
        parser.add_argument("--seconds", type=float, required=True)
        parser.add_argument("--warm-up", type=float, required=True)
        parser.add_argument("--accuracy", type=float)
        parser.add_argument("--ports", type=int, nargs="*", default=[])
        parser.add_argument("--task", default="main")
        return Workload(**vars(parser.parse_args()))

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """Inputs and outputs of each layer."""
        widths = [FEATURES, *self.hidden, CLASSES]
        return list(itertools.pairwise(widths))

    def rows(self, part: str) -> tuple[np.ndarray, np.ndarray]:
        """Images, f32 from 0 to 1, shape [rows, 784], and labels of `train` or `t10k`."""
        images = np.fromfile(self.images(part), np.uint8, offset=IMAGES_HEADER)
        labels = np.fromfile(self.labels(part), np.uint8, offset=LABELS_HEADER)
        return images.reshape(-1, FEATURES).astype(np.float32) / np.float32(255), labels.astype(np.int64)

    def images(self, part: str) -> Path:
        return self.data / f"{part}-images-idx3-ubyte"

    def labels(self, part: str) -> Path:
        return self.data / f"{part}-labels-idx1-ubyte"

    def start(self, task: str) -> subprocess.Popen[bytes]:
        """This program once more, as a further process of the system."""
        command = [sys.executable, *sys.argv, "--task", task]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=sys.stderr)


def tell(follower: subprocess.Popen[bytes], steps: int) -> int:
    """Lets a process that was started by this one make so many steps as well; 0: end itself."""
    assert follower.stdin
    follower.stdin.write(b"%d\n" % steps)
    follower.stdin.flush()
    return steps


def steps_told() -> Iterator[int]:
    """One by one, the steps that this process is told to make, until it shall end."""
    for line in sys.stdin:
        if int(line) == 0:
            return
        yield from range(int(line))


def batches(rows: int, batch: int, worker: int = 0, workers: int = 1) -> Iterator[np.ndarray]:
    """Row numbers of a worker's batches without end: each epoch in another order, without its rest."""
    draw = np.random.default_rng(SEED)
    while True:
        # All workers draw the same order, and take turns in it.
        own = draw.permutation(rows)[worker::workers]
        for start in range(0, len(own) - batch + 1, batch):
            yield own[start : start + batch]


class Pace:
    """Says how many steps to make before the next look at the clock, and reports what was measured.

    The first step is one by itself. After the warm-up, samples and time are counted at looks only,
    when all steps before are done.
    """

    def __init__(
        self,
        workload: Workload,
        rows_a_step: int,
        rows: int,
        accuracy: Callable[[], float],
        look_every: float = 0.5,
    ) -> None:
        self._workload = workload
        self._rows_a_step = rows_a_step
        self._epoch = rows // rows_a_step
        self._accuracy = accuracy
        self._look_every = look_every
        self._made = 0
        self._asked = 0
        self._first_unix = math.nan
        self._first = math.nan
        # When the measured part began, and with which step.
        self._since: tuple[float, int] | None = None
        self._reached: float | None = None

    def steps(self) -> int:
        """Steps to make now; 0: it is over. Those that it said before are done."""
        now = time.monotonic()
        self._made += self._asked
        if self._made and math.isnan(self._first):
            self._first, self._first_unix = now, time.time()
        self._asked = self._next(now)
        return self._asked

    def _next(self, now: float) -> int:
        if not self._made:
            return 1
        if self._workload.accuracy is None:
            return self._until_time(now)
        return self._until_accuracy(now, self._workload.accuracy)

    def _until_time(self, now: float) -> int:
        if self._since is None:
            left = self._first + self._workload.warm_up - now
            if left > 0:
                return self._steps_in(now, min(left, 0.5))
            self._since = (now, self._made)
        left = self._since[0] + self._workload.seconds - now
        return self._steps_in(now, min(left, self._look_every)) if left > 0 else 0

    def _until_accuracy(self, now: float, goal: float) -> int:
        self._since = self._since or (self._first, 1)
        into_epoch = self._made % self._epoch
        if into_epoch == 0 and self._accuracy() >= goal:
            self._reached = time.monotonic() - self._first
            return 0
        if now > self._first + self._workload.seconds:
            return 0
        return min(self._steps_in(now, self._look_every), self._epoch - into_epoch)

    def _steps_in(self, now: float, seconds: float) -> int:
        """As many as take about that long, by those that were made; few while little is known."""
        known = self._made - 1
        expected = int(seconds * known / (now - self._first)) if known else 1
        return max(1, min(expected, 8 * self._made))

    def report(self) -> None:
        """Prints the line that the driver reads; a last test is no part of the measured time."""
        now = time.monotonic()
        since, made = self._since or (self._first, 1)
        steps = self._made - made
        report = {
            "first_step_unix": self._first_unix,
            "steps": steps,
            "samples": steps * self._rows_a_step,
            "seconds": now - since,
            "accuracy": float(self._accuracy()),
            "accuracy_seconds": self._reached,
        }
        print(json.dumps(report), flush=True)
