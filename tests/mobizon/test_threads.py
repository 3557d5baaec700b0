"""Requests in threads, reported on the loop, each with a deadline for the whole of it."""

from __future__ import annotations

import asyncio
import gc
import resource
import socket
import threading
import time
from collections import deque
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import structlog

from exporter import simulator
from exporter.errors import ApiError, Reason
from exporter.mobizon import threads as workers_module
from exporter.mobizon.threads import Workers
from exporter.model import Reading, Secret
from exporter.simulator import Simulator, SimulatorThread
from tests.mobizon.test_client import (
    BROKEN,
    GOOD,
    SOON,
    Peer,
    Visit,
    after_request,
    api,
    chunked,
    descriptors,
    dripping,
    good,
    head_of,
    proxying,
    silent,
    unanswering,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from exporter.model import Api

TIMEOUT = 0.4  # seconds; of requests that shall run into it
CLOSED_WITHIN = 2.0


class Sent:
    """A request that was given to the workers, and what they reported of it."""

    def __init__(self, workers: Workers, settings: Api, task_id: int = 7) -> None:
        self.sent: list[float] = []
        self.threads: set[threading.Thread] = set()
        self.done: asyncio.Future[Reading | ApiError] = asyncio.get_running_loop().create_future()
        workers.send(settings, task_id, self._sent, self._done)

    def _sent(self, when: float) -> None:
        self.sent.append(when)
        self.threads.add(threading.current_thread())

    def _done(self, outcome: Reading | ApiError) -> None:
        self.threads.add(threading.current_thread())
        self.done.set_result(outcome)  # which fails if it comes twice

    async def outcome(self) -> Reading | ApiError:
        return await asyncio.wait_for(asyncio.shield(self.done), SOON)

    async def failure(self) -> ApiError:
        outcome = await self.outcome()
        assert isinstance(outcome, ApiError), outcome
        return outcome


async def until(condition: Callable[[], bool]) -> None:
    """Waits for what another thread does; TimeoutError if it does not."""
    async with asyncio.timeout(SOON):
        while not condition():  # noqa: ASYNC110 - what other threads do sets no event of this loop
            await asyncio.sleep(0.005)


@asynccontextmanager
async def working() -> AsyncIterator[Workers]:
    workers = Workers(asyncio.get_running_loop())
    try:
        yield workers
    finally:
        workers.close()


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """No thread of the workers outlives them, and no descriptor that was not there before."""
    threads, before = set(threading.enumerate()), descriptors()
    yield
    assert set(threading.enumerate()) == threads
    gc.collect()  # the exceptions of libraries that are part of a cycle keep a connection until then
    assert descriptors().keys() == before.keys()


async def test_an_outcome_is_reported_once_and_on_the_loop() -> None:
    with Peer(good) as peer:
        async with working() as workers:
            requests = [Sent(workers, api(peer.url), task_id) for task_id in range(1, 20)]
            outcomes = [await request.outcome() for request in requests]
        read = {(outcome.progress, outcome.status) for outcome in outcomes if isinstance(outcome, Reading)}
        assert read == {(40, 1)}
        for request in requests:
            assert len(request.sent) == 1
            assert request.threads == {threading.current_thread()}
        assert sorted(peer.bodies) == sorted(b"id=%d" % task_id for task_id in range(1, 20))


async def test_sent_is_told_by_the_loops_clock_before_the_outcome() -> None:
    loop = asyncio.get_running_loop()
    with Peer(after_request()) as peer:
        async with working() as workers:
            before = loop.time()
            request = Sent(workers, api(peer.url))
            assert (await request.failure()).reason is Reason.CONNECTION_ERROR
            assert before <= request.sent[0] <= loop.time()


@pytest.mark.parametrize("treat", BROKEN.values(), ids=BROKEN)
async def test_a_failure_is_reported_as_an_error_of_ours(treat: Callable[[Visit], None]) -> None:
    with Peer(treat) as peer:
        async with working() as workers:
            error = await Sent(workers, api(peer.url)).failure()
            assert error.reason is Reason.CONNECTION_ERROR
            assert (error.__traceback__, error.__context__) == (None, None)


# Each lets every single read succeed long before a time-out of it.
DRIPPING: dict[str, Callable[[Visit], None]] = {
    "headers": dripping(b"HTTP/1.1 200 OK\r\nX-Slow: ", b"x"),
    "endless headers": dripping(b"HTTP/1.1 200 OK\r\n", b"X: x\r\n"),
    "one informational answer after the other": dripping(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "body": dripping(head_of("Content-Length: 50000")),
    "body of a connection to be closed": dripping(head_of("Connection: close", "Content-Length: 50000")),
    "body without a length": dripping(head_of()),
    "body of HTTP/1.0": dripping(b"HTTP/1.0 200 OK\r\n\r\n"),
    "chunks": dripping(head_of("Transfer-Encoding: chunked"), b"1\r\n \r\n"),
    "the extension of a chunk": dripping(head_of("Transfer-Encoding: chunked") + b"5;", b"x"),
    "the body of an error": dripping(head_of("Content-Length: 50000", status="500 Oops")),
    "the body of a redirect": dripping(
        head_of("Content-Length: 50000", "Connection: close", "Location: /x", status="302 Found")
    ),
}


@pytest.mark.parametrize("treat", DRIPPING.values(), ids=DRIPPING)
async def test_the_deadline_holds_against_a_server_that_drips(treat: Callable[[Visit], None]) -> None:
    with Peer(treat) as peer:
        async with working() as workers:
            began = time.monotonic()
            request = Sent(workers, api(peer.url, timeout=TIMEOUT))
            error = await request.failure()
            assert TIMEOUT <= time.monotonic() - began < TIMEOUT + 1
            assert error.reason is Reason.TIMEOUT
            assert error.detail == f"no complete answer within {TIMEOUT} s"
            assert len(request.sent) == 1


@pytest.mark.parametrize("part", ["headers", "body"])
async def test_the_deadline_holds_against_the_simulators_drip(part: Any) -> None:
    with SimulatorThread(Simulator({7: simulator.stalled()})) as sim:
        sim.faults[7] = simulator.drip(0.05, part)
        async with working() as workers:
            error = await Sent(workers, api(sim.url, timeout=TIMEOUT)).failure()
            assert error.reason is Reason.TIMEOUT


@pytest.mark.parametrize("scheme", ["http:", "https:"])
async def test_the_deadline_holds_against_a_server_that_accepts_and_says_nothing(scheme: str) -> None:
    with Peer(silent) as peer:
        async with working() as workers:
            began = time.monotonic()
            request = Sent(workers, api(peer.url.replace("http:", scheme), timeout=TIMEOUT))
            assert (await request.failure()).reason is Reason.TIMEOUT
            assert TIMEOUT * 0.9 < time.monotonic() - began < TIMEOUT + 1
            assert len(request.sent) == (scheme == "http:")


async def test_the_deadline_holds_in_a_handshake_that_drips() -> None:
    def treat(visit: Visit) -> None:
        visit.sock.recv(1)
        visit.send(b"\x16\x03\x03\x40\x00")  # a record of 16 KiB is to come
        while True:
            visit.send(b"\x00")
            time.sleep(0.02)

    with Peer(treat) as peer:
        async with working() as workers:
            began = time.monotonic()
            error = await Sent(workers, api(peer.url.replace("http:", "https:"), timeout=TIMEOUT)).failure()
            assert error.reason is Reason.TIMEOUT
            assert time.monotonic() - began < TIMEOUT + 1


async def test_the_deadline_holds_through_a_tunnel() -> None:
    with Peer(silent) as peer, Peer(proxying) as proxy:
        async with working() as workers:
            url = peer.url.replace("http:", "https:")
            request = Sent(workers, api(url, timeout=TIMEOUT, proxy_url=Secret(proxy.url)))
            assert (await request.failure()).reason is Reason.TIMEOUT
            assert request.sent == []


async def test_the_deadline_holds_against_a_proxy_that_drips() -> None:
    with Peer(dripping(b"HTTP/1.1 200 Connected\r\n", b"X: x\r\n")) as proxy:
        async with working() as workers:
            settings = api("https://127.0.0.1:1", timeout=TIMEOUT, proxy_url=Secret(proxy.url))
            began = time.monotonic()
            assert (await Sent(workers, settings).failure()).reason is Reason.TIMEOUT
            assert time.monotonic() - began < TIMEOUT + 1


async def test_the_deadline_holds_where_no_address_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    with unanswering() as url:
        port = int(url.rpartition(":")[2])
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))] * 8
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
        async with working() as workers:
            began = time.monotonic()
            request = Sent(workers, api("http://api.mobizon.example", timeout=TIMEOUT))
            assert (await request.failure()).reason is Reason.TIMEOUT
            assert time.monotonic() - began < TIMEOUT + 1  # not that long for each
            assert request.sent == []


