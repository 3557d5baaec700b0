"""Simulated APIs in a process of their own, so that they take no time from what is measured."""

from __future__ import annotations

import asyncio
import multiprocessing
import ssl
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from exporter.simulator import (
    Simulator,
    code,
    flaky,
    growing,
    hang,
    http,
    missing,
    refuse,
    rejected,
    repeating,
    reset,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from multiprocessing.connection import Connection

    from exporter.simulator import Fault, Scenario

OUTAGES: Mapping[str, Fault] = {
    "http_5xx": http(503),
    "refused": refuse(),
    "hanging": hang(),
    "reset": reset(),
}


@dataclass(frozen=True)
class Api:
    """How one simulated API behaves: `latency` of answers (from, to) and `interval` in seconds.

    Its tasks, numbered from 1, are in progress for ever; with `eventful` they also finish, fail, are
    rejected and are missing, and requests go wrong.
    """

    tasks: int
    keys: tuple[str, ...]
    latency: tuple[float, float]
    interval: float = 1.0
    eventful: bool = False
    seed: int = 0
    jitter: float = 0.0  # seconds, at most, that a request is late
    history: int = 1  # requests that are remembered, for `Apis.arrivals`


class Counts(NamedTuple):
    """What an API has counted: `at` by the machine's monotonic clock, and the CPU of the whole process."""

    at: float
    accepted: int
    refused: int
    cpu: float


class Apis:
    """Serves several APIs while it is entered, over TLS with a certificate; `urls` are in their order."""

    def __init__(self, apis: Sequence[Api], certificate: tuple[str, str] | None = None) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, there = context.Pipe()
        self._process = context.Process(target=_serve, args=(list(apis), certificate, there), daemon=True)
        self.urls: list[str] = []

    def __enter__(self) -> Self:
        self._process.start()
        self.urls = self._pipe.recv()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.join()

    def counts(self) -> list[Counts]:
        """What each API has counted up to now."""
        self._pipe.send(("counts",))
        return [Counts(*counts) for counts in self._pipe.recv()]

    def reject(self, api: int, task: int) -> float:
        """From now on the task is rejected; returns the moment."""
        self._pipe.send(("reject", api, task))
        moment: float = self._pipe.recv()
        return moment

    def fail(self, api: int, outage: str | None) -> None:
        """From now on every request meets this one of `OUTAGES`; with None that is over."""
        self._pipe.send(("fail", api, outage))
        self._pipe.recv()

    def arrivals(self, api: int) -> list[tuple[float, str]]:
        """When each remembered request arrived, in seconds of the monotonic clock, and its key."""
        self._pipe.send(("arrivals", api))
        arrivals: list[tuple[float, str]] = self._pipe.recv()
        return arrivals


def _serve(apis: Sequence[Api], certificate: tuple[str, str] | None, pipe: Connection) -> None:
    tls = None
    if certificate:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(*certificate)
    asyncio.run(_serving([_simulator(api, tls) for api in apis], pipe))


async def _serving(simulators: Sequence[Simulator], pipe: Connection) -> None:
    for simulator in simulators:
        await simulator.start()
    pipe.send([simulator.url for simulator in simulators])
    while True:
        command: tuple[Any, ...] = await asyncio.to_thread(pipe.recv)
        now = time.monotonic()
        if command[0] == "counts":
            cpu = time.process_time()
            pipe.send([(now, simulator.accepted, simulator.refused, cpu) for simulator in simulators])
        elif command[0] == "reject":
            _, api, task = command
            simulators[api].scenarios[task] = rejected()
            pipe.send(now)
        elif command[0] == "fail":
            _, api, outage = command
            simulators[api].faults[None] = OUTAGES[outage] if outage else _odd_answers()
            pipe.send(now)
        else:
            pipe.send([(request.at, request.key) for request in simulators[command[1]].requests])


def _simulator(api: Api, tls: ssl.SSLContext | None) -> Simulator:
    scenarios = {task: _scenario(task, eventful=api.eventful) for task in range(1, api.tasks + 1)}
    simulator = Simulator(
        scenarios,
        keys=api.keys,
        interval=api.interval,
        latency=api.latency,
        jitter=api.jitter,
        seed=api.seed,
        history=api.history,
        tls=tls,
    )
    if api.eventful:
        simulator.faults[None] = _odd_answers()
        simulator.faults[11] = hang()
    return simulator


def _odd_answers() -> Fault:
    return code(3).only(every=101)


def _scenario(task: int, *, eventful: bool) -> Scenario:
    lasting = repeating(3000.0, growing(3600.0))
    if not eventful:
        return lasting
    ending = (repeating(200.0, growing(150.0)), rejected(after=60.0 + task % 600), missing(), flaky(lasting))
    return ending[task % 8] if task % 8 < len(ending) else lasting
