"""What a scrape costs, beside `generate_latest` over plain metric families of the same samples."""

from __future__ import annotations

import random
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from prometheus_client.exposition import generate_latest

from benchmarks import lateness
from benchmarks.apis import Api, Apis
from benchmarks.measured import Probe, account, exporting, exporting_read, scrape, serving
from benchmarks.plain import registry, views
from benchmarks.report import Figure, number
from exporter.metrics.task_series import TaskSeries
from exporter.model import AccountView, Durations, TaskView
from exporter.slices import at_one_go

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SIZES = (100, 10_000)
SCRAPES = 50
KEY = "key"


def measure(repeat: int, *, quick: bool = False) -> Iterator[Figure]:
    """In process first, then over HTTP."""
    sizes = SIZES[:1] if quick else SIZES
    for tasks in sizes:
        yield from _in_process(tasks, repeat)
    for tasks in sizes:
        yield from _over_http(tasks, repeat)
    yield from lateness.measure(repeat, quick=quick)
    yield from _start(repeat)


def _in_process(tasks: int, repeat: int) -> Iterator[Figure]:
    changing = (
        ("no task has changed", 0),
        ("one task in 100 has changed", max(1, tasks // 100)),
        ("every task has changed", tasks),
    )
    chance = random.Random(0)  # noqa: S311 - which tasks, no secrets
    for told, number_changed in changing:
        ratios, times, peers = [], [], []
        series, shown = TaskSeries(), views(tasks)
        at_one_go(series.render(snapshot(shown)))
        for _ in range(max(5, repeat)):
            for at in chance.sample(range(tasks), number_changed):
                view = shown[at]
                assert view.reading  # of views()
                reading = replace(view.reading, taken_at=view.reading.taken_at + 15)
                shown[at] = replace(view, reading=reading)
            present = snapshot(shown)
            text, ours = _timed(lambda: b"".join(at_one_go(series.render(present))))  # noqa: B023 - called at once
            plain = registry(shown)  # its families are made before, so that formatting alone is compared
            expected, theirs = _timed(lambda: generate_latest(plain))  # noqa: B023 - same
            if text != expected:
                raise AssertionError("the exposition differs from that of generate_latest")
            times.append(1000 * ours)
            peers.append(1000 * theirs)
            ratios.append(theirs / ours)
        limit = "limit ≥ 3" if tasks == SIZES[-1] and number_changed < tasks else ""
        under = f"{tasks:,} tasks, {told}"
        yield Figure(
            "rendering", under, times, "ms", f"generate_latest {number(statistics.median(peers))} ms"
        )
        yield Figure("times as fast, byte for byte the same", under, ratios, "×", limit)


def snapshot(tasks: list[TaskView]) -> tuple[AccountView, ...]:
    """The tasks as those of one account without a name."""
    durations = Durations((), (0,), 0.0)
    return (AccountView(None, "", True, False, 1.0, 1.0, 0, 0, 0, {}, durations, tuple(tasks)),)  # noqa: FBT003 - of no account


def _timed(call: Callable[[], bytes]) -> tuple[bytes, float]:
    began = time.perf_counter()
    result = call()
    return result, time.perf_counter() - began


class Cost(NamedTuple):
    """Of one scrape: seconds until it is answered, and of CPU."""

    seconds: float
    cpu: float


def cost(url: str, probe: Probe, scrapes: int = SCRAPES) -> Cost:
    """The mean of so many scrapes, none of which waits for the API."""
    scrape(url, 0.6, 60, "identity")
    cpu = probe.cpu()
    seconds = sum(scrape(url, 0.6, 60, "identity")[1] for _ in range(scrapes))
    return Cost(seconds / scrapes, (probe.cpu() - cpu) / scrapes)


def _over_http(tasks: int, repeat: int) -> Iterator[Figure]:
    ours, theirs, memory = [], [], []
    with (
        Apis([Api(tasks, (KEY,), (0.05, 0.1), interval=0.001)]) as apis,
        tempfile.TemporaryDirectory() as temp,
        exporting_read(Path(temp), apis.urls[0], KEY, tasks) as (exporter, probe),
    ):
        for _ in range(repeat):
            ours.append(cost(f"{exporter.url}/metrics", probe))
            memory.append(probe.memory())
            with serving("plain", str(tasks)) as (url, plain):
                theirs.append(cost(url, plain))
    under = f"{tasks:,} tasks, over HTTP, one request a second meanwhile"
    yield _beside("scrape", under, [each.seconds for each in ours], [each.seconds for each in theirs])
    yield _beside("CPU of a scrape", under, [each.cpu for each in ours], [each.cpu for each in theirs])
    yield Figure("resident memory", under, memory, "MB", "limit 60 MB" if tasks == SIZES[0] else "")


def _beside(what: str, under: str, ours: list[float], theirs: list[float]) -> Figure:
    plain = number(1000 * statistics.median(theirs))
    return Figure(what, under, [1000 * value for value in ours], "ms", f"generate_latest {plain} ms")


def _start(repeat: int) -> Iterator[Figure]:
    """From the start of the process to its first answered scrape, and its memory after that."""
    for tasks in SIZES:
        seconds, memory, peer_seconds, peer_memory = [], [], [], []
        with Apis([Api(tasks, (KEY,), (0.0, 0.0))]) as apis:
            for _ in range(repeat):
                with tempfile.TemporaryDirectory() as temp:
                    began = time.monotonic()
                    config = account(apis.urls[0], KEY, range(1, tasks + 1))
                    with exporting(Path(temp), config) as (exporter, probe):
                        scrape(f"{exporter.url}/metrics", 0.6, 60)
                        seconds.append(time.monotonic() - began)
                        memory.append(probe.memory())
                began = time.monotonic()
                with serving("peers", "in-turn", apis.urls[0], KEY, str(tasks)) as (url, probe):
                    scrape(url, 0.6, 120)
                    peer_seconds.append(time.monotonic() - began)
                    peer_memory.append(probe.memory())
        under = f"{tasks:,} tasks, answers at once"
        limits = ("limit 1 s; ", "limit 60 MB; ") if tasks == SIZES[0] else ("", "")
        peers = [number(statistics.median(values)) for values in (peer_seconds, peer_memory)]
        yield Figure("start to first scrape", under, seconds, "s", f"{limits[0]}in-turn {peers[0]} s")
        yield Figure(
            "memory after it, hardly a task read", under, memory, "MB", f"{limits[1]}in-turn {peers[1]} MB"
        )
