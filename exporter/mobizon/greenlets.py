"""Code that waits, on the event loop: each piece is a greenlet, and while it waits, the loop goes on.

Python runs one thread at a time. With a thread for each request, handing over takes longer than the requests.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

from greenlet import getcurrent, greenlet

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    T = TypeVar("T")

THREAD: Final = "mobizon-connect"  # the name of all threads of `in_thread`


async def run(function: Callable[[], T]) -> T:
    """What the function comes to in a greenlet of its own; cancelled, it ends where it waits."""
    loop = asyncio.get_running_loop()
    result: asyncio.Future[T] = loop.create_future()

    def settle() -> None:
        try:
            value = function()
        except Exception as error:  # noqa: BLE001 - for the caller
            loop.call_soon(_settle, result.set_exception, error)
        else:
            loop.call_soon(_settle, result.set_result, value)

    running = greenlet(settle)
    running.switch()
    try:
        return await result
    finally:
        running.throw()


def _settle(set_to: Callable[[Any], None], value: object) -> None:
    with contextlib.suppress(asyncio.InvalidStateError):  # it was cancelled
        set_to(value)


def wait_until_ready(fd: int, timeout: float, *, writing: bool) -> None:
    """Wait, in a greenlet, until a descriptor can be read, or written; TimeoutError after so many seconds."""
    loop = asyncio.get_running_loop()
    add, remove = (loop.add_writer, loop.remove_writer) if writing else (loop.add_reader, loop.remove_reader)
    waiting = getcurrent()
    add(fd, waiting.switch)
    try:
        _pause(loop, waiting, timeout)
    finally:
        remove(fd)


class GreenletSocket:
    """A connected socket for code in a greenlet: where it would block, it waits on the event loop."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._timeout = sock.gettimeout() or 0.0
        self.fileno, self.close, self.makefile = sock.fileno, sock.close, sock.makefile
        sock.settimeout(0)

    def settimeout(self, timeout: float) -> None:
        """As of a socket, in seconds."""
        self._timeout = timeout

    def sendall(self, data: bytes) -> None:
        """As of a socket."""
        left = memoryview(data)
        while left:
            try:
                left = left[self._sock.send(left) :]
            except (BlockingIOError, ssl.SSLWantWriteError):
                wait_until_ready(self.fileno(), self._timeout, writing=True)


def in_thread(
    function: Callable[[], object], timeout: float, abandoned: Callable[[], object]
) -> BaseException | None:
    """Wait, in a greenlet, for what blocks in a thread; what it has raised is returned.

    TimeoutError after so many seconds. The thread goes on then, and at its end `abandoned` is called.
    """
    loop, waiting = asyncio.get_running_loop(), getcurrent()
    awaited = True

    def end(error: BaseException | None) -> None:
        if awaited:
            waiting.switch(error)
        else:
            abandoned()

    threading.Thread(target=_work, args=(loop, function, end, abandoned), name=THREAD, daemon=True).start()
    try:
        error: BaseException | None = _pause(loop, waiting, timeout)
    finally:
        awaited = False
    return error


def join_threads(timeout: float) -> None:
    """Wait up to so many seconds for the threads of `in_thread`; those that hang are left alone."""
    until = time.monotonic() + timeout
    for thread in threading.enumerate():
        if thread.name == THREAD:
            thread.join(max(0.0, until - time.monotonic()))


def _pause(loop: asyncio.AbstractEventLoop, waiting: greenlet, timeout: float) -> Any:
    """Go back to the loop until `waiting` is switched to, and return what with."""
    if waiting.parent is None:
        raise RuntimeError("waits outside a greenlet")
    timer = loop.call_later(timeout, partial(waiting.throw, TimeoutError))
    try:
        return waiting.parent.switch()
    finally:
        timer.cancel()


def _work(
    loop: asyncio.AbstractEventLoop,
    function: Callable[[], object],
    end: Callable[[BaseException | None], None],
    abandoned: Callable[[], object],
) -> None:
    failure: BaseException | None = None
    try:
        function()
    except BaseException as error:  # noqa: BLE001 - for the greenlet
        failure = error
    try:
        loop.call_soon_threadsafe(end, failure)
    except RuntimeError:  # the loop is closed
        abandoned()
    del failure
