"""Requests beside each other on the loop, each with a deadline for the whole of it."""

from __future__ import annotations

import asyncio
import resource
import socket
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import structlog

from exporter.errors import Reason
from exporter.mobizon import sender as sender_module
from exporter.mobizon.client import Client
from exporter.mobizon.greenlets import THREAD
from exporter.mobizon.sender import Sender
from exporter.model import Reading, Secret
from tests.support.asking import KEY, Sent, api, descriptors, no_collection, until, working
from tests.support.peers import (
    BROKEN,
    SOON,
    Peer,
    Visit,
    after_request,
    dripping,
    good,
    head_of,
    silent,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


TIMEOUT = 0.4  # seconds; of requests that shall run into it
CLOSED_WITHIN = 2.0


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """No thread of theirs outlives them, and no descriptor that was not there before."""
    threads, before = set(threading.enumerate()), descriptors()
    with no_collection():
        yield
        for thread in set(threading.enumerate()) - threads:
            thread.join(SOON)  # what hangs is left alone by `close`, and ends with its peer
        assert set(threading.enumerate()) == threads
        assert descriptors().keys() == before.keys()


async def test_an_outcome_is_reported_once_and_on_the_loop() -> None:
    with Peer(good) as peer:
        async with working() as sender:
            requests = [Sent(sender, api(peer.url), task_id) for task_id in range(1, 20)]
            outcomes = [await request.outcome() for request in requests]
        read = {(outcome.progress, outcome.status) for outcome in outcomes if isinstance(outcome, Reading)}
        assert read == {(40, 1)}
        for request in requests:
            assert len(request.sent) == 1
            assert request.called_in == {threading.current_thread()}
        assert sorted(peer.bodies) == sorted(b"id=%d" % task_id for task_id in range(1, 20))


async def test_sent_is_told_by_the_loops_clock_before_the_outcome() -> None:
    loop = asyncio.get_running_loop()
    with Peer(after_request()) as peer:
        async with working() as sender:
            before = loop.time()
            request = Sent(sender, api(peer.url))
            assert (await request.failure()).reason is Reason.CONNECTION_ERROR
            assert before <= request.sent[0] <= loop.time()


@pytest.mark.parametrize("treat", BROKEN.values(), ids=BROKEN)
async def test_a_failure_is_reported_as_an_error_of_ours(treat: Callable[[Visit], None]) -> None:
    with Peer(treat) as peer:
        async with working() as sender:
            error = await Sent(sender, api(peer.url)).failure()
            assert error.reason is Reason.CONNECTION_ERROR
            assert (error.__traceback__, error.__context__) == (None, None)


async def test_a_connection_that_was_closed_a_moment_ago_is_not_used_again() -> None:
    close, closed = threading.Semaphore(0), threading.Semaphore(0)

    def treat(visit: Visit) -> None:
        visit.request()
        visit.answer()
        assert close.acquire(timeout=SOON)
        visit.sock.shutdown(socket.SHUT_RDWR)
        closed.release()

    with Peer(treat) as peer:
        async with working() as sender:
            for _ in range(3):
                assert isinstance(await Sent(sender, api(peer.url)).outcome(), Reading)
                close.release()
                assert closed.acquire(timeout=SOON)  # while the loop has no turn
        assert peer.connections == 3


async def test_many_requests_are_under_way_at_once() -> None:
    number = 60
    together = threading.Barrier(number)

    def treat(visit: Visit) -> None:
        visit.request()
        together.wait(SOON)  # no one is answered before all are there
        visit.answer()

    with Peer(treat) as peer:
        async with working() as sender:
            requests = [Sent(sender, api(peer.url), task_id) for task_id in range(1, number + 1)]
            outcomes = [await request.outcome() for request in requests]
        assert all(isinstance(outcome, Reading) for outcome in outcomes)


async def test_a_request_that_waits_for_others_has_its_whole_time_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sender_module, "MAX_REQUESTS", 1)

    def treat(visit: Visit) -> None:
        visit.request()
        if len(peer.heads) == 1:
            visit.wait_until_gone()
        visit.answer()

    with Peer(treat) as peer:
        async with working() as sender:
            first = Sent(sender, api(peer.url, timeout=TIMEOUT))
            second = Sent(sender, api(peer.url, timeout=TIMEOUT))
            assert (await first.failure()).reason is Reason.TIMEOUT
            assert isinstance(await second.outcome(), Reading)


async def test_requests_on_kept_connections_need_no_threads() -> None:
    with Peer(good) as peer:
        async with working() as sender:
            await Sent(sender, api(peer.url)).outcome()
            threads = set(threading.enumerate())
            for task_id in range(1, 30):
                await Sent(sender, api(peer.url), task_id).outcome()
            assert set(threading.enumerate()) <= threads
        assert peer.connections == 1


