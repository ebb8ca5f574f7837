#!/usr/bin/env python3
"""Trains the same models on the same data with gradmesh and with other systems, by turns, on this machine."""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import processes
from gradmesh import LAYOUTS, Gradmesh
from memory import Memory
from program import PROGRAMS
from report import OURS, Outcome, as_json, as_table
from task import MODELS, Failed, System, Task

ROOT = Path(__file__).resolve().parent.parent.parent
LOGS = ROOT / "target" / "peers" / "logs"
# Of a failed system's log.
LAST_LINES = 15
QUICK_SECONDS = 3.0
# What a shell shows for a command that Ctrl-C ended.
INTERRUPTED = 130


def arguments() -> argparse.Namespace:
    systems = [*OURS, *(program.name for program in PROGRAMS)]
    models = [model.name for model in MODELS]
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--rounds", type=int, default=5, metavar="N", help="default: 5")
    add("--seconds", type=float, default=10, help="of training that are measured; default: 10")
    add("--quick", action="store_true", help="one round of 3 s: shows that all works, not who is faster")
    add("--only", type=some_of(systems), default=systems, metavar="NAMES", help=f"of {','.join(systems)}")
    add("--models", type=some_of(models), default=models, metavar="NAMES", help=f"of {','.join(models)}")
    add("--to-accuracy", type=float, metavar="PART", help="time until so many test rows are right, such as 0.97")
    add("--limit", type=float, default=180, help="seconds that --to-accuracy may take; default: 180")
    add("--node", type=Path, default=ROOT / "target/release/node", help="gradmesh's binary")
    add("--data", type=Path, default=ROOT / "data/full/mnist", help="folder with the four files of MNIST")
    add("--json", action="store_true", help="prints all that was measured instead of tables")
    asked = parser.parse_args()
    if asked.rounds < 1 or asked.seconds <= 0:
        parser.error("--rounds has to be at least 1, --seconds above 0")
    if asked.quick:
        asked.rounds, asked.seconds = 1, QUICK_SECONDS
    if not (asked.data / "train-images-idx3-ubyte").is_file():
        parser.error(f"{asked.data} has no MNIST; run `data/fetch mnist`, or name it with --data")
    return asked


def some_of(known: Sequence[str]) -> Callable[[str], list[str]]:
    def names(text: str) -> list[str]:
        for name in text.split(","):
            if name not in known:
                raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(known)}")
        return text.split(",")

    return names


def main() -> int:
    asked = arguments()
    for end in (signal.SIGINT, signal.SIGTERM):
        signal.signal(end, signal.default_int_handler)
    processes.adopt_orphans()
    tasks = [
        Task(
            model=model,
            data=asked.data.resolve(),
            seconds=asked.seconds if asked.to_accuracy is None else asked.limit,
            warm_up=asked.seconds / 4,
            accuracy=asked.to_accuracy,
        )
        for model in MODELS
        if model.name in asked.models
    ]
    outcomes: list[Outcome] = []
    interrupted = False
    try:
        # One by one, so that what was measured before a Ctrl-C is shown.
        for outcome in measured(tasks, prepared(asked), asked.rounds):
            outcomes.append(outcome)
    except KeyboardInterrupt:
        interrupted = True
    if asked.json:
        print(json.dumps(as_json(outcomes, tasks[0])))
    else:
        for task in tasks:
            print(f"\n{as_table(outcomes, task.model, task)}")
    if interrupted:
        return INTERRUPTED
    return 0 if outcomes and not any(outcome.error for outcome in outcomes) else 1


def prepared(asked: argparse.Namespace) -> list[System]:
    """The systems that were asked for and can be had."""
    node = asked.node.resolve()
    all_systems: list[System] = [*(Gradmesh(node, layout) for layout in LAYOUTS), *PROGRAMS]
    systems = []
    for system in all_systems:
        if system.name not in asked.only:
            continue
        try:
            system.prepare()
            systems.append(system)
        except Failed as error:
            say(f"{system.name} is left out: {error}")
    return systems


def measured(tasks: Sequence[Task], systems: Sequence[System], rounds: int) -> Iterator[Outcome]:
    """All systems by turns, each round from another one on."""
    for task in tasks:
        for number in range(rounds):
            first = number % max(1, len(systems))
            for system in [*systems[first:], *systems[:first]]:
                outcome = measure(system, task, number + 1)
                say(f"{task.model.name}, round {number + 1} of {rounds}: {sentence(outcome)}")
                yield outcome


def measure(system: System, task: Task, number: int) -> Outcome:
    # Short, as sockets in it have names of at most 107 bytes.
    scratch = Path(tempfile.mkdtemp(prefix="peers-"))
    LOGS.mkdir(parents=True, exist_ok=True)
    log = LOGS / f"{task.model.name}-{system.name}.log"
    command, environment = system.command(task, scratch)
    outcome = Outcome(system.name, system.label, task.model.name, number)
    started = time.time()
    child = processes.start(command, environment, scratch / "output", log)
    try:
        with Memory() as memory:
            seen = system.watch(child, task, scratch)
        return replace(
            outcome,
            start_seconds=seen.first_step_unix - started,
            rss_peak_bytes=memory.rss_peak,
            pss_peak_bytes=memory.pss_peak,
            seen=seen,
        )
    except Failed as error:
        lines = log.read_text(errors="replace").splitlines()[-LAST_LINES:]
        say("\n".join([f"{system.name}, last lines of {log}:", *lines]))
        return replace(outcome, error=str(error))
    finally:
        processes.end(child)
        shutil.rmtree(scratch, ignore_errors=True)


def sentence(outcome: Outcome) -> str:
    seen = outcome.seen
    if not seen:
        return f"{outcome.system} failed: {outcome.error}"
    text = f"{outcome.system} {outcome.samples_a_second:,.0f} samples/s, started in {outcome.start_seconds:.2f} s"
    return text if seen.accuracy is None else f"{text}, accuracy {seen.accuracy:.4f}"


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
