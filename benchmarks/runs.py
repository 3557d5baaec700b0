"""Runs exporters side by side, each against an API of its own, and scrapes them as Prometheus does."""

from __future__ import annotations

import itertools
import math
import os
import random
import tempfile
import threading
import time
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import requests

from benchmarks.apis import Api, Apis, Counts
from benchmarks.measured import exporting_read, scrape, serving
from benchmarks.rejections import REJECTED_TASKS, Rejections
from benchmarks.report import share
from tests.support.certificates import Authority, ip
from tests.support.processes import Samples

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.link import Link

KEY = "key"
START_DELAY = 0.7  # seconds between the starts of exporters, which would slow each other down
SCRAPE_INTERVAL, SCRAPE_TIMEOUT = 15.0, 10.0  # seconds
REJECTIONS_SCRAPE_INTERVAL = 1.0  # seconds
PEERS_NICENESS = 15  # and that of their APIs: they are not to disturb this exporter
PROBE_INTERVAL = 60.0  # seconds: Prometheus's default scrape_interval, for targets of one task each


@dataclass(frozen=True)
class Condition:
    """Of a run: its tasks, answers of `latency` seconds ± 50 %, requests up to `jitter` seconds late."""

    tasks: int = 40
    latency: float = 0.2
    jitter: float = 0.02
    tls: bool = True
    rejections: bool = False  # measure the delay of rejections, not the age of readings
    link: Link | None = None

    def __str__(self) -> str:
        over = "TLS" if self.tls else "plain HTTP"
        late = f", requests up to {self.jitter * 1000:g} ms late" if self.jitter else ""
        lost = (
            f", round trip of {self.link.delay * 2000:g} ms, {self.link.loss * 100:g} % of packets lost"
            if self.link
            else ""
        )
        return f"{self.tasks} tasks over {over}, answers of {self.latency:g} s ± 50 %{late}{lost}"


@dataclass
class Run:
    """One exporter, and what was seen of it in the time that counts."""

    condition: Condition
    peer: str = ""  # one of peers.KINDS; none: this exporter
    ages: list[float] = field(default_factory=list)  # of the readings in every scrape, in seconds
    read: int = 0  # tasks with a reading in the last scrape, or in the last probe of each
    scrapes: list[float] = field(default_factory=list)  # seconds; infinite if not answered in time
    delays: list[float] = field(default_factory=list)  # seconds from a rejection at the API to its exposition
    failures: dict[str, float] = field(default_factory=dict)  # by reason, as this exporter counts them
    window: tuple[Counts, Counts] | None = None

    @property
    def used(self) -> float:
        """Requests accepted, in percent of those that the limit allows."""
        before, after = self._window
        return share(after.accepted - before.accepted, after.at - before.at)

    @property
    def refused(self) -> float:
        """Requests refused, in percent of those that arrived."""
        before, after = self._window
        refused = after.refused - before.refused
        return share(refused, refused + after.accepted - before.accepted)

    @property
    def _window(self) -> tuple[Counts, Counts]:
        assert self.window  # it has been run
        return self.window


def run_all(runs: Sequence[Run], learning: float, seconds: float) -> None:
    """Let all run for so many seconds, after others in which they learn to pace.

    This exporter has read every task by then: at first its APIs have no limit. Those of its peers are in a
    process of their own, which asking for all tasks at once keeps busy.
    """
    warm = time.monotonic() + START_DELAY * len(runs) + learning
    with ExitStack() as stack, ThreadPoolExecutor(len(runs)) as threads:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        authority = Authority(folder)
        # Peers read theirs for every connection: the usual ones would keep both cores busy.
        trust, trust_of_peers = authority.beside_usual_ones(), authority.cert
        started: list[Future[None]] = []
        stopped = threading.Event()
        groups: dict[tuple[bool, bool], list[Run]] = {}
        for run in runs:
            groups.setdefault((run.condition.tls, bool(run.peer)), []).append(run)
        for number, ((tls, peers), group) in enumerate(groups.items()):
            link = group[0].condition.link
            behind = link and link._replace(number=number)
            host = ip(behind.there if behind else "127.0.0.1")
            certificate = authority.issue(f"server{number}", host).files if tls else None
            apis = stack.enter_context(
                Apis([_api(run, at) for at, run in enumerate(group)], certificate, behind, one_core=False)
            )
            trusted = trust_of_peers if peers else trust
            if peers:
                os.setpriority(os.PRIO_PROCESS, apis.pid, PEERS_NICENESS)
            for at, run in enumerate(group):
                measurement = _Measurement(run, apis, at, trusted if tls else None, stopped)
                delay = START_DELAY * len(started)
                started.append(threads.submit(measurement.run, delay, warm, warm + seconds))
        try:
            for each in wait(started, return_when=FIRST_EXCEPTION).done:
                each.result()
        finally:
            stopped.set()  # one that fails, or Ctrl-C, ends all