async def test_many_requests_are_under_way_at_once() -> None:
    number = 60
    together = threading.Barrier(number)

    def treat(visit: Visit) -> None:
        visit.request()
        together.wait(SOON)  # no one is answered before all are there
        visit.answer()

    with Peer(treat) as peer:
        async with working() as workers:
            requests = [Sent(workers, api(peer.url), task_id) for task_id in range(1, number + 1)]
            outcomes = [await request.outcome() for request in requests]
        assert all(isinstance(outcome, Reading) for outcome in outcomes)


async def test_a_request_that_waits_for_a_thread_has_its_whole_time_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(workers_module, "MOST_THREADS", 1)

    def treat(visit: Visit) -> None:
        visit.request()
        if len(peer.heads) == 1:
            visit.wait_until_gone()
        visit.answer()

    with Peer(treat) as peer:
        async with working() as workers:
            first = Sent(workers, api(peer.url, timeout=TIMEOUT))
            second = Sent(workers, api(peer.url, timeout=TIMEOUT))
            assert (await first.failure()).reason is Reason.TIMEOUT
            assert isinstance(await second.outcome(), Reading)


async def test_threads_are_started_as_they_are_needed() -> None:
    with Peer(good) as peer:
        async with working() as workers:
            before = threading.active_count()
            for task_id in range(1, 30):
                await Sent(workers, api(peer.url), task_id).outcome()
            # One that sends and one of the peer for its connection; now and then the system lets a thread
            # that has reported come to rest so late that the next request finds none at rest.
            assert threading.active_count() - before < 29 / 2


