"""The processes of one system, from its start to the end of the last of them."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import time
from pathlib import Path

# Of prctl(2): orphans among our descendants become our children, so that none is lost.
PR_SET_CHILD_SUBREAPER = 36
# What a system has to end itself in.
END_SECONDS = 5.0
LOOK_EVERY_SECONDS = 0.05


def adopt_orphans() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


def start(command: list[str], environment: dict[str, str], output: Path, log: Path) -> subprocess.Popen[bytes]:
    """In a session of its own: a Ctrl-C in the terminal is for the driver, which ends it."""
    with output.open("wb") as stdout, log.open("wb") as stderr:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            env=environment,
            start_new_session=True,
        )


def descendants() -> list[int]:
    """All processes below this one."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        # A process may end at any moment.
        with contextlib.suppress(OSError, ValueError):
            pid = int(entry.name)
            # The name in parentheses may hold anything.
            fields = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()
            children.setdefault(int(fields[1]), []).append(pid)
    found = []
    waiting = [os.getpid()]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def end(child: subprocess.Popen[bytes]) -> None:
    """Asks it to end itself, then kills all that is left below this process."""
    child.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(END_SECONDS)
    while left := descendants():
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        child.poll()
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        time.sleep(LOOK_EVERY_SECONDS)
