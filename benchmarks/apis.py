"""Simulated APIs in a process of their own, so that they take no time from what is measured."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import ssl
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from benchmarks import link
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

HEARTBEAT = 0.005  # seconds
HELD_UP = 0.005  # seconds more than that

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
    limited: bool = True  # from the start on; else from `Apis.limit` on


class Counts(NamedTuple):
    """What an API has counted: `at` by the machine's monotonic clock, and the CPU of the whole process."""

    at: float
    accepted: int
    refused: int
    cpu: float


class Apis:
    """Serves several APIs while it is entered, over TLS with a certificate; `urls` are in their order.

    They may be behind a link. On one core they take less from an exporter that is busy, but disturb other
    APIs. Any thread may ask what they have counted.
    """

    def __init__(
        self,
        apis: Sequence[Api],
        certificate: tuple[str, str] | None = None,
        behind: link.Link | None = None,
        *,
        one_core: bool = True,
    ) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, there = context.Pipe()
        arguments = (list(apis), certificate, behind, one_core, there)
        self._process = context.Process(target=_serve, args=arguments, daemon=True)
        self._lock = threading.Lock()
        self.urls: list[str] = []

    def __enter__(self) -> Self:
        self._process.start()
        self.urls = self._pipe.recv()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.join()

    @property
    def pid(self) -> int:
        """Of the process, once it is entered."""
        return self._process.pid or 0

    def counts(self) -> list[Counts]:
        """What each API has counted up to now."""
        return [Counts(*counts) for counts in self._ask("counts")]

    def limit(self, api: int) -> None:
        """From now on it keeps its limit."""
        self._ask("limit", api)

    def reject(self, api: int, task: int) -> float:
        """From now on the task is rejected; returns the moment."""
        moment: float = self._ask("reject", api, task)
        return moment

    def fail(self, api: int, outage: str | None) -> None:
        """From now on every request meets this one of `OUTAGES`; with None that is over."""
        self._ask("fail", api, outage)

    def arrivals(self, api: int) -> list[tuple[float, str]]:
        """When each remembered request arrived, in seconds of the monotonic clock, and its key."""
        arrivals: list[tuple[float, str]] = self._ask("arrivals", api)
        return arrivals

    def held_up(self) -> list[tuple[float, float]]:
        """From when to when the process itself did not run: what came meanwhile has arrived at the end."""
        times: list[tuple[float, float]] = self._ask("held up")
        return times

    def _ask(self, *command: Any) -> Any:
        with self._lock:
            self._pipe.send(command)
            return self._pipe.recv()


def _serve(
    apis: Sequence[Api],
    certificate: tuple[str, str] | None,
    behind: link.Link | None,
    one_core: bool,  # noqa: FBT001 - of a process's arguments
    pipe: Connection,
) -> None:
    if one_core:
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    relay = link.enter(behind) if behind else None
    tls = None
    if certificate:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(*certificate)
    host = behind.there if behind else "127.0.0.1"
    asyncio.run(_serving([_simulator(api, tls) for api in apis], host, relay, pipe))


async def _serving(
    simulators: Sequence[Simulator], host: str, relay: link.Relay | None, pipe: Connection
) -> None:
    if relay:
        relay.start()
    for simulator in simulators:
        await simulator.start(host)
    pipe.send([simulator.url for simulator in simulators])
    held_up: list[tuple[float, float]] = []
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(_notice(held_up))
        await _answering(simulators, held_up, pipe)


async def _notice(held_up: list[tuple[float, float]]) -> None:
    while True:
        due = time.monotonic() + HEARTBEAT
        await asyncio.sleep(HEARTBEAT)
        now = time.monotonic()
        if now > due + HELD_UP:
            held_up.append((due, now))


async def _answering(
    simulators: Sequence[Simulator], held_up: list[tuple[float, float]], pipe: Connection
) -> None:
    while True:
        command: tuple[Any, ...] = await asyncio.to_thread(pipe.recv)
        now = time.monotonic()
        if command[0] == "counts":
            cpu = time.process_time()
            pipe.send([(now, simulator.accepted, simulator.refused, cpu) for simulator in simulators])
        elif command[0] == "limit":
            simulators[command[1]].limit = "strict"
            pipe.send(now)
        elif command[0] == "reject":
            _, api, task = command
            simulators[api].scenarios[task] = rejected()
            pipe.send(now)
        elif command[0] == "fail":
            _, api, outage = command
            simulators[api].faults[None] = OUTAGES[outage] if outage else _odd_answers()
            pipe.send(now)
        elif command[0] == "held up":
            pipe.send(held_up)
        else:
            pipe.send([(request.at, request.key) for request in simulators[command[1]].requests])


def _simulator(api: Api, tls: ssl.SSLContext | None) -> Simulator:
    scenarios = {task: _scenario(task, eventful=api.eventful) for task in range(1, api.tasks + 1)}
    simulator = Simulator(
        scenarios,
        keys=api.keys,
        interval=api.interval,
        limit="strict" if api.limited else "off",
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
