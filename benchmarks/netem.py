"""Measures what a network that is slow and loses packets makes of the exporter and its peers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks import link
from benchmarks.pacing import compare
from benchmarks.peers import KINDS
from benchmarks.report import Figure, Skipped
from benchmarks.runs import Condition, Run, run_all

if TYPE_CHECKING:
    from collections.abc import Iterator

CONDITION = Condition(jitter=0.0, link=link.Link(delay=0.075, loss=0.01))
LEARNING, WINDOW = 120.0, 180.0  # seconds


def measure(repeat: int, *, quick: bool = False) -> Iterator[Figure]:
    """The APIs are in a network namespace of their own; Skipped where that cannot be."""
    if reason := link.obstacle():
        raise Skipped(reason)
    runs = [Run(CONDITION) for _ in range(repeat)] + [Run(CONDITION, kind) for kind in KINDS]
    run_all(runs, *((50.0, 60.0) if quick else (LEARNING, WINDOW)))
    yield from compare(CONDITION, runs, f"by {link.means()}; ")
    ours = [run.failures for run in runs if not run.peer]
    for reason in ours[0]:
        if any(failures[reason] for failures in ours):
            yield Figure(f"failures: {reason}", str(CONDITION), [each[reason] for each in ours], "requests")
