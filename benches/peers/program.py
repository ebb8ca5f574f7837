"""A system that a Python program in `programs` drives, in a virtual environment of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from ports import free_ports
from task import Failed, Seen, Task

HERE = Path(__file__).resolve().parent
ENVIRONMENTS = HERE.parent.parent / "target" / "peers"
LOOK_EVERY_SECONDS = 0.1
# Each process computes on one thread, without a GPU.
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "CUDA_VISIBLE_DEVICES": "",
}


@dataclass(frozen=True)
class Program:
    name: str
    label: str
    # In `programs`.
    file: str
    # `requirements-….txt`, and the name of the virtual environment.
    packages: str
    # That it listens on.
    ports: int = 0
    environment: dict[str, str] = field(default_factory=dict)

    def prepare(self) -> None:
        requirements = HERE / f"requirements-{self.packages}.txt"
        installed = self.folder / "installed.txt"
        if installed.exists() and installed.read_bytes() == requirements.read_bytes():
            return
        print(f"installing {requirements.name} into {self.folder}", file=sys.stderr, flush=True)
        shutil.rmtree(self.folder, ignore_errors=True)
        python = str(self.folder / "bin" / "python")
        install = ["-m", "pip", "install", "--quiet", "--no-cache-dir", "--no-deps", "--only-binary", ":all:"]
        try:
            subprocess.run([sys.executable, "-m", "venv", self.folder], check=True, stdout=sys.stderr)
            subprocess.run([python, *install, "-r", requirements], check=True, stdout=sys.stderr)
        except subprocess.CalledProcessError as error:
            raise Failed(f"not installed: {error}") from error
        shutil.copyfile(requirements, installed)

    def command(self, task: Task, scratch: Path) -> tuple[list[str], dict[str, str]]:
        command = [str(self.folder / "bin" / "python"), str(HERE / "programs" / self.file)]
        command += ["--data", str(task.data), "--batch", str(task.model.batch)]
        command += ["--hidden", *map(str, task.model.hidden)]
        command += ["--seconds", str(task.seconds), "--warm-up", str(task.warm_up)]
        if task.accuracy is not None:
            command += ["--accuracy", str(task.accuracy)]
        if self.ports:
            command += ["--ports", *map(str, free_ports(self.ports))]
        return command, os.environ | ENVIRONMENT | self.environment | {"TMPDIR": str(scratch)}

    def watch(self, child: subprocess.Popen[bytes], task: Task, scratch: Path) -> Seen:
        deadline = time.monotonic() + task.limit_seconds
        while True:
            ended = child.poll() is not None
            # Said as soon as it is known: some systems take long to end.
            if seen := report(scratch / "output"):
                return seen
            if ended:
                raise Failed(f"ended with {child.returncode} and without a report")
            if time.monotonic() > deadline:
                raise Failed(f"no report within {task.limit_seconds:.0f} s")
            time.sleep(LOOK_EVERY_SECONDS)

    @property
    def folder(self) -> Path:
        return ENVIRONMENTS / f"venv-{self.packages}"


def report(output: Path) -> Seen | None:
    """The line of JSON among what a program wrote, if it is there and whole."""
    for line in output.read_text(errors="replace").splitlines(keepends=True):
        if line.startswith('{"first_step_unix"') and line.endswith("\n"):
            return Seen(**json.loads(line))
    return None


PROGRAMS = (
    Program(
        "pytorch-ddp",
        "PyTorch DDP, gloo, 2 × 1 thread",
        "pytorch_ddp.py",
        "pytorch",
        1,
        {"GLOO_SOCKET_IFNAME": "lo"},
    ),
    Program("pytorch", "PyTorch, 1 process, 1 thread", "pytorch_single.py", "pytorch"),
    Program("mxnet", "MXNet dist_sync (ps-lite)", "mxnet_ps.py", "mxnet", 1),
    Program("tensorflow", "TensorFlow ParameterServerStrategy", "tensorflow_ps.py", "tensorflow", 4),
    Program(
        "ray",
        "Ray, parameter-server actor",
        "ray_ps.py",
        "ray",
        0,
        # Nothing is told to anybody, and nothing is written to the home folder.
        {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"},
    ),
)
