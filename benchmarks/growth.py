"""How costs grow with tasks, accounts and scrapes: at ten, a hundred and a thousand times as many."""

from __future__ import annotations

import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import requests

from benchmarks.accounts import serve
from benchmarks.apis import Api, Apis
from benchmarks.measured import account, exporting, exporting_read, scrape
from benchmarks.report import Figure, exponent, number
from benchmarks.scrapes import cost

if TYPE_CHECKING:
    from collections.abc import Iterator

FOLDS = (1, 10, 100, 1_000)
KEY = "key"
LIMIT = 1.1  # of an exponent: one, and what a measurement may err


def measure(repeat: int, *, quick: bool = False) -> Iterator[Figure]:
    """Each growth by itself, all else staying what it is."""
    folds = FOLDS[:3] if quick else FOLDS
    yield from _fitted("tasks", [10 * fold for fold in folds], [_tasks(10 * fold, repeat) for fold in folds])
    yield from _fitted("accounts of ten tasks", folds, [_accounts(fold) for fold in folds])
    yield from _fitted("scrapes at once", folds, [_scrapes(fold, repeat) for fold in folds])


def _fitted(what: str, sizes: tuple[int, ...] | list[int], costs: list[dict[str, float]]) -> Iterator[Figure]:
    """An exponent for each cost, of the two largest steps: below them fixed costs hide it."""
    for name in costs[0]:
        values = [each[name] for each in costs]
        told = ", ".join(f"{number(value)} at {size:,}" for size, value in zip(sizes, values, strict=True))
        grown = exponent(sizes[-3:], [max(value, 1e-9) for value in values[-3:]])
        yield Figure(f"exponent: {name}", f"{what}: {told}", [grown], "", f"limit {LIMIT}")


def _tasks(tasks: int, repeat: int) -> dict[str, float]:
    """Of which every one has been read."""
    with (
        Apis([Api(tasks, (KEY,), (0.0, 0.0), interval=0.001)]) as apis,
        tempfile.TemporaryDirectory() as temp,
        exporting_read(Path(temp), apis.urls[0], KEY, tasks) as (exporter, probe),
    ):
        scraped = cost(f"{exporter.url}/metrics", probe, 10 * repeat)
        began = time.monotonic()
        for _ in range(repeat):
            requests.post(f"{exporter.url}/-/reload", timeout=60).raise_for_status()
        reloaded = (time.monotonic() - began) / repeat
        pages = sum(scrape(f"{exporter.url}/", 0.6, 60)[1] for _ in range(repeat)) / repeat
        return {
            "ms of a scrape": 1000 * scraped.seconds,
            "ms of a reload": 1000 * reloaded,
            "ms of the status page": 1000 * pages,
            "MB of memory": probe.memory(),
        }


def _accounts(number_of_accounts: int) -> dict[str, float]:
    served = serve(number_of_accounts, window=15.0, warm=12.0)
    return {
        "cores busy, were all answered": 100 * served.cores / served.answered,
        "MB of memory": served.memory,
        "s of a scrape": served.slowest,
    }


def _scrapes(at_once: int, repeat: int) -> dict[str, float]:
    """Scrapes that wait for three answers; the requests that they cause stay three."""
    with (
        Apis([Api(3, (KEY,), (0.05, 0.1))]) as apis,
        tempfile.TemporaryDirectory() as temp,
        exporting(Path(temp), account(apis.urls[0], KEY, range(1, 4))) as (exporter, probe),
        ThreadPoolExecutor(at_once) as threads,
    ):
        cpu, before = probe.cpu(), apis.counts()[0]
        for _ in range(repeat):
            list(threads.map(lambda _: scrape(f"{exporter.url}/metrics", 10, 30), range(at_once)))
        after = apis.counts()[0]
        return {
            "ms of CPU for all of them": max(1000 * (probe.cpu() - cpu) / repeat, 1.0),
            "requests for all of them": (after.accepted - before.accepted) / repeat,
        }