async def test_requests_by_different_routes_do_not_mix() -> None:
    with Peer(good) as peer, Peer(good) as proxy:
        async with working() as workers:
            through = api(peer.url, proxy_url=Secret(proxy.url))
            await Sent(workers, api(peer.url)).outcome()
            await Sent(workers, through).outcome()
            await Sent(workers, api(peer.url)).outcome()
            assert (len(peer.heads), len(proxy.heads)) == (2, 1)
            assert (peer.connections, proxy.connections) == (1, 1)


async def test_nothing_is_left_of_a_request_that_has_ended() -> None:
    with Peer(good) as peer, Peer(chunked(b"zz\r\n", GOOD)) as broken:
        async with working() as workers:
            for url in (peer.url, broken.url) * 5:
                await Sent(workers, api(url)).outcome()
            assert not workers._calls


def no_more_open_than(number: int) -> bool:
    return len(descriptors()) <= number


async def test_requests_in_a_row_keep_no_descriptors() -> None:
    gc.disable()  # so that only what is closed counts, and not what happens to be found later
    try:
        for treat in (*BROKEN.values(), after_request(head_of("Content-Length: 9"), b"x")):
            with Peer(treat) as peer:
                async with working() as workers:
                    await Sent(workers, api(peer.url)).outcome()
                    before = len(descriptors())
                    for _ in range(5):
                        await Sent(workers, api(peer.url)).outcome()
                    # once the peer, too, has come to closing its ends
                    await until(partial(no_more_open_than, before))
    finally:
        gc.enable()


