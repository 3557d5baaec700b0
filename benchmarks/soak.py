"""Two hours at twenty times the usual speed: whether anything piles up, and requests keep their distance."""

from __future__ import annotations

import itertools
import json
import tempfile
import time
from bisect import bisect_left
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import requests

from benchmarks.apis import HEARTBEAT, Api, Apis
from benchmarks.measured import REQUESTS, Probe, exporting, scrape
from benchmarks.report import Figure
from benchmarks.soak_events import KEYS, Events
from tests.support.certificates import Authority

if TYPE_CHECKING:
    from collections.abc import Iterator

SPEED = 20
MINUTES = 120.0
TASKS = 40
KNOWN = 20_000
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


class Soaked(NamedTuple):
    """`arrivals` of requests at the API by key, in seconds; `refused` of `requests`; see `Events`.

    `held_up` has the times, from and to, in which the API itself did not run.
    """

    seen: list[Seen]
    arrivals: dict[str, list[float]]
    held_up: list[tuple[float, float]]
    requests: int
    refused: int
    answers: dict[str, int]
    lost: list[str]


def measure(repeat: int, *, quick: bool = False) -> Iterator[Figure]:  # noqa: ARG001 - once is long enough
    """Tasks come, end, fail and go; programs register and wait; files, keys and the API break and mend."""
    minutes = 4.0 if quick else MINUTES
    soaked = _soak(minutes, hurry=5.0 if quick else 1.0)
    seen = soaked.seen
    settled = [each for each in seen if each.at >= minutes / 3]
    middle, last = settled[: len(settled) // 2], settled[len(settled) // 2 :]
    before = max(each.memory for each in middle)
    under = f"{minutes:g} minutes at {SPEED} times the speed, {TASKS} tasks that come and go, over TLS"
    yield Figure("resident memory", under, [each.memory for each in settled], "MB")
    grown = max(each.memory for each in last) - before
    yield Figure("most of the last third, above the most of the second", under, [grown], "MB", "limit 0.5 MB")
    for name in ("threads", "files", "series"):
        early, late = ([getattr(each, name) for each in part] for part in (middle, last))
        told = f"most of the second third {max(early)}, of the last {max(late)}"
        yield Figure(name, under, early + late, "", told)
    least, most = closest(soaked.arrivals, soaked.held_up)
    yield Figure("requests a second", under, [soaked.requests / minutes / 60], "", f"limit {SPEED}")
    yield Figure(
        "most requests of a key in a second", under, [most], "", f"limit {SPEED}, one more by jitter"
    )
    yield Figure(
        "closest two requests of a key", under, [least * 1000], "ms", f"{1000 / SPEED:g} ms less jitter"
    )
    pauses = [1000 * (to - from_) for from_, to in soaked.held_up] or [0.0]
    told = (
        f"longest of {len(soaked.held_up):,}; requests that came meanwhile do not count as the first of two"
    )
    yield Figure("the API itself held up", under, [max(pauses)], "ms", told)
    yield Figure("requests refused", under, [100 * soaked.refused / soaked.requests], "%", "outages included")
    ends = ", ".join(f"{count:,} {end}" for end, count in sorted(soaked.answers.items()))
    yield Figure("waits answered", under, [sum(soaked.answers.values())], "", ends)
    yield Figure(
        "requests of programs lost", under, [len(soaked.lost)], "", "; ".join(["limit 0", *soaked.lost[:5]])
    )


def closest(arrivals: dict[str, list[float]], held_up: list[tuple[float, float]]) -> tuple[float, int]:
    """The least distance of two requests of one key, and the most requests in any second."""
    least, most = 1.0, 0
    ends = [to for _, to in held_up]
    for times in arrivals.values():
        first = 0
        for at, time_ in enumerate(times):
            if at and not _delayed(times[at - 1], held_up, ends):
                least = min(least, time_ - times[at - 1])
            while time_ - times[first] >= 1.0:
                first += 1
            most = max(most, at - first + 1)
    return least, most


def _delayed(arrival: float, held_up: list[tuple[float, float]], ends: list[float]) -> bool:
    """Whether it may have come earlier, while the API did not run."""
    at = bisect_left(ends, arrival - 2 * HEARTBEAT)  # the API takes what has come before it notices
    return at < len(ends) and held_up[at][0] - HEARTBEAT <= arrival


def _soak(minutes: float, hurry: float) -> Soaked:
    seen: list[Seen] = []
    api = Api(KNOWN, KEYS, (0.02, 0.3), interval=1 / SPEED, eventful=True, history=1_000_000)
    with ExitStack() as stack:
        temp = stack.enter_context(tempfile.TemporaryDirectory())
        folder, first = Path(temp), itertools.count(1)
        authority = Authority(folder)
        apis = stack.enter_context(Apis([api], authority.server().files))

        def listed() -> str:
            start = next(first)
            interval = f"{1000 // SPEED}ms"
            settings = {
                "url": apis.urls[0],
                "ca_file": str(authority.beside_usual_ones()),
                "key_file": f"{temp}/key",
                "request_interval": interval,
            }
            return json.dumps({"api": settings, "tasks": list(range(start, start + TASKS))})

        (folder / "key").write_text(KEYS[-1])
        flags = (
            f"--state.file={temp}/state.json",
            f"--registry.file={temp}/registry.json",
            "--registry.keep-finished=2m",
            "--web.enable-lifecycle",
        )
        with exporting(folder, listed(), *flags) as (exporter, probe):
            events = Events(exporter, apis, folder / "key", folder / "config.yaml", hurry=hurry)
            began = time.monotonic()
            for beat in itertools.count():
                time.sleep(max(0.0, began + beat * SCRAPED_EVERY - time.monotonic()))
                passed = time.monotonic() - began
                if passed > minutes * 60:
                    break
                if passed > (beat + 2) * SCRAPED_EVERY:
                    continue  # after a suspension
                text, _ = scrape(f"{exporter.url}/metrics", 0.6, 30)
                if beat % round(LISTED_FOR / SCRAPED_EVERY) == 0:
                    (folder / "config.yaml").write_text(listed())
                    requests.get(exporter.url, timeout=30).raise_for_status()
                if beat % round(SEEN_EVERY / SCRAPED_EVERY) == 0:
                    seen.append(_look(passed / 60, probe, text))
                events.beat(passed)
            events.end()
        counts, arrivals, held_up = apis.counts()[0], apis.arrivals(0), apis.held_up()
    by_key = {key: [at for at, of in arrivals if of == key] for key in KEYS}
    requested = len(arrivals)
    return Soaked(seen, by_key, held_up, requested, counts.refused, dict(events.answers), events.lost)


def _look(at: float, probe: Probe, text: str) -> Seen:
    series = sum(not line.startswith("#") for line in text.splitlines())
    requested = sum(int(float(found)) for found in REQUESTS.findall(text))
    return Seen(at, probe.memory(), probe.threads(), probe.files(), series, requested)
