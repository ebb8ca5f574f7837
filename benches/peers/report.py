"""What all rounds come to: a table for people, and JSON."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from task import Model, Seen, Task

# What all others are divided by.
OURS = ("gradmesh", "gradmesh-pairs", "gradmesh-embedded")
Cell = str


@dataclass(frozen=True)
class Outcome:
    """One system's measurement in one round, or why there is none."""

    system: str
    label: str
    model: str
    round: int
    start_seconds: float | None = None
    rss_peak_bytes: int | None = None
    pss_peak_bytes: int | None = None
    seen: Seen | None = None
    error: str | None = None

    @property
    def samples_a_second(self) -> float | None:
        return self.seen.samples / self.seen.seconds if self.seen else None

    @property
    def steps_a_second(self) -> float | None:
        return self.seen.steps / self.seen.seconds if self.seen else None

    @property
    def accuracy(self) -> float | None:
        return self.seen.accuracy if self.seen else None

    @property
    def accuracy_seconds(self) -> float | None:
        return self.seen.accuracy_seconds if self.seen else None


def as_json(outcomes: Sequence[Outcome], task: Task) -> dict[str, Any]:
    """All that was measured, and the summary of each model and system."""
    summary = []
    for name in dict.fromkeys(outcome.model for outcome in outcomes):
        rows = [outcome for outcome in outcomes if outcome.model == name]
        for system in dict.fromkeys(outcome.system for outcome in rows):
            own = [outcome for outcome in rows if outcome.system == system]
            summary.append(
                {
                    "model": name,
                    "system": system,
                    "samples_a_second": spread(own, rate),
                    "steps_a_second": spread(own, lambda outcome: outcome.steps_a_second),
                    "accuracy_seconds": spread(own, lambda outcome: outcome.accuracy_seconds),
                    "start_seconds": spread(own, lambda outcome: outcome.start_seconds),
                    "rss_peak_bytes": spread(own, lambda outcome: outcome.rss_peak_bytes),
                    "pss_peak_bytes": spread(own, lambda outcome: outcome.pss_peak_bytes),
                    "times": {ours: times(rows, ours, system, task) for ours in OURS},
                }
            )
    measured = [dataclasses.asdict(outcome) for outcome in outcomes]
    return {"seconds": task.seconds, "accuracy": task.accuracy, "summary": summary, "measured": measured}


def as_table(outcomes: Sequence[Outcome], model: Model, task: Task) -> str:
    """Medians, with the least and the most in parentheses; ratios are medians of the rounds'."""
    rows = [outcome for outcome in outcomes if outcome.model == model.name]
    to_goal = task.accuracy is not None
    figure = f"s to {task.accuracy:.1%}" if to_goal else "samples/s"
    header = [model.name, figure, "steps/s", "gradmesh ×", "pairs ×", "embedded ×", "start s", "RSS MB", "PSS MB", "accuracy"]
    lines = [header]
    for system in dict.fromkeys(outcome.system for outcome in rows):
        own = [outcome for outcome in rows if outcome.system == system]
        if all(outcome.error for outcome in own):
            lines.append([own[0].label, f"failed: {own[-1].error}", *[""] * (len(header) - 2)])
            continue
        ratios = ["" if system == ours else number(times(rows, ours, system, task), 2) for ours in OURS]
        lines.append(
            [
                own[0].label,
                cell(own, lambda outcome: outcome.accuracy_seconds, 1) if to_goal else cell(own, rate, 0),
                cell(own, lambda outcome: outcome.steps_a_second, 1),
                *ratios,
                cell(own, lambda outcome: outcome.start_seconds, 2),
                cell(own, lambda outcome: megabytes(outcome.rss_peak_bytes), 0),
                cell(own, lambda outcome: megabytes(outcome.pss_peak_bytes), 0),
                number(median(own, lambda outcome: outcome.accuracy), 4),
            ]
        )
    return aligned(lines)


Figure = Callable[[Outcome], float | None]


def rate(outcome: Outcome) -> float | None:
    return outcome.samples_a_second


def megabytes(count: int | None) -> float | None:
    return None if count is None else count / 1e6


def known(outcomes: Sequence[Outcome], figure: Figure) -> list[float]:
    return [value for value in map(figure, outcomes) if value is not None]


def median(outcomes: Sequence[Outcome], figure: Figure) -> float | None:
    values = known(outcomes, figure)
    return statistics.median(values) if values else None


def spread(outcomes: Sequence[Outcome], figure: Figure) -> dict[str, float] | None:
    values = known(outcomes, figure)
    if not values:
        return None
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def times(rows: Sequence[Outcome], ours: str, system: str, task: Task) -> float | None:
    """How many times as fast `ours` is: the median of the rounds in which both were measured."""
    figure: Figure = rate if task.accuracy is None else (lambda outcome: outcome.accuracy_seconds)
    others = {row.round: figure(row) for row in rows if row.system == system}
    ratios = []
    for row in rows:
        own, other = figure(row), others.get(row.round)
        if row.system == ours and own and other:
            ratios.append(own / other if task.accuracy is None else other / own)
    return statistics.median(ratios) if ratios else None


def cell(outcomes: Sequence[Outcome], figure: Figure, digits: int) -> Cell:
    values = known(outcomes, figure)
    if not values:
        return "–"
    middle = number(statistics.median(values), digits)
    if len(values) == 1:
        return middle
    return f"{middle} ({number(min(values), digits)}..{number(max(values), digits)})"


def number(value: float | None, digits: int) -> Cell:
    return "–" if value is None else f"{value:,.{digits}f}"


def aligned(lines: Sequence[Sequence[Cell]]) -> str:
    """A table as Markdown has it, which is also readable as it is."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rule = ["-" * width for width in widths]
    return "\n".join(
        "| " + " | ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)) + " |"
        for line in [lines[0], rule, *lines[1:]]
    )
