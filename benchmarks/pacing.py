"""How well the one request a second is used, beside the naive exporter on the same work."""

from __future__ import annotations

import contextlib
import math
import random
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import requests

from benchmarks.apis import Api, Apis, Counts
from benchmarks.measured import account, exporting, scrape, serving
from benchmarks.report import Figure, number, percentile, share
from tests.support.processes import Samples

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

JITTER = 0.02  # seconds that a request is late, at most
STARTED_EVERY = 0.7  # seconds between the starts of exporters: they would hold up each other
SCRAPED_EVERY, SCRAPE_TIMEOUT = 15.0, 10.0  # seconds, as in the README's scrape configuration
TO_BE_REJECTED = 8
WAITING_FOR_REJECTIONS = 1.0  # seconds between scrapes


@dataclass
class Run:
    """One exporter against one API of its own."""

    tasks: int
    latency: float
    naive: bool = False
    rejections: bool = False  # else ages are looked at
    ages: list[float] = field(default_factory=list)  # seconds, of readings, at every scrape
    read: int = 0  # tasks of which the last scrape told anything
    scrapes: list[float] = field(default_factory=list)  # seconds; infinite if not answered in time
    delays: list[float] = field(default_factory=list)  # seconds from the rejection to the exposition
    window: tuple[Counts, Counts] | None = None

    @property
    def under(self) -> str:
        """What tells it from others."""
        return f"{self.tasks} tasks, answers of {self.latency:g} s ± 50 %"

    @property
    def used(self) -> float:
        """Percent of the requests that the limit allows that were answered."""
        before, after = self._window
        return share(after.accepted - before.accepted, after.at - before.at)

    @property
    def refused(self) -> float:
        """Percent of the requests that were made."""
        before, after = self._window
        refused = after.refused - before.refused
        return share(refused, refused + after.accepted - before.accepted)

    @property
    def _window(self) -> tuple[Counts, Counts]:
        assert self.window  # it has been run
        return self.window


def measure(repeat: int, *, quick: bool = False) -> Iterator[Figure]:
    """All runs side by side: each makes one request a second, which keeps no core busy."""
    sizes, latencies, seconds = ((40,), (0.02, 2.0), 120.0) if quick else ((40, 300), (0.02, 0.2, 2.0), 300.0)
    runs = [Run(tasks, latency) for tasks in sizes for latency in latencies for _ in range(repeat)]
    runs += [Run(tasks, latency, naive=True) for tasks in sizes for latency in latencies]
    runs += [Run(40, 0.2, rejections=True) for _ in range(repeat)]
    runs += [Run(40, 0.2, rejections=True, naive=True)]
    apis = [
        Api(
            run.tasks + TO_BE_REJECTED,
            (f"key{at}",),
            (run.latency / 2, run.latency * 1.5),
            seed=at,
            jitter=JITTER,
        )
        for at, run in enumerate(runs)
    ]
    warm = time.monotonic() + STARTED_EVERY * len(runs) + 1.1 * max(sizes) + 2 * SCRAPED_EVERY
    with Apis(apis) as served, ThreadPoolExecutor(len(runs)) as threads:
        gate = threading.Lock()  # one command at a time
        list(
            threads.map(lambda at: _watch(at, runs[at], served, gate, warm, warm + seconds), range(len(runs)))
        )
    for tasks in sizes:
        for latency in latencies:
            alike = [
                run for run in runs if (run.tasks, run.latency, run.rejections) == (tasks, latency, False)
            ]
            ours, naive = [run for run in alike if not run.naive], next(run for run in alike if run.naive)
            yield from _told(ours, naive)
    rejected = [run for run in runs if run.rejections]
    seen = next(run for run in rejected if run.naive)
    yield Figure(
        "from “rejected” at the API to the exposition, median",
        f"{rejected[0].under}, scraped every second",
        [percentile(run.delays or [math.inf], 50) for run in rejected if not run.naive],
        "s",
        f"ideal {(40 + TO_BE_REJECTED / 2) / 2:g} s; naive: {len(seen.delays)} of {TO_BE_REJECTED} seen",
    )
    yield Figure(
        "the same, longest",
        rejected[0].under,
        [max(run.delays, default=math.inf) for run in rejected if not run.naive],
        "s",
        f"ideal {40 + TO_BE_REJECTED} s",
    )


