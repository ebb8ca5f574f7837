"""What is measured, and what a measurement comes to."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

# A system that hasn't made a step by then is given up.
START_MAX_SECONDS = 120.0
WORKERS = 2
LEARNING_RATE = 0.1


@dataclass(frozen=True)
class Model:
    """A perceptron with these widths between 784 inputs and 10 classes."""

    name: str
    hidden: tuple[int, ...]
    # Rows of a worker and step.
    batch: int


MODELS = (Model("small", (64, 32), 64), Model("wide", (2048, 2048), 256))


@dataclass(frozen=True)
class Task:
    model: Model
    # Folder with the files of MNIST.
    data: Path
    # Measured time and, before it, time that doesn't count.
    seconds: float
    warm_up: float
    # Train until this part of the test rows is right, at most for `seconds`; None: for `seconds`.
    accuracy: float | None

    @property
    def limit_seconds(self) -> float:
        """After this, a system hangs: blocks of steps may take longer than was thought."""
        return START_MAX_SECONDS + self.warm_up + 3 * self.seconds


@dataclass(frozen=True)
class Seen:
    """What a system did."""

    # Seconds since 1970.
    first_step_unix: float
    # In the measured time only.
    steps: int
    samples: int
    seconds: float
    # Part of the test rows that is right at the end; None: was not tested yet.
    accuracy: float | None
    # From the first step until `Task.accuracy`; None: was not reached, or not the task.
    accuracy_seconds: float | None


class Failed(Exception):
    """A system didn't do its task; says why."""


class System(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def label(self) -> str:
        """Of its row in a table."""

    def prepare(self) -> None:
        """Installs what is missing.

        Raises Failed.
        """

    def command(self, task: Task, scratch: Path) -> tuple[list[str], dict[str, str]]:
        """What starts it, with an environment; files of its own go to the folder."""

    def watch(self, child: subprocess.Popen[bytes], task: Task, scratch: Path) -> Seen:
        """Waits until the task is done.

        Raises Failed.
        """
