"""The threads that requests wait in, behind the event loop."""

from __future__ import annotations

import contextlib
import resource
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

import structlog

from exporter.errors import ApiError, Reason
from exporter.mobizon.client import Client
from exporter.mobizon.connection import Call

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from exporter.model import Api, Reading

log = structlog.get_logger(__name__)

MOST_THREADS: Final = 512  # they are started only as they are needed
FILES_FOR_EACH: Final = 8  # that may be open: a connection takes two, and the peers of the server some, too
NAME: Final = "mobizon-api"
GRACE: Final = 0.5  # seconds that an expired request has to come back by itself
LONGEST_JOIN: Final = 1.0


class Workers:
    """Sends requests from threads and reports on the loop; implements the refresher's `Send`."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._most = _most_threads()
        self._threads = ThreadPoolExecutor(self._most, thread_name_prefix=NAME)
        self._clients: dict[tuple[str | None, str | None], Client] = {}
        self._reports: deque[tuple[Callable[..., object], tuple[object, ...]]] = deque()
        self._woken = False
        self._calls: dict[Call, Callable[[Reading | ApiError, float], None]] = {}

    def send(
        self,
        api: Api,
        task_id: int,
        sent: Callable[[float], None],
        done: Callable[[Reading | ApiError], None],
    ) -> None:
        """Start a request; `sent` and `done` are called on the loop."""
        route = (api.ca_file, api.proxy_url.reveal() if api.proxy_url else None)
        client = self._clients.get(route)
        if client is None:
            client = self._clients[route] = Client(*route, connections=self._most)
        call = Call(api.timeout, lambda when: self._report(sent, when), self._loop.time)

        def finish(outcome: Reading | ApiError, seconds: float) -> None:
            if self._calls.pop(call, None) is None:  # it was given up
                return
            detail = str(outcome) if isinstance(outcome, ApiError) else "answered"
            log.debug("Request ended", task_id=task_id, seconds=round(seconds, 4), outcome=detail)
            done(outcome)

        def run() -> None:
            began = time.monotonic()
            outcome: Reading | ApiError
            try:
                outcome = client.get_status(api, task_id, call)
            except ApiError as error:
                outcome = error.with_traceback(None)  # which would keep what it leads to
            self._report(finish, outcome, time.monotonic() - began)

        self._threads.submit(run)
        self._calls[call] = finish
        self._watch(call)

    def close(self) -> None:
        """End every request under way; threads that do not come back within a second are left alone."""
        for call in self._calls:
            call.expire()
        self._threads.shutdown(wait=False, cancel_futures=True)
        until = time.monotonic() + LONGEST_JOIN
        for thread in threading.enumerate():
            if thread.name.startswith(NAME):
                thread.join(max(0.0, until - time.monotonic()))
        for client in self._clients.values():
            client.close()

    def _watch(self, call: Call) -> None:
        """Look again when the call's deadline has come; it moves on once the request is sent."""
        finish = self._calls.get(call)
        if finish is None:
            return
        now = self._loop.time()
        if call.deadline is None or now < call.deadline:
            self._loop.call_at(call.deadline or now + call.timeout, self._watch, call)
        elif not call.expired:
            call.expire()
            self._loop.call_at(now + GRACE, self._watch, call)
        else:  # its thread waits for what cannot be ended, such as the look-up of a name
            finish(ApiError(Reason.TIMEOUT, f"nothing sent within {call.timeout:g} s"), call.timeout)

    def _report(self, callback: Callable[..., object], *values: object) -> None:
        """Call back on the loop. For all that is reported while it is busy it is woken but once."""
        self._reports.append((callback, values))
        if not self._woken:
            self._woken = True
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to tell
                self._loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        self._woken = False  # first, so that whatever comes from now on wakes the loop again
        while self._reports:
            callback, values = self._reports.popleft()
            self._loop.call_soon(callback, *values)


def _most_threads() -> int:
    """As many as there can be files for; the server raises the limit as far as it may."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return (
        MOST_THREADS if hard == resource.RLIM_INFINITY else max(1, min(MOST_THREADS, hard // FILES_FOR_EACH))
    )