def _told(ours: Sequence[Run], naive: Run) -> Iterator[Figure]:
    tasks, under = naive.tasks, naive.under
    yield Figure(
        "budget used", under, [run.used for run in ours], "%", f"limit ≥ 95 %; naive {number(naive.used)} %"
    )
    yield Figure(
        "requests refused",
        under,
        [run.refused for run in ours],
        "%",
        f"limit ≤ 2 %; naive {number(naive.refused)} %",
    )
    age = "age of readings"
    yield Figure(
        f"{age}, median", under, [percentile(run.ages, 50) for run in ours], "s", f"ideal {tasks / 2:g} s"
    )
    oldest = [percentile(run.ages, 99) for run in ours]
    yield Figure(f"{age}, 99th percentile", under, oldest, "s", f"ideal {0.99 * tasks:g} s")
    known = (
        f"naive: {naive.read} of {tasks} tasks ever read" if naive.read else "naive: no scrape ever answered"
    )
    yield Figure(f"{age}, oldest", under, [max(run.ages) for run in ours], "s", f"ideal {tasks} s; {known}")
    yield Figure(
        "longest scrape", under, [max(run.scrapes) for run in ours], "s", f"limit {SCRAPE_TIMEOUT:g} s"
    )


def _watch(at: int, run: Run, apis: Apis, gate: threading.Lock, warm: float, end: float) -> None:  # noqa: PLR0913, PLR0917 - what a thread has to know
    time.sleep(STARTED_EVERY * at)
    with contextlib.ExitStack() as stack:
        tasks = run.tasks + (TO_BE_REJECTED if run.rejections else 0)
        key = f"key{at}"
        if run.naive:
            url, _ = stack.enter_context(serving("naive", apis.urls[at], key, str(tasks)))
        else:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            config = account(apis.urls[at], key, range(1, tasks + 1))
            exporter, _ = stack.enter_context(exporting(folder, config))
            url = f"{exporter.url}/metrics"
        every = WAITING_FOR_REJECTIONS if run.rejections else SCRAPED_EVERY
        _scrapes(run, url, every, warm, None)  # until the readings are as they will be
        with gate:
            before = apis.counts()[at]
        _scrapes(run, url, every, end, _Rejections(at, apis, gate, end) if run.rejections else None)
        with gate:
            run.window = before, apis.counts()[at]
        if run.read < run.tasks and not run.naive:
            raise RuntimeError(f"{run.under}: {run.read} have been read")


class _Rejections:
    """Rejects one task after the other at random moments, the last one so that there is time to see it."""

    def __init__(self, at: int, apis: Apis, gate: threading.Lock, end: float) -> None:
        self._at, self._apis, self._gate = at, apis, gate
        now = time.monotonic()
        chance = random.Random(at)  # noqa: S311 - moments, no secrets
        latest = max(now, end - 60.0)
        self._planned = sorted(chance.uniform(now, latest) for _ in range(TO_BE_REJECTED))
        self._pending: dict[int, float] = {}
        self._next = 1

    def look(self, samples: Samples, delays: list[float]) -> None:
        """Reject what is due, and note what a scrape has just shown."""
        now = time.monotonic()
        for labels, value in samples.all("mobizon_task_status"):
            task = int(labels["task_id"])
            if value == 3 and task in self._pending:  # noqa: PLR2004 - rejected
                delays.append(now - self._pending.pop(task))
        while self._planned and self._planned[0] <= now:
            self._planned.pop(0)
            with self._gate:
                self._pending[self._next] = self._apis.reject(self._at, self._next)
            self._next += 1


def _scrapes(run: Run, url: str, every: float, until: float, rejections: _Rejections | None) -> None:
    """Scrape until then; what the scrapes tell replaces what earlier ones told."""
    run.ages, run.scrapes = [], []
    due = time.monotonic() + random.uniform(0, min(every, until - time.monotonic()))  # noqa: S311 - so that they do not all come at once
    while due < until:
        time.sleep(max(0.0, due - time.monotonic()))
        due = max(due + every, time.monotonic())
        try:
            text, took = scrape(url, SCRAPE_TIMEOUT)
        except requests.RequestException:
            run.scrapes.append(math.inf)
            continue
        run.scrapes.append(took)
        samples, now = Samples(text), time.time()
        read = samples.all("mobizon_task_last_success_timestamp_seconds")
        run.read = len(read)
        if rejections:
            rejections.look(samples, run.delays)
        else:
            run.ages += [now - taken_at for _, taken_at in read]