async def test_requests_by_different_routes_do_not_mix() -> None:
    with Peer(good) as peer, Peer(good) as proxy:
        async with working() as sender:
            through = api(peer.url, proxy_url=Secret(proxy.url))
            await Sent(sender, api(peer.url)).outcome()
            await Sent(sender, through).outcome()
            await Sent(sender, api(peer.url)).outcome()
            assert (len(peer.heads), len(proxy.heads)) == (2, 1)
            assert (peer.connections, proxy.connections) == (1, 1)


def no_more_open_than(number: int) -> bool:
    return len(descriptors()) <= number


async def test_requests_in_a_row_keep_no_descriptors() -> None:
    with no_collection():
        for treat in (*BROKEN.values(), after_request(head_of("Content-Length: 9"), b"x")):
            with Peer(treat) as peer:
                async with working() as sender:
                    await Sent(sender, api(peer.url)).outcome()
                    before = len(descriptors())
                    for _ in range(5):
                        await Sent(sender, api(peer.url)).outcome()
                    # once the peer, too, has come to closing its ends
                    await until(partial(no_more_open_than, before))


HANGING: dict[str, Callable[[Visit], None]] = {
    "silent": silent,
    "dripping body": dripping(head_of("Content-Length: 50000")),
    "dripping body of a connection to be closed": dripping(
        head_of("Connection: close", "Content-Length: 50000")
    ),
}


@pytest.mark.parametrize("scheme", ["http:", "https:"])
@pytest.mark.parametrize("treat", HANGING.values(), ids=HANGING)
async def test_closing_waits_little_for_requests_that_hang_and_reports_them_no_more(
    treat: Callable[[Visit], None], scheme: str
) -> None:
    with Peer(treat) as peer:
        sender = Sender(asyncio.get_running_loop())
        requests = [Sent(sender, api(peer.url.replace("http:", scheme), timeout=60)) for _ in range(20)]
        await until(lambda: peer.connections == len(requests))
        began = time.monotonic()
        sender.close()
        assert time.monotonic() - began < CLOSED_WITHIN
    await until(lambda: not any(thread.name == THREAD for thread in threading.enumerate()))
    await asyncio.sleep(0)
    assert not any(request.done.done() for request in requests)


def look_ups_hang(monkeypatch: pytest.MonkeyPatch) -> tuple[threading.Event, threading.Event]:
    """The events that one has begun, and that they may all go on."""
    begun, go_on = threading.Event(), threading.Event()
    resolve = socket.getaddrinfo

    def hanging(*arguments: Any, **named: Any) -> Any:
        begun.set()
        assert go_on.wait(SOON)
        return resolve(*arguments, **named)

    monkeypatch.setattr(socket, "getaddrinfo", hanging)
    return begun, go_on


