"""How much later requests start because of scrapes: Python runs one thread at a time."""

from __future__ import annotations

import itertools
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.apis import Api, Apis
from benchmarks.measured import exporting_read, scrape
from benchmarks.report import Figure, number, percentile
from tests.support.certificates import Authority

if TYPE_CHECKING:
    from collections.abc import Iterator

KEY = "key"
INTERVAL = 0.05  # seconds between requests
SCRAPED_EVERY = 0.5  # seconds
TOLERANCE = 5.0  # ms that a scrape may add


def measure(repeat: int, *, quick: bool = False) -> Iterator[Figure]:
    """What the gaps between requests are above the interval, with scrapes and without, in turn."""
    tasks, seconds = (1_000, 3.0) if quick else (10_000, 10.0)
    quiet, scraped = [], []
    with tempfile.TemporaryDirectory() as temp:
        authority = Authority(Path(temp))
        history = round(seconds / INTERVAL)
        api = Api(tasks, (KEY,), (0.05, 0.1), history=history, limited=False)  # so that spacing stays
        files, trust = authority.server().files, authority.beside_usual_ones()
        with (
            Apis([api], files) as apis,
            exporting_read(Path(temp), apis.urls[0], KEY, tasks, interval=INTERVAL, ca_file=trust) as (
                exporter,
                _,
            ),
        ):
            url = f"{exporter.url}/metrics"
            scrape(url, 0.6, 60)  # makes all tasks due, and has the new interval read
            for _ in range(repeat):
                quiet.append(_late(apis, url, seconds, scrapes=0))
                scraped.append(_late(apis, url, seconds, scrapes=round(seconds / SCRAPED_EVERY)))
    under = (
        f"{tasks:,} tasks over TLS, a request every {INTERVAL * 1000:g} ms, "
        f"scraped every {SCRAPED_EVERY * 1000:g} ms"
    )
    for what, percent in (("median", 50), ("99 %", 99), ("latest", 100)):
        without = percentile(sorted(itertools.chain(*quiet)), percent)
        beside = f"without scrapes {number(without)} ms; limit {TOLERANCE:g} ms more"
        yield Figure(
            f"start of a request late, {what}",
            under,
            [percentile(late, percent) for late in scraped],
            "ms",
            beside,
        )


def _late(apis: Apis, url: str, seconds: float, scrapes: int) -> list[float]:
    """By how many milliseconds each request of that time was late."""
    began = time.monotonic()
    for at in range(scrapes):
        time.sleep(max(0.0, began + at * SCRAPED_EVERY - time.monotonic()))
        scrape(url, 0.6, 60)
    time.sleep(max(0.0, began + seconds - time.monotonic()))
    arrived = [moment for moment, _ in apis.arrivals(0) if moment > began + 2 * INTERVAL]
    return [1000 * (after - before - INTERVAL) for before, after in itertools.pairwise(arrived)]