HANGING: dict[str, Callable[[Visit], None]] = {
    "silent": silent,
    "dripping body": DRIPPING["body"],
    "dripping body of a connection to be closed": DRIPPING["body of a connection to be closed"],
}


@pytest.mark.parametrize("scheme", ["http:", "https:"])
@pytest.mark.parametrize("treat", HANGING.values(), ids=HANGING)
async def test_closing_ends_requests_that_hang(treat: Callable[[Visit], None], scheme: str) -> None:
    with Peer(treat) as peer:
        workers = Workers(asyncio.get_running_loop())
        requests = [Sent(workers, api(peer.url.replace("http:", scheme), timeout=60)) for _ in range(20)]
        await until(lambda: peer.connections == len(requests))
        began = time.monotonic()
        workers.close()
        assert time.monotonic() - began < CLOSED_WITHIN
        for request in requests:
            assert (await request.failure()).reason is Reason.TIMEOUT
        assert not workers._calls


async def test_closing_ends_requests_that_are_still_connecting() -> None:
    with unanswering() as url:
        workers = Workers(asyncio.get_running_loop())
        requests = [Sent(workers, api(url, timeout=60)) for _ in range(5)]
        await until(lambda: all(call._lifeline for call in workers._calls))
        began = time.monotonic()
        workers.close()
        assert time.monotonic() - began < CLOSED_WITHIN
        for request in requests:
            assert (await request.failure()).reason is Reason.TIMEOUT
            assert request.sent == []


async def test_closing_closes_idle_connections() -> None:
    gone = threading.Event()

    def treat(visit: Visit) -> None:
        try:
            good(visit)
        finally:
            gone.set()

    with Peer(treat) as peer:
        workers = Workers(asyncio.get_running_loop())
        await Sent(workers, api(peer.url)).outcome()
        assert not gone.is_set()
        workers.close()
        assert gone.wait(SOON)
        assert workers._clients  # so that nothing but closing has closed it


async def test_closing_sends_nothing_that_still_waits_for_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers_module, "MOST_THREADS", 1)
    with Peer(after_request()) as peer, Peer(silent) as hanging:
        workers = Workers(asyncio.get_running_loop())
        Sent(workers, api(hanging.url, timeout=60))
        for _ in range(5):
            Sent(workers, api(peer.url, timeout=60))
        await until(lambda: hanging.connections == 1)
        workers.close()
        await asyncio.sleep(0)
        assert peer.connections == 0


def test_an_outcome_after_the_loop_has_closed_does_no_harm() -> None:
    async def start() -> Workers:
        workers = Workers(asyncio.get_running_loop())
        workers.send(api(peer.url, timeout=60), 7, lambda _: None, lambda _: None)
        await until(lambda: peer.connections == 1)
        return workers

    with Peer(silent) as peer:
        workers = asyncio.run(start())
        workers.close()


