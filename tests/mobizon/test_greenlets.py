"""Code that waits in greenlets, over real sockets and threads."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
from contextlib import closing, suppress
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

import pytest

from exporter.mobizon.greenlets import GreenletSocket, Routine, in_thread, join_threads, run
from tests.support.asking import until
from tests.support.peers import SOON

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

Pair: TypeAlias = tuple[GreenletSocket, socket.socket]
SHORT = 0.05  # seconds; a time-out that is to be met


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    near, far = socket.socketpair()
    near.settimeout(SOON)
    with far, closing(GreenletSocket(near)) as sock:
        yield sock, far


def received(sock: GreenletSocket, timeout: float = SOON) -> bytes:
    sock.wait_until_readable(timeout)
    return os.read(sock.fileno(), 100_000)


def nothing() -> None:
    pass


async def test_what_a_function_returns_and_raises_comes_out() -> None:
    assert await run(lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        await run(lambda: 1 // 0)


async def test_while_one_waits_others_go_on(pair: Pair) -> None:
    near, far = pair
    with closing(GreenletSocket(far)) as end:
        there = asyncio.create_task(run(partial(received, end)))
        here = asyncio.create_task(run(partial(received, near)))
        await asyncio.sleep(0)
        end.sendall(b"to near")
        assert await here == b"to near"
        assert not there.done()
        near.sendall(b"to far")
        assert await there == b"to far"


async def test_what_does_not_come_in_time_is_a_time_out(pair: Pair) -> None:
    near, far = pair
    with pytest.raises(TimeoutError):
        await run(partial(received, near, SHORT))
    far.send(b"late")
    assert await run(partial(received, near)) == b"late"


async def test_what_comes_together_with_the_time_out_ends_one_wait_only(
    pair: Pair,
) -> None:
    near, far = pair
    ended = threading.Event()

    def wait_twice() -> bytes:
        try:
            first = received(near, SHORT)
        except TimeoutError:
            first = b"late"
        assert received(near) == b"y"
        assert ended.is_set()
        return first

    waiting = asyncio.create_task(run(wait_twice))
    await asyncio.sleep(0)
    far.send(b"x")
    time.sleep(2 * SHORT)  # noqa: ASYNC251 - the loop sees both at once
    await turns_of_the_loop()
    ended.set()
    far.send(b"y")
    assert await waiting == b"x"


async def test_more_than_fits_is_sent_as_the_peer_reads(pair: Pair) -> None:
    near, far = pair
    data = bytes(range(256)) * 10_000
    sending = asyncio.create_task(run(lambda: near.sendall(data)))
    await asyncio.sleep(0)
    assert not sending.done()
    read = bytearray()
    with closing(GreenletSocket(far)) as end:
        while len(read) < len(data):
            read += await run(partial(received, end))
    await sending
    assert read == data


async def test_sending_to_a_peer_that_does_not_read_is_a_time_out(
    pair: Pair,
) -> None:
    sock, _ = pair
    sock.settimeout(SHORT)
    with pytest.raises(TimeoutError):
        await run(lambda: sock.sendall(bytes(10_000_000)))


async def test_the_time_out_is_for_all_that_is_sent(pair: Pair) -> None:
    sock, far = pair
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


async def test_cancelled_it_ends_where_it_waits(pair: Pair) -> None:
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


async def turns_of_the_loop() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


async def test_what_nobody_waits_for_is_told_once_and_can_still_be_read(pair: Pair) -> None:
    near, far = pair
    far.send(b"unasked")
    await turns_of_the_loop()
    assert not asyncio.get_running_loop().remove_reader(near.fileno())
    assert await run(partial(received, near)) == b"unasked"
    assert asyncio.get_running_loop().remove_reader(near.fileno())


async def test_what_comes_while_it_sends_waits_until_it_is_read(pair: Pair) -> None:
    near, far = pair
    data = bytes(1_000_000)

    def talk() -> bytes:
        near.sendall(data)
        return received(near)

    talking = asyncio.create_task(run(talk))
    await asyncio.sleep(0)
    far.send(b"early")
    await turns_of_the_loop()
    far.settimeout(SOON)
    left = len(data)
    while left:
        left -= len(await asyncio.to_thread(far.recv, left))
    assert await talking == b"early"
    assert not asyncio.get_running_loop().remove_writer(near.fileno())


async def test_what_comes_later_does_not_wake_who_waits_for_something_else(pair: Pair) -> None:
    near, far = pair
    working, done = threading.Event(), threading.Event()

    def work() -> None:
        working.set()
        assert done.wait(SOON)

    def read_and_work() -> BaseException | None:
        received(near)
        return in_thread(work, SOON, nothing)

    waiting = asyncio.create_task(run(read_and_work))
    far.send(b"x")
    await until(working.is_set)
    far.send(b"later")
    await turns_of_the_loop()
    assert not waiting.done()
    done.set()
    assert await waiting is None


async def test_a_closed_socket_is_not_watched(pair: Pair) -> None:
    near, _ = pair
    number = near.fileno()
    near.close()
    assert not asyncio.get_running_loop().remove_reader(number)
    near.close()


async def test_what_is_read_after_closing_is_not_watched_any_longer(pair: Pair) -> None:
    """As the rest of an answer after which the server closes the connection."""
    near, far = pair
    number, file = near.fileno(), near.makefile("rb", buffering=0)
    near.close()
    reading = asyncio.create_task(run(partial(received, near)))
    await asyncio.sleep(0)
    far.send(b"rest")
    assert await reading == b"rest"
    assert not asyncio.get_running_loop().remove_reader(number)
    file.close()


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


async def test_it_is_over_when_its_threads_have_ended_too() -> None:
    done = threading.Event()
    over: list[Routine] = []

    def give_up_waiting() -> None:
        with suppress(TimeoutError):
            in_thread(lambda: done.wait(SOON), SHORT, nothing)

    routine = Routine(give_up_waiting, over.append)
    routine.switch()
    await until(lambda: routine.dead)
    assert over == []
    done.set()
    await until(lambda: bool(over))
    assert over == [routine]


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


async def test_nothing_waits_outside_a_greenlet(pair: Pair) -> None:
    with pytest.raises(RuntimeError, match="outside a greenlet"):
        received(pair[0])
