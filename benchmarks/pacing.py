"""Measures how much of the request budget the exporter and its peers use on the same tasks."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from benchmarks.peers import KINDS
from benchmarks.rejections import REJECTED_TASKS
from benchmarks.report import Figure, number, percentile
from benchmarks.runs import SCRAPE_TIMEOUT, Condition, Run, run_all

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

CONDITIONS = (
    Condition(),
    Condition(jitter=0.005),
    Condition(jitter=0.08),
    Condition(latency=2.0),
    Condition(tasks=300),
    Condition(tls=False),
)
REJECTIONS = Condition(rejections=True)
LEARNING = 320.0  # seconds: the margin learns for 300, and 300 tasks take as long
WINDOW = 300.0  # seconds
TOLERANCE = 0.5  # percent of the budget that may be lost to more than spacing


def measure(repeat: int, *, quick: bool = False) -> Iterator[Figure]:
    """Run all side by side: each sends one request a second, which keeps no core busy."""
    learning, seconds = (60.0, 60.0) if quick else (LEARNING, WINDOW)
    conditions = [each for each in CONDITIONS if not quick or each.tasks < learning]
    runs = [Run(each) for each in (*conditions, REJECTIONS) for _ in range(repeat)]
    runs += [Run(each, kind) for each in (*conditions, REJECTIONS) for kind in KINDS]
    run_all(runs, learning, seconds)
    for condition in conditions:
        best = 100 / (1 + condition.jitter)
        limit = f"limit ≥ {number(best - TOLERANCE)} %; spacing alone can do {number(best)} %; "
        yield from compare(condition, runs, limit)
    rejected = [run for run in runs if run.condition == REJECTIONS]
    ours = [run.delays or [math.inf] for run in rejected if not run.peer]
    seen = ", ".join(f"{run.peer} {len(run.delays)}" for run in rejected if run.peer)
    under = f"{REJECTIONS}, scraped every second"
    yield Figure(
        "from “rejected” at the API to the exposition, median",
        under,
        [percentile(delays, 50) for delays in ours],
        "s",
        f"ideal {(REJECTIONS.tasks + REJECTED_TASKS / 2) / 2:g} s; seen of {REJECTED_TASKS}: {seen}",
    )
    longest = [max(delays) for delays in ours]
    yield Figure("the same, longest", under, longest, "s", f"ideal {REJECTIONS.tasks + REJECTED_TASKS} s")


def compare(condition: Condition, runs: Sequence[Run], limit: str) -> Iterator[Figure]:
    """What this exporter and its peers did under a condition."""
    ours = [run for run in runs if run.condition == condition and not run.peer]
    peers = [run for run in runs if run.condition == condition and run.peer]
    tasks, under = condition.tasks, str(condition)

    def beside(value: Callable[[Run], str]) -> str:
        return ", ".join(f"{run.peer} {value(run)}" for run in peers)

    used = limit + beside(lambda run: f"{number(run.used)} %")
    yield Figure("budget used", under, [run.used for run in ours], "%", used)
    refused = f"limit ≤ 2 %; {beside(lambda run: f'{number(run.refused)} %')}"
    yield Figure("requests refused", under, [run.refused for run in ours], "%", refused)
    median = [percentile(run.ages, 50) for run in ours]
    yield Figure("age of readings, median", under, median, "s", f"ideal {tasks / 2:g} s")
    read = f"ideal {tasks} s; tasks read by the last scrape: {beside(lambda run: str(run.read))}"
    yield Figure("age of readings, oldest", under, [max(run.ages) for run in ours], "s", read)
    slowest = [max(run.scrapes) for run in ours]
    yield Figure("longest scrape", under, slowest, "s", f"limit {SCRAPE_TIMEOUT:g} s")