def _api(run: Run, seed: int) -> Api:
    of = run.condition
    latency = (of.latency / 2, of.latency * 1.5)
    return Api(_listed(of), (KEY,), latency, seed=seed, jitter=of.jitter, limited=bool(run.peer))


def _listed(condition: Condition) -> int:
    return condition.tasks + (REJECTED_TASKS if condition.rejections else 0)


class _Measurement:
    """A run against one of the APIs."""

    def __init__(
        self, run: Run, apis: Apis, at: int, authority: Path | None, stopped: threading.Event
    ) -> None:
        self._run = run
        self._apis = apis
        self._at = at
        self._authority = authority
        self._stopped = stopped
        self._tasks = _listed(run.condition)

    def run(self, delay: float, warm: float, end: float) -> None:
        self._pause(delay)
        run, url = self._run, self._apis.urls[self._at]
        with ExitStack() as stack:
            if run.peer:
                trusted = [str(self._authority)] if self._authority else []
                self._url, process = stack.enter_context(
                    serving("peers", run.peer, url, KEY, str(self._tasks), *trusted)
                )
                os.setpriority(os.PRIO_PROCESS, process.pid, PEERS_NICENESS)
            else:
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
                exporter, _ = stack.enter_context(
                    exporting_read(folder, url, KEY, self._tasks, ca_file=self._authority)
                )
                requests.post(f"{exporter.url}/-/reload", timeout=60).raise_for_status()
                self._apis.limit(self._at)
                self._url = f"{exporter.url}/metrics"
            self._until(warm, None)
            before, failures = self._apis.counts()[self._at], run.failures
            rejections = Rejections(self._apis, self._at, end) if run.condition.rejections else None
            self._until(end, rejections)
            run.window = before, self._apis.counts()[self._at]
            if run.read < run.condition.tasks and not run.peer:
                raise RuntimeError(f"{run.condition}: {run.read} have been read")
        run.failures = {why: count - failures.get(why, 0) for why, count in run.failures.items()}

    def _pause(self, seconds: float) -> None:
        if self._stopped.wait(max(0.0, seconds)):
            raise InterruptedError

    def _until(self, end: float, rejections: Rejections | None) -> None:
        """Scrape; results replace those of earlier calls."""
        if self._run.peer == "generic":
            self._probe_until(end, rejections)
            return
        run = self._run
        run.ages, run.scrapes = [], []
        every = REJECTIONS_SCRAPE_INTERVAL if run.condition.rejections else SCRAPE_INTERVAL
        due = time.monotonic() + random.uniform(0, min(every, max(0.0, end - time.monotonic())))  # noqa: S311 - spreads the scrapes of all runs
        while due < end:
            self._pause(due - time.monotonic())
            due = max(due + every, time.monotonic())
            try:
                text, took = scrape(self._url, SCRAPE_TIMEOUT)
            except requests.RequestException:
                run.scrapes.append(math.inf)
                continue
            run.scrapes.append(took)
            samples, now = Samples(text), time.time()
            read = samples.all("mobizon_task_last_success_timestamp_seconds")
            failed = samples.all("mobizon_api_request_failures_total")
            run.read, run.failures = len(read), {labels["reason"]: value for labels, value in failed}
            if rejections:
                rejections.update(samples, run.delays)
            else:
                run.ages += [now - taken_at for _, taken_at in read]

    def _probe_until(self, end: float, rejections: Rejections | None) -> None:
        """Scrape a target for each task, at a time of its own in the interval, as Prometheus spreads them.

        Prometheus takes that time from a hash of the target's labels, so it is the same in every interval.
        """
        chance = random.Random(self._tasks)  # noqa: S311 - spreads requests, keeps no secret
        tasks = range(1, self._tasks + 1)
        times = sorted((chance.uniform(0, PROBE_INTERVAL), task) for task in tasks)
        began, read = time.monotonic(), dict.fromkeys(tasks, False)
        with ThreadPoolExecutor(len(tasks)) as threads:
            for turn in itertools.count():
                for offset, task in times:
                    at = began + turn * PROBE_INTERVAL + offset
                    if at >= end:
                        self._run.read = sum(read.values())
                        return
                    self._pause(at - time.monotonic())
                    threads.submit(self._probe, task, read, rejections)

    def _probe(self, task: int, read: dict[int, bool], rejections: Rejections | None) -> None:
        try:
            samples = Samples(scrape(f"{self._url}?task={task}", SCRAPE_TIMEOUT)[0])
        except requests.RequestException:
            read[task] = False
            return
        read[task] = bool(samples.all("mobizon_task_last_success_timestamp_seconds"))
        if rejections:
            rejections.update(samples, self._run.delays)
