#!/usr/bin/env python3
"""Push and pull of one value with gradmesh and with ps-lite (in MXNet), by turns, on this machine."""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import processes
from ports import free_ports
from program import ENVIRONMENT, HERE, PROGRAMS, Program
from report import aligned, number
from task import Failed

ROOT = HERE.parent.parent
KIB, MIB = 1 << 10, 1 << 20
SIZES = (4 * KIB, MIB, 16 * MIB, 64 * MIB)
# One that hangs is given up; each takes 10 to 20 s.
LIMIT_SECONDS = 120.0


@dataclass(frozen=True)
class Exchange:
    """Median times of one push and pull in one round, in seconds."""

    bytes: int
    gradmesh: float
    # As between machines; None: is no other.
    gradmesh_by_socket: float | None
    tcp: float
    ps_lite: float


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--rounds", type=int, default=5, metavar="N", help="default: 5")
    add("--seconds", type=float, default=1, help="of each size of ps-lite; default: 1")
    add("--node", type=Path, default=ROOT / "target/release/node", help="gradmesh's binary")
    add("--json", action="store_true", help="prints all that was measured instead of a table")
    asked = parser.parse_args()
    if asked.rounds < 1 or asked.seconds <= 0:
        parser.error("--rounds has to be at least 1, --seconds above 0")
    for end in (signal.SIGINT, signal.SIGTERM):
        signal.signal(end, signal.default_int_handler)
    processes.adopt_orphans()
    rounds: list[Exchange] = []
    try:
        mxnet = next(program for program in PROGRAMS if program.name == "mxnet")
        mxnet.prepare()
        for done in range(asked.rounds):
            # By turns who comes first.
            if done % 2 == 0:
                ours, theirs = gradmesh(asked.node.resolve()), ps_lite(mxnet, asked.seconds)
            else:
                theirs, ours = ps_lite(mxnet, asked.seconds), gradmesh(asked.node.resolve())
            rounds += joined(ours, theirs)
            print(f"round {done + 1} of {asked.rounds}", file=sys.stderr, flush=True)
    except Failed as error:
        print(f"failed: {error}", file=sys.stderr)
        return 1
    print(json.dumps([vars(one) for one in rounds]) if asked.json else table(rounds))
    return 0


def gradmesh(node: Path) -> dict[str, tuple[float, float]]:
    """By the bench's own names: gradmesh's figure and TCP's."""
    command = [str(node), "bench", "--only", "exchange", "--rounds", "1", "--json", "--log", "warn"]
    rows = json.loads(output(command, dict(os.environ)))["rows"]
    return {row["what"]: (row["gradmesh"], row["limit"]) for row in rows}


def ps_lite(mxnet: Program, seconds: float) -> dict[str, float]:
    """Seconds by bytes."""
    python = str(mxnet.folder / "bin" / "python")
    command = [python, str(HERE / "programs" / "mxnet_exchange.py"), "--seconds", str(seconds)]
    command += ["--port", str(free_ports(1)[0]), "--bytes", *map(str, SIZES)]
    seen: dict[str, float] = json.loads(output(command, os.environ | ENVIRONMENT))["seconds"]
    return seen


def output(command: list[str], environment: dict[str, str]) -> str:
    """The last line that it writes; all its processes have ended then.

    Raises Failed.
    """
    with tempfile.TemporaryDirectory(prefix="peers-") as scratch:
        written, log = Path(scratch) / "output", Path(scratch) / "log"
        child = processes.start(command, environment | {"TMPDIR": scratch}, written, log)
        try:
            ended = child.wait(LIMIT_SECONDS)
        except subprocess.TimeoutExpired as error:
            raise Failed(f"{command[0]}: no end within {LIMIT_SECONDS:.0f} s") from error
        finally:
            processes.end(child)
        lines = written.read_text().splitlines()
        if ended != 0 or not lines:
            raise Failed(f"{command[0]} ended with {ended}: {log.read_text()[-2000:]}")
        return lines[-1]


def joined(ours: dict[str, tuple[float, float]], theirs: dict[str, float]) -> list[Exchange]:
    exchanges = []
    for count in SIZES:
        what = f"push and pull of {name(count)}"
        by_socket = ours.get(f"{what} through the socket")
        own, tcp = (seconds(count, figure) for figure in ours[what])
        exchanges.append(
            Exchange(
                count,
                own,
                None if by_socket is None else seconds(count, by_socket[0]),
                tcp,
                theirs[str(count)],
            )
        )
    return exchanges


def name(count: int) -> str:
    return f"{count // KIB} KiB" if count < MIB else f"{count // MIB} MiB"


def seconds(count: int, figure: float) -> float:
    """The bench gives microseconds of the smallest size, gigabytes a second of the others."""
    return figure / 1e6 if count < MIB else 2 * count / figure / 1e9


def table(rounds: list[Exchange]) -> str:
    """Medians; ratios are medians of the rounds' ratios."""
    lines = [["push and pull of", "gradmesh", "by socket", "TCP", "ps-lite", "gradmesh ×", "by socket ×"]]
    for count in SIZES:
        own = [one for one in rounds if one.bytes == count]
        by_socket = [one for one in own if one.gradmesh_by_socket is not None]
        lines.append(
            [
                name(count),
                figure(count, [one.gradmesh for one in own]),
                figure(count, [one.gradmesh_by_socket for one in by_socket]),
                figure(count, [one.tcp for one in own]),
                figure(count, [one.ps_lite for one in own]),
                middle([one.ps_lite / one.gradmesh for one in own]),
                middle([one.ps_lite / one.gradmesh_by_socket for one in by_socket]),
            ]
        )
    return aligned(lines)


def figure(count: int, times: list[float | None]) -> str:
    if not times:
        return "–"
    time = statistics.median(times)
    return f"{number(1e6 * time, 0)} µs" if count < MIB else f"{number(2 * count / time / 1e9, 2)} GB/s"


def middle(ratios: list[float]) -> str:
    return number(statistics.median(ratios) if ratios else None, 2)


if __name__ == "__main__":
    sys.exit(main())
