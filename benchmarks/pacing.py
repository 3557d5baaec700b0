"""Measures how much of the request budget the exporter and its peers use on the same tasks."""

from __future__ import annotations

import contextlib
import itertools
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
from benchmarks.peers import KINDS
from benchmarks.report import Figure, number, percentile, share
from tests.support.processes import Samples

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

MAX_JITTER = 0.02  # seconds that a request is delayed
START_DELAY = 0.7  # seconds between the starts of exporters, which would slow each other down
SCRAPE_INTERVAL, SCRAPE_TIMEOUT = 15.0, 10.0  # seconds, as in the README's scrape configuration
REJECTED_TASKS = 8
REJECTIONS_SCRAPE_INTERVAL = 1.0  # seconds
PROBE_INTERVAL = 60.0  # seconds: Prometheus's default scrape_interval, for targets of one task each


@dataclass
class Run:
    """One exporter against one API of its own."""

    tasks: int
    latency: float
    peer: str = ""  # one of peers.KINDS; none: this exporter
    rejections: bool = False  # measure the delay of rejections, not the age of readings
    ages: list[float] = field(default_factory=list)  # of the readings in every scrape, in seconds
    read: int = 0  # tasks with a reading in the last scrape, or in the last probe of each
    scrapes: list[float] = field(default_factory=list)  # seconds; infinite if not answered in time
    delays: list[float] = field(default_factory=list)  # seconds from a rejection at the API to its exposition
    window: tuple[Counts, Counts] | None = None

    @property
    def conditions(self) -> str:
        """The conditions of the run, as the report shows them."""
        return f"{self.tasks} tasks, answers of {self.latency:g} s ± 50 %"

    @property
    def used(self) -> float:
        """Requests accepted, in percent of those that the limit allows."""
        before, after = self._window
        return share(after.accepted - before.accepted, after.at - before.at)

    @property
    def refused(self) -> float:
        """Requests refused, in percent of those sent."""
        before, after = self._window
        refused = after.refused - before.refused
        return share(refused, refused + after.accepted - before.accepted)

    @property
    def _window(self) -> tuple[Counts, Counts]:
        assert self.window  # it has been run
        return self.window


def measure(repeat: int, *, quick: bool = False) -> Iterator[Figure]:
    """Run all side by side: each sends one request a second, which keeps no core busy."""
    sizes, latencies, seconds = ((40,), (0.2,), 120.0) if quick else ((40, 300), (0.2, 2.0), 300.0)
    runs = [Run(tasks, latency) for tasks in sizes for latency in latencies for _ in range(repeat)]
    runs += [Run(tasks, latency, kind) for tasks in sizes for latency in latencies for kind in KINDS]
    runs += [Run(40, 0.2, rejections=True) for _ in range(repeat)]
    runs += [Run(40, 0.2, kind, rejections=True) for kind in KINDS]
    apis = [
        Api(
            run.tasks + REJECTED_TASKS,
            (f"key{at}",),
            (run.latency / 2, run.latency * 1.5),
            seed=at,
            jitter=MAX_JITTER,
        )
        for at, run in enumerate(runs)
    ]
    warm = time.monotonic() + START_DELAY * len(runs) + 1.1 * max(sizes) + 2 * SCRAPE_INTERVAL
    with Apis(apis) as served, ThreadPoolExecutor(len(runs)) as threads:
        lock = threading.Lock()  # one command to the API process at a time
        list(
            threads.map(
                lambda at: _measure_run(at, runs[at], served, lock, warm, warm + seconds), range(len(runs))
            )
        )
    for tasks in sizes:
        for latency in latencies:
            same = [
                run for run in runs if (run.tasks, run.latency, run.rejections) == (tasks, latency, False)
            ]
            yield from _compare(
                [run for run in same if not run.peer], {run.peer: run for run in same if run.peer}
            )
    rejected = [run for run in runs if run.rejections]
    seen = ", ".join(f"{run.peer} {len(run.delays)}" for run in rejected if run.peer)
    yield Figure(
        "from “rejected” at the API to the exposition, median",
        f"{rejected[0].conditions}, scraped every second",
        [percentile(run.delays or [math.inf], 50) for run in rejected if not run.peer],
        "s",
        f"ideal {(40 + REJECTED_TASKS / 2) / 2:g} s; seen of {REJECTED_TASKS}: {seen}",
    )
    yield Figure(
        "the same, longest",
        f"{rejected[0].conditions}, scraped every second",
        [max(run.delays, default=math.inf) for run in rejected if not run.peer],
        "s",
        f"ideal {40 + REJECTED_TASKS} s",
    )