async def test_nothing_is_sent_once_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also by a thread that comes back from the look-up of a name only then."""
    resolving, resolved = look_ups_hang(monkeypatch)
    with Peer(good) as peer:
        others = set(threading.enumerate())  # such as those of earlier tests
        sender = Sender(asyncio.get_running_loop())
        request = Sent(sender, api(peer.url))
        await until(resolving.is_set)
        (sending,) = (thread for thread in set(threading.enumerate()) - others if thread.name == THREAD)
        sender.close()
        resolved.set()
        await until(lambda: not sending.is_alive())
        assert (request.sent, peer.heads) == ([], [])


@pytest.mark.parametrize("stuck", [1, 3])
async def test_a_look_up_that_hangs_is_a_time_out_and_what_it_was_for_is_never_sent(
    monkeypatch: pytest.MonkeyPatch, stuck: int
) -> None:
    _, resolved = look_ups_hang(monkeypatch)
    with Peer(good) as peer:
        async with working() as sender:
            began = time.monotonic()
            requests = [Sent(sender, api(peer.url, timeout=TIMEOUT)) for _ in range(stuck)]
            errors = [await request.failure() for request in requests]
            assert TIMEOUT < time.monotonic() - began < TIMEOUT + 2
            assert {(error.reason, error.detail) for error in errors} == {
                (Reason.TIMEOUT, f"no connection within {TIMEOUT} s")
            }
            resolved.set()
            assert isinstance(await Sent(sender, api(peer.url)).outcome(), Reading)
        assert len(peer.heads) == 1
        assert not any(request.sent for request in requests)


async def test_a_request_for_which_there_is_no_thread_fails_and_is_never_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start, refused = threading.Thread.start, 0

    def failing_once(thread: threading.Thread) -> None:
        nonlocal refused
        if thread.name == THREAD and not refused:
            refused += 1
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", failing_once)
    with Peer(good) as peer:
        async with working() as sender:
            error = await Sent(sender, api(peer.url), 1).failure()
            assert (error.reason, error.detail) == (Reason.CONNECTION_ERROR, "failed with RuntimeError")
            for task_id in (2, 3):
                assert isinstance(await Sent(sender, api(peer.url), task_id).outcome(), Reading)
        assert refused == 1
        assert peer.bodies == [b"id=2", b"id=3"]


async def test_what_hangs_while_it_connects_holds_its_place_among_the_requests(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sender_module, "MAX_REQUESTS", 3)
    _, resolved = look_ups_hang(monkeypatch)
    with Peer(good) as peer:
        async with working() as sender:
            requests = [Sent(sender, api(peer.url, timeout=TIMEOUT)) for _ in range(9)]
            for request in requests[:3]:
                assert (await request.failure()).reason is Reason.TIMEOUT
            await asyncio.sleep(0.05)  # in which no more may begin
            assert sum(thread.name == THREAD for thread in threading.enumerate()) == 3
            resolved.set()
            for request in requests[3:]:
                assert isinstance(await request.outcome(), Reading)


async def test_closing_closes_idle_connections() -> None:
    gone = threading.Event()

    def treat(visit: Visit) -> None:
        try:
            good(visit)
        finally:
            gone.set()

    with Peer(treat) as peer:
        sender = Sender(asyncio.get_running_loop())
        await Sent(sender, api(peer.url)).outcome()
        assert not gone.is_set()
        sender.close()
        assert gone.wait(SOON)
        assert sender  # so that nothing but closing has closed it


async def test_closing_sends_nothing_that_still_waits_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sender_module, "MAX_REQUESTS", 1)
    with Peer(after_request()) as peer, Peer(silent) as hanging:
        sender = Sender(asyncio.get_running_loop())
        Sent(sender, api(hanging.url, timeout=60))
        for _ in range(5):
            Sent(sender, api(peer.url, timeout=60))
        await until(lambda: hanging.connections == 1)
        sender.close()
        await asyncio.sleep(0)
        assert peer.connections == 0


def test_an_outcome_after_the_loop_has_closed_does_no_harm() -> None:
    async def start() -> Sender:
        sender = Sender(asyncio.get_running_loop())
        sender.send(api(peer.url, timeout=60), 7, lambda _: None, lambda _: None)
        await until(lambda: peer.connections == 1)
        return sender

    with Peer(silent) as peer:
        sender = asyncio.run(start())
        sender.close()


async def test_each_request_is_logged_at_debug_level() -> None:
    with structlog.testing.capture_logs() as lines, Peer(good) as peer, Peer(BROKEN["reset"]) as broken:
        async with working() as sender:
            await Sent(sender, api(peer.url), 5).outcome()
            await Sent(sender, api(broken.url), 6).outcome()
    told = [(line["log_level"], line["task_id"], line["outcome"]) for line in lines]
    assert told == [
        ("debug", 5, "answered"),
        ("debug", 6, "connection_error: connection reset by peer"),
    ]
    assert all(0 <= line["seconds"] < SOON for line in lines)


@pytest.mark.parametrize(("files", "number"), [(resource.RLIM_INFINITY, 20), (1 << 20, 20), (64, 8), (4, 1)])
async def test_no_more_requests_are_under_way_than_there_can_be_files_for(
    monkeypatch: pytest.MonkeyPatch, files: int, number: int
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (64, files))
    answering = threading.Event()

    def treat(visit: Visit) -> None:
        while True:
            visit.request()
            answering.wait(SOON)
            visit.answer()

    with Peer(treat) as peer:
        async with working() as sender:
            requests = [Sent(sender, api(peer.url, timeout=60)) for _ in range(20)]
            await until(lambda: len(peer.heads) == number)
            await asyncio.sleep(0.05)  # in which no more may come
            assert len(peer.heads) == number
            answering.set()
            for request in requests:
                assert isinstance(await request.outcome(), Reading)


async def test_whatever_goes_wrong_with_a_request_is_an_error_without_its_text(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def failing(*_: object) -> None:
        raise ValueError(KEY)

    with Peer(good) as peer:
        async with working() as sender:
            with monkeypatch.context() as patched:
                patched.setattr(Client, "get_status", failing)
                error = await Sent(sender, api(peer.url)).failure()
            assert (error.reason, error.detail) == (Reason.CONNECTION_ERROR, "failed with ValueError")
            assert isinstance(await Sent(sender, api(peer.url)).outcome(), Reading)
