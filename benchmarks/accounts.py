"""Many accounts, each with a budget of its own, in one exporter."""

from __future__ import annotations

import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import requests

from benchmarks.apis import Api, Apis
from benchmarks.measured import FAILURES, REQUESTS, accounts, exporting, scrape
from benchmarks.report import Figure, share
from exporter.errors import Reason
from tests.support.certificates import Authority

if TYPE_CHECKING:
    from collections.abc import Iterator

TASKS = 10
APIS = 2
LATENCY = (0.05, 0.1)
WARM, WINDOW = 60.0, 35.0  # seconds; the margins of pacing begin wide, and take minutes to find their size
SCRAPED_EVERY, SCRAPE_TIMEOUT = 5.0, 1.0  # too little time to wait for ten answers: requests never pause


class Promised(NamedTuple):
    """Of so many accounts: the least percent of their budgets that is used, the longest scrape in seconds."""

    accounts: int
    answered: int
    slowest: float


PROMISED = (Promised(400, 96, 0.5), Promised(1_000, 90, 1.5))


class Served(NamedTuple):
    """What an exporter of many accounts has done in the window."""

    answered: float  # percent of what the limits allow; as the exporter counts it, like the refused
    least: float  # the same of the account that is served least
    refused: float  # percent of the requests
    cpu: float  # milliseconds of the exporter's CPU a request
    cores: float  # of the exporter
    memory: float  # MB
    slowest: float  # seconds of a scrape


def measure(repeat: int, *, quick: bool = False) -> Iterator[Figure]:
    """The numbers of accounts that are promised, and with how many seconds of CPU."""
    warm, window = (5.0, 5.0) if quick else (WARM, WINDOW)
    for promised in PROMISED:
        yield from _figures(promised, [serve(promised.accounts, window, warm) for _ in range(repeat)])
    yield from _figures(PROMISED[-1], [serve(PROMISED[-1].accounts, window, warm, tls=False)], tls=False)


def usual(times: int = 300) -> float:
    """Milliseconds of CPU for a request of `requests.Session` over TLS, one after the other."""
    key = "k" * 40
    query = {"output": "json", "api": "v1", "apiKey": key}
    with tempfile.TemporaryDirectory() as temp:
        authority = Authority(Path(temp))
        trust = str(authority.beside_usual_ones())
        api = Api(1, (key,), (0, 0), limited=False)
        with Apis([api], authority.server().files) as apis, requests.Session() as session:

            def ask() -> None:
                url = f"{apis.urls[0]}/service/taskqueue/getStatus"
                answer = session.post(url, params=query, data={"id": 1}, timeout=10, verify=trust)
                if answer.json()["code"] != 0:
                    raise AssertionError(answer.text)

            ask()
            began = time.process_time()
            for _ in range(times):
                ask()
            return 1000 * (time.process_time() - began) / times


def _figures(promised: Promised, runs: list[Served], *, tls: bool = True) -> Iterator[Figure]:
    over = "TLS" if tls else "plain HTTP"
    used, slowest = f"limit ≥ {promised.answered} %", f"limit {promised.slowest} s"
    under = f"{promised.accounts:,} accounts of {TASKS} tasks over {over}, answers of 75 ms ± 33 %"
    yield Figure("budget of all accounts used", under, [run.answered for run in runs], "%", used)
    yield Figure("the same of the account served least", under, [run.least for run in runs], "%")
    yield Figure("requests refused", under, [run.refused for run in runs], "%", "limit ≤ 2 %")
    yield Figure("longest scrape", under, [run.slowest for run in runs], "s", slowest)
    yield Figure("resident memory", under, [run.memory for run in runs], "MB", "limit 300 MB")
    yield Figure("cores busy", under, [run.cores for run in runs], "")
    peer = f"requests.Session, one after the other {usual():.2f} ms"
    yield Figure("CPU a request, scrapes included", under, [run.cpu for run in runs], "ms", peer)


def serve(number: int, window: float = WINDOW, warm: float = WARM, *, tls: bool = True) -> Served:
    """Run so many accounts; Mobizon is reached over TLS."""
    keys = [f"{at:040d}" for at in range(number)]
    apis = [Api(TASKS, tuple(keys[at::APIS]), LATENCY, seed=at) for at in range(APIS)]
    with ExitStack() as stack:
        temp = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        authority = Authority(temp)
        certificate = authority.server().files if tls else None
        trust = authority.beside_usual_ones() if tls else None
        served = [stack.enter_context(Apis([api], certificate)) for api in apis]
        urls = [url for one in served for url in one.urls]
        config = accounts(urls, keys, range(1, TASKS + 1), trust)
        exporter, probe = stack.enter_context(exporting(temp, config))
        url = f"{exporter.url}/metrics"
        scrapes: list[float] = []
        stop = threading.Event()
        scraping = threading.Thread(target=_scrape, args=(url, scrapes, stop))
        scraping.start()
        time.sleep(warm)
        scrapes.clear()
        before, began, cpu = _counted(url), time.monotonic(), probe.cpu()
        time.sleep(window)
        after, passed, cpu = _counted(url), time.monotonic() - began, probe.cpu() - cpu
        memory = probe.memory()
        stop.set()
        scraping.join()
    requests = [now - then for then, now in zip(before[0], after[0], strict=True)]
    failures = [now - then for then, now in zip(before[1], after[1], strict=True)]
    answered = [all_ - failed for all_, failed in zip(requests, failures, strict=True)]
    return Served(
        answered=share(sum(answered), number * passed),
        least=share(min(answered), passed),
        refused=share(sum(failures), sum(requests)),
        cpu=1000 * cpu / sum(requests),
        cores=cpu / passed,
        memory=memory,
        slowest=max(scrapes),
    )


def _counted(url: str) -> tuple[list[float], list[float]]:
    """Requests and failures of each account, as the exporter has counted them."""
    text, _ = scrape(url, SCRAPE_TIMEOUT, 60)
    failures = [float(found) for found in FAILURES.findall(text)]
    reasons = len(Reason)
    return (
        [float(found) for found in REQUESTS.findall(text)],
        [sum(failures[at : at + reasons]) for at in range(0, len(failures), reasons)],
    )


def _scrape(url: str, taken: list[float], stop: threading.Event) -> None:
    while not stop.is_set():
        _, took = scrape(url, SCRAPE_TIMEOUT, 60)
        taken.append(took)
        stop.wait(max(0.0, SCRAPED_EVERY - took))