def _compare(ours: Sequence[Run], peers: Mapping[str, Run]) -> Iterator[Figure]:
    tasks, conditions = ours[0].tasks, ours[0].conditions

    def beside(value: Callable[[Run], str]) -> str:
        return ", ".join(f"{kind} {value(run)}" for kind, run in peers.items())

    used = f"limit ≥ 95 %; {beside(lambda run: f'{number(run.used)} %')}"
    yield Figure("budget used", conditions, [run.used for run in ours], "%", used)
    refused = f"limit ≤ 2 %; {beside(lambda run: f'{number(run.refused)} %')}"
    yield Figure("requests refused", conditions, [run.refused for run in ours], "%", refused)
    age = "age of readings"
    median = [percentile(run.ages, 50) for run in ours]
    yield Figure(f"{age}, median", conditions, median, "s", f"ideal {tasks / 2:g} s")
    read = f"ideal {tasks} s; tasks read by the last scrape: {beside(lambda run: str(run.read))}"
    yield Figure(f"{age}, oldest", conditions, [max(run.ages) for run in ours], "s", read)
    yield Figure(
        "longest scrape", conditions, [max(run.scrapes) for run in ours], "s", f"limit {SCRAPE_TIMEOUT:g} s"
    )


def _measure_run(at: int, run: Run, apis: Apis, lock: threading.Lock, warm: float, end: float) -> None:  # noqa: PLR0913, PLR0917 - the arguments of a thread
    time.sleep(START_DELAY * at)
    with contextlib.ExitStack() as stack:
        tasks = run.tasks + (REJECTED_TASKS if run.rejections else 0)
        key = f"key{at}"
        if run.peer:
            url, _ = stack.enter_context(serving("peers", run.peer, apis.urls[at], key, str(tasks)))
        else:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            config = account(apis.urls[at], key, range(1, tasks + 1))
            exporter, _ = stack.enter_context(exporting(folder, config))
            url = f"{exporter.url}/metrics"
        every = REJECTIONS_SCRAPE_INTERVAL if run.rejections else SCRAPE_INTERVAL
        _scrape_until(run, url, every, warm, None)  # until the readings have their steady-state age
        with lock:
            before = apis.counts()[at]
        _scrape_until(run, url, every, end, _Rejections(at, apis, lock, end) if run.rejections else None)
        with lock:
            run.window = before, apis.counts()[at]
        if run.read < run.tasks and not run.peer:
            raise RuntimeError(f"{run.conditions}: {run.read} have been read")


class _Rejections:
    """Rejects one task after another at random times, leaving time to see the last one."""

    def __init__(self, at: int, apis: Apis, lock: threading.Lock, end: float) -> None:
        self._at, self._apis, self._lock = at, apis, lock
        self._updating = threading.Lock()  # probes come at the same time
        now = time.monotonic()
        chance = random.Random(at)  # noqa: S311 - moments, no secrets
        latest = max(now, end - 60.0)
        self._planned = sorted(chance.uniform(now, latest) for _ in range(REJECTED_TASKS))
        self._pending: dict[int, float] = {}
        self._next = 1

    def update(self, samples: Samples, delays: list[float]) -> None:
        """Reject what is due, and record the delays of rejections that a scrape has just shown."""
        with self._updating:
            self._update(samples, delays)

    def _update(self, samples: Samples, delays: list[float]) -> None:
        now = time.monotonic()
        for labels, value in samples.all("mobizon_task_status"):
            task = int(labels["task_id"])
            if value == 3 and task in self._pending:  # noqa: PLR2004 - rejected
                delays.append(now - self._pending.pop(task))
        while self._planned and self._planned[0] <= now:
            self._planned.pop(0)
            with self._lock:
                self._pending[self._next] = self._apis.reject(self._at, self._next)
            self._next += 1


def _scrape_until(run: Run, url: str, every: float, until: float, rejections: _Rejections | None) -> None:
    """Scrape until the time `until`; results replace those of earlier calls."""
    if run.peer == "generic":
        _probe_until(run, url, until, rejections)
        return
    run.ages, run.scrapes = [], []
    due = time.monotonic() + random.uniform(0, min(every, until - time.monotonic()))  # noqa: S311 - spreads the scrapes of all runs
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
            rejections.update(samples, run.delays)
        else:
            run.ages += [now - taken_at for _, taken_at in read]


def _probe_until(run: Run, url: str, until: float, rejections: _Rejections | None) -> None:
    """Scrape a target for each task, at a time of its own in the interval, as Prometheus spreads them.

    Prometheus takes that time from a hash of the target's labels, so it is the same in every interval.
    """
    chance = random.Random(run.tasks)  # noqa: S311 - spreads requests, keeps no secret
    tasks = range(1, run.tasks + (REJECTED_TASKS if run.rejections else 0) + 1)
    times = sorted((chance.uniform(0, PROBE_INTERVAL), task) for task in tasks)
    began, read = time.monotonic(), dict.fromkeys(tasks, False)
    with ThreadPoolExecutor(len(tasks)) as threads:
        for turn in itertools.count():
            for offset, task in times:
                at = began + turn * PROBE_INTERVAL + offset
                if at >= until:
                    run.read = sum(read.values())
                    return
                time.sleep(max(0.0, at - time.monotonic()))
                threads.submit(_probe, run, f"{url}?task={task}", task, read, rejections)


def _probe(run: Run, url: str, task: int, read: dict[int, bool], rejections: _Rejections | None) -> None:
    try:
        samples = Samples(scrape(url, SCRAPE_TIMEOUT)[0])
    except requests.RequestException:
        read[task] = False
        return
    read[task] = bool(samples.all("mobizon_task_last_success_timestamp_seconds"))
    if rejections:
        rejections.update(samples, run.delays)