class Wakings:
    """Counts how often the loop is woken from other threads."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.number = 0
        self._loop = asyncio.get_running_loop()
        self._wake = self._loop.call_soon_threadsafe
        monkeypatch.setattr(self._loop, "call_soon_threadsafe", self._counted)

    def _counted(self, *arguments: Any, **named: Any) -> asyncio.Handle:
        self.number += 1
        return self._wake(*arguments, **named)


def while_the_loop_is_busy(function: Callable[..., None], *arguments: Any) -> None:
    """Runs it in a thread, and blocks the loop until it has ended."""
    thread = threading.Thread(target=function, args=arguments, name="reporting")
    thread.start()
    thread.join()


async def test_whatever_is_reported_while_the_loop_is_busy_wakes_it_once_and_comes_in_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    arrived: list[int] = []
    async with working() as workers:

        def reporting(first: int) -> None:
            for number in range(first, first + 500):
                workers._report(arrived.append, number)

        wakings = Wakings(monkeypatch)
        for wave in range(3):
            while_the_loop_is_busy(reporting, 500 * wave)
            assert (wakings.number, len(arrived)) == (wave + 1, 500 * wave)
            await until(lambda: len(arrived) >= 500 * wakings.number)
    assert arrived == list(range(1500))


async def test_reports_of_many_threads_all_arrive_each_threads_in_order() -> None:
    arrived: list[tuple[int, int]] = []
    number, each = 8, 2000
    async with working() as workers:

        def reporting(thread: int) -> None:
            for n in range(each):
                workers._report(arrived.append, (thread, n))

        threads = [threading.Thread(target=reporting, args=(at,)) for at in range(number)]
        for thread in threads:
            thread.start()
        await until(lambda: len(arrived) == number * each)  # while the loop and they take turns
        for thread in threads:
            thread.join()
    for at in range(number):
        assert [n for thread, n in arrived if thread == at] == list(range(each))


class Emptied(deque[Any]):
    """Reports among which, just when there are found to be no more, there is another."""

    def __init__(self, report: Callable[[], None]) -> None:
        super().__init__()
        self._another: list[Callable[[], None]] = [report]

    def __bool__(self) -> bool:
        some = len(self) > 0
        if not some and self._another:
            while_the_loop_is_busy(self._another.pop())
        return some


async def test_a_report_that_comes_just_when_the_others_have_been_delivered_is_not_forgotten() -> None:
    arrived: list[str] = []
    async with working() as workers:
        workers._reports = Emptied(lambda: workers._report(arrived.append, "another"))
        while_the_loop_is_busy(workers._report, arrived.append, "one")
        await until(lambda: arrived == ["one", "another"])


async def test_a_callback_that_raises_loses_no_other_report() -> None:
    raised: list[object] = []
    arrived: list[int] = []

    def failing(number: int) -> None:
        raise ValueError(number)

    asyncio.get_running_loop().set_exception_handler(lambda _, context: raised.append(context["exception"]))
    async with working() as workers:

        def reporting() -> None:
            for number in range(10):
                workers._report(failing if number % 3 == 0 else arrived.append, number)

        while_the_loop_is_busy(reporting)
        await until(lambda: len(raised) + len(arrived) == 10)
        while_the_loop_is_busy(workers._report, arrived.append, 10)
        await until(lambda: 10 in arrived)
    assert arrived == [1, 2, 4, 5, 7, 8, 10]
    assert [str(error) for error in raised] == ["0", "3", "6", "9"]


async def test_each_request_is_logged_at_debug_level() -> None:
    with structlog.testing.capture_logs() as lines, Peer(good) as peer, Peer(BROKEN["reset"]) as broken:
        async with working() as workers:
            await Sent(workers, api(peer.url), 5).outcome()
            await Sent(workers, api(broken.url), 6).outcome()
    told = [(line["log_level"], line["task_id"], line["outcome"]) for line in lines]
    assert told == [
        ("debug", 5, "answered"),
        ("debug", 6, "connection_error: connection reset by peer"),
    ]
    assert all(0 <= line["seconds"] < SOON for line in lines)


@pytest.mark.parametrize(
    ("files", "threads"), [(resource.RLIM_INFINITY, 512), (1 << 20, 512), (1024, 128), (4, 1)]
)
def test_there_are_no_more_threads_than_there_can_be_files_for(
    monkeypatch: pytest.MonkeyPatch, files: int, threads: int
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (64, files))
    assert workers_module._most_threads() == threads
