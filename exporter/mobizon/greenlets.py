"""Code that waits, on the event loop: each piece is a greenlet, and while it waits, the loop goes on.

Python runs one thread at a time: hundreds that wait for answers would hold each other up, and scrapes.
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


class Routine(greenlet):
    """Code that may wait on the event loop; `over` is called once it and its threads have ended."""

    def __init__(self, function: Callable[[], object], over: Callable[[Routine], object]) -> None:
        super().__init__()
        self._function = function
        self._over = over
        self._parts = 1

    def run(self) -> None:
        """Call the function; begins with the first switch."""
        try:
            self._function()
        finally:
            self.end_part()

    def begin_part(self) -> None:
        """A thread begins to work for it."""
        self._parts += 1

    def end_part(self) -> None:
        """A thread, or the function, has ended."""
        self._parts -= 1
        if not self._parts:
            self._over(self)


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

    running = Routine(settle, lambda _: None)
    running.switch()
    try:
        return await result
    finally:
        running.throw()


def _settle(set_to: Callable[[Any], None], value: object) -> None:
    with contextlib.suppress(asyncio.InvalidStateError):  # it was cancelled
        set_to(value)


class GreenletSocket:
    """A connected socket for code in greenlets of one loop: where it would block, it waits on the loop."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._timeout = sock.gettimeout() or 0.0
        self._loop = asyncio.get_running_loop()
        self._reader: Routine | None = None
        self._watched = False  # for what comes; not while something lies there that nobody reads
        self._closed = False
        self.fileno, self.makefile = sock.fileno, sock.makefile
        sock.settimeout(0)
        self._watch()

    def settimeout(self, timeout: float) -> None:
        """As of a socket, in seconds."""
        self._timeout = timeout

    def sendall(self, data: bytes) -> None:
        """As of a socket."""
        until = time.monotonic() + self._timeout
        left = memoryview(data)
        while left:
            try:
                left = left[self._sock.send(left) :]
            except (BlockingIOError, ssl.SSLWantWriteError):
                self._wait_until_writable(until - time.monotonic())

    def wait_until_readable(self, timeout: float) -> None:
        """Wait, in a greenlet, until more can be read; TimeoutError after so many seconds."""
        self._reader = _current()
        if not self._watched:
            self._watch()
        try:
            _pause(self._loop, self._reader, timeout)
        finally:
            self._reader = None
            if self._closed:
                self._unwatch()

    def close(self) -> None:
        """As of a socket: a file of it can be read on."""
        self._closed = True
        self._unwatch()
        self._sock.close()

    def _wait_until_writable(self, timeout: float) -> None:
        waiting = _current()
        self._loop.add_writer(self.fileno(), waiting.switch)
        try:
            _pause(self._loop, waiting, timeout)
        finally:
            self._loop.remove_writer(self.fileno())

    def _watch(self) -> None:
        self._loop.add_reader(self.fileno(), self._readable)
        self._watched = True

    def _unwatch(self) -> None:
        if self._watched:
            self._loop.remove_reader(self.fileno())
            self._watched = False

    def _readable(self) -> None:
        if self._reader:
            self._reader.switch()
        else:
            self._unwatch()  # else the loop would tell of it again and again


def in_thread(
    function: Callable[[], object], timeout: float, abandoned: Callable[[], object]
) -> BaseException | None:
    """Wait, in a greenlet, for what blocks in a thread; what it has raised is returned.

    TimeoutError after so many seconds. The thread goes on then, and at its end `abandoned` is called, on the
    loop if that still runs.
    """
    loop, waiting = asyncio.get_running_loop(), _current()
    awaited = True

    def end(error: BaseException | None) -> None:
        waiting.end_part()
        if awaited:
            waiting.switch(error)
        else:
            abandoned()

    work = (loop, function, end, abandoned)
    threading.Thread(target=_work, args=work, name=THREAD, daemon=True).start()
    waiting.begin_part()
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


def _current() -> Routine:
    current = getcurrent()
    if not isinstance(current, Routine):
        raise RuntimeError("waits outside a greenlet")
    return current


def _pause(loop: asyncio.AbstractEventLoop, waiting: Routine, timeout: float) -> Any:
    """Go back to the loop until `waiting` is switched to, and return what with."""
    assert waiting.parent  # noqa: S101 - of every greenlet but a thread's first; for the type checker
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
