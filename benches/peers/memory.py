"""Peak memory of all processes of a system."""

from __future__ import annotations

import contextlib
import threading
import time
from pathlib import Path
from types import TracebackType

import processes

LOOK_EVERY_SECONDS = 0.1
# A look walks the pages of all processes: it may take at most this part of the time.
LOOKS_MAX = 0.03


class Memory:
    """Looks from time to time while it is entered; bytes.

    `rss_peak` adds the peaks that the kernel keeps of each process, at whatever moments they were.
    `pss_peak` counts a page once that several processes have; a peak between two looks is missed.
    """

    def __init__(self) -> None:
        self.rss_peak = 0
        self.pss_peak = 0
        self._over = threading.Event()
        self._looks = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Memory:
        self._looks.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._looks.join()

    def _run(self) -> None:
        pause = 0.0
        while not self._over.wait(pause):
            started = time.monotonic()
            self._look()
            pause = max(LOOK_EVERY_SECONDS, (time.monotonic() - started) / LOOKS_MAX)

    def _look(self) -> None:
        rss = pss = 0
        for pid in processes.descendants():
            # A process may end at any moment.
            with contextlib.suppress(OSError):
                rss += kibibytes(Path(f"/proc/{pid}/status"), "VmHWM") << 10
                pss += kibibytes(Path(f"/proc/{pid}/smaps_rollup"), "Pss") << 10
        self.rss_peak = max(self.rss_peak, rss)
        self.pss_peak = max(self.pss_peak, pss)


def kibibytes(file: Path, key: str) -> int:
    for line in file.read_text().splitlines():
        name, _, value = line.partition(":")
        if name == key:
            return int(value.split()[0])
    # A process that is ending has no memory.
    return 0
