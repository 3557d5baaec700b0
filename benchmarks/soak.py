"""Half an hour at twenty times the usual speed: whether anything piles up."""

from __future__ import annotations

import itertools
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import requests

from benchmarks.apis import Api, Apis
from benchmarks.measured import REQUESTS, Probe, account, exporting, scrape
from benchmarks.report import Figure

if TYPE_CHECKING:
    from collections.abc import Iterator

SPEED = 20
MINUTES = 30.0
TASKS = 40
KNOWN = 20_000
KEY = "key"
SCRAPED_EVERY = 15.0 / SPEED  # seconds
LISTED_FOR = 4.0  # seconds, until the list of tasks moves on by one
SEEN_EVERY = 15.0  # seconds


class Seen(NamedTuple):
    """One look: `at` in minutes."""

    at: float
    memory: float
    threads: int
    files: int
    series: int
    requests: int


def measure(repeat: int, *, quick: bool = False) -> Iterator[Figure]:  # noqa: ARG001 - once is long enough
    """Tasks come, end, fail and go; the page is looked at, the state is kept, the file is read again."""
    minutes = 2.0 if quick else MINUTES
    seen = _soak(minutes)
    settled = [each for each in seen if each.at >= minutes / 3]
    middle, last = settled[: len(settled) // 2], settled[len(settled) // 2 :]
    before = max(each.memory for each in middle)
    under = f"{minutes:g} minutes at {SPEED} times the speed, {TASKS} tasks that come and go"
    yield Figure("resident memory", under, [each.memory for each in settled], "MB")
    grown = max(each.memory for each in last) - before
    yield Figure("most of the last third, above the most of the second", under, [grown], "MB", "limit 0.5 MB")
    for name in ("threads", "files", "series"):
        early, late = ([getattr(each, name) for each in part] for part in (middle, last))
        told = f"most of the second third {max(early)}, of the last {max(late)}"
        yield Figure(name, under, early + late, "", told)
    rate = (seen[-1].requests - seen[0].requests) / (seen[-1].at - seen[0].at) / 60
    yield Figure("requests a second", under, [rate], "", f"limit {SPEED}")


def _soak(minutes: float) -> list[Seen]:
    seen: list[Seen] = []
    with (
        Apis([Api(KNOWN, (KEY,), (0.02, 0.3), interval=1 / SPEED, eventful=True)]) as apis,
        tempfile.TemporaryDirectory() as temp,
    ):
        path, first = Path(temp) / "config.yaml", itertools.count(1)

        def listed() -> str:
            start = next(first)
            return account(apis.urls[0], KEY, range(start, start + TASKS), interval=1 / SPEED)

        flags = (f"--state.file={temp}/state.json",)
        with exporting(Path(temp), listed(), *flags) as (exporter, probe):
            began = time.monotonic()
            for beat in itertools.count():
                time.sleep(max(0.0, began + beat * SCRAPED_EVERY - time.monotonic()))
                passed = time.monotonic() - began
                if passed > minutes * 60:
                    break
                text, _ = scrape(f"{exporter.url}/metrics", 0.6, 10)
                if beat % round(LISTED_FOR / SCRAPED_EVERY) == 0:
                    path.write_text(listed())
                    requests.get(exporter.url, timeout=10).raise_for_status()
                if beat % round(SEEN_EVERY / SCRAPED_EVERY) == 0:
                    seen.append(_look(passed / 60, probe, text))
    return seen


def _look(at: float, probe: Probe, text: str) -> Seen:
    series = sum(not line.startswith("#") for line in text.splitlines())
    requested = sum(int(float(found)) for found in REQUESTS.findall(text))
    return Seen(at, probe.memory(), probe.threads(), probe.files(), series, requested)
