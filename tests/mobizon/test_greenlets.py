"""Code that waits in greenlets, over real sockets and threads."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import pytest

from exporter.mobizon.greenlets import GreenletSocket, in_thread, join_threads, run, wait_until_ready
from tests.support.asking import until
from tests.support.peers import SOON

if TYPE_CHECKING:
    from collections.abc import Iterator

SHORT = 0.05  # seconds; a time-out that is to be met


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    near, far = socket.socketpair()
    with near, far:
        near.settimeout(SOON)
        yield near, far


def received(sock: socket.socket, timeout: float = SOON) -> bytes:
    wait_until_ready(sock.fileno(), timeout, writing=False)
    return sock.recv(100_000)


def nothing() -> None:
    pass


async def test_what_a_function_returns_and_raises_comes_out() -> None:
    assert await run(lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        await run(lambda: 1 // 0)


async def test_while_one_waits_others_go_on(pair: tuple[socket.socket, socket.socket]) -> None:
    near, far = pair
    there = asyncio.create_task(run(partial(received, far)))
    here = asyncio.create_task(run(partial(received, near)))
    await asyncio.sleep(0)
    far.send(b"to near")
    assert await here == b"to near"
    assert not there.done()
    near.send(b"to far")
    assert await there == b"to far"


async def test_what_does_not_come_in_time_is_a_time_out(pair: tuple[socket.socket, socket.socket]) -> None:
    near, far = pair
    with pytest.raises(TimeoutError):
        await run(partial(received, near, SHORT))
    far.send(b"late")
    assert await run(partial(received, near)) == b"late"


async def test_what_comes_together_with_the_time_out_ends_one_wait_only(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    near, far = pair
    ended = threading.Event()

    def wait_twice() -> str:
        try:
            received(near, SHORT)
            first = "received"
        except TimeoutError:
            first = "late"
        wait_until_ready(far.fileno(), SOON, writing=False)
        assert ended.is_set()
        return first

    waiting = asyncio.create_task(run(wait_twice))
    await asyncio.sleep(0)
    far.send(b"x")
    time.sleep(2 * SHORT)  # noqa: ASYNC251 - the loop sees both at once
    for _ in range(5):
        await asyncio.sleep(0)
    ended.set()
    near.send(b"y")
    assert await waiting == "received"


async def test_more_than_fits_is_sent_as_the_peer_reads(pair: tuple[socket.socket, socket.socket]) -> None:
    near, far = pair
    data = bytes(range(256)) * 10_000
    sending = asyncio.create_task(run(lambda: GreenletSocket(near).sendall(data)))
    await asyncio.sleep(0)
    assert not sending.done()
    read = bytearray()
    while len(read) < len(data):
        read += await run(partial(received, far))
    await sending
    assert read == data


async def test_sending_to_a_peer_that_does_not_read_is_a_time_out(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    near, _ = pair
    sock = GreenletSocket(near)
    sock.settimeout(SHORT)
    with pytest.raises(TimeoutError):
        await run(lambda: sock.sendall(bytes(10_000_000)))


async def test_the_time_out_is_for_all_that_is_sent(pair: tuple[socket.socket, socket.socket]) -> None:
    near, far = pair
    sock = GreenletSocket(near)
    sock.settimeout(4 * SHORT)
    far.setblocking(False)
    sending = asyncio.create_task(run(lambda: sock.sendall(bytes(100_000_000))))
    began = time.monotonic()
    while not sending.done():
        with suppress(BlockingIOError):
            far.recv(100_000)
        await asyncio.sleep(SHORT)
    with pytest.raises(TimeoutError):
        await sending
    assert time.monotonic() - began < 2


async def test_cancelled_it_ends_where_it_waits(pair: tuple[socket.socket, socket.socket]) -> None:
    near, far = pair
    ended: list[str] = []

    def wait() -> None:
        try:
            received(near)
        finally:
            ended.append("here")

    waiting = asyncio.create_task(run(wait))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert ended == ["here"]
    far.send(b"x")
    assert await run(partial(received, near)) == b"x"


async def test_the_loop_goes_on_while_a_thread_works() -> None:
    working, done = threading.Event(), threading.Event()

    def work() -> None:
        working.set()
        assert done.wait(SOON)
        raise OSError("told by a test")

    waiting = asyncio.create_task(run(lambda: in_thread(work, SOON, nothing)))
    await until(working.is_set)
    done.set()
    assert str(await waiting) == "told by a test"
    assert await run(lambda: in_thread(nothing, SOON, nothing)) is None


async def test_what_a_thread_does_too_late_is_abandoned_on_the_loop() -> None:
    done = threading.Event()
    abandoned: list[threading.Thread] = []

    def note() -> None:
        abandoned.append(threading.current_thread())

    with pytest.raises(TimeoutError):
        await run(lambda: in_thread(lambda: done.wait(SOON), SHORT, note))
    assert abandoned == []
    done.set()
    await until(lambda: bool(abandoned))
    assert abandoned == [threading.current_thread()]


def test_what_a_thread_does_after_the_loop_is_closed_is_abandoned_too() -> None:
    done, abandoned = threading.Event(), threading.Event()
    with pytest.raises(TimeoutError):
        asyncio.run(run(lambda: in_thread(lambda: done.wait(SOON), SHORT, abandoned.set)))
    began = time.monotonic()
    join_threads(SHORT)
    assert time.monotonic() - began >= SHORT
    done.set()
    join_threads(SOON)
    assert abandoned.is_set()


async def test_nothing_waits_outside_a_greenlet(pair: tuple[socket.socket, socket.socket]) -> None:
    with pytest.raises(RuntimeError, match="outside a greenlet"):
        received(pair[0])
