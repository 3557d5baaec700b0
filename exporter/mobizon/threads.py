"""The threads that requests wait in, behind the event loop."""

from __future__ import annotations

import resource
import time
from typing import TYPE_CHECKING, Final

import structlog

from exporter.errors import ApiError, Reason
from exporter.mobizon.call import Call
from exporter.mobizon.callbacks import LoopCallbacks
from exporter.mobizon.client import Client
from exporter.mobizon.workers import Workers

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from exporter.model import Api, Reading

log = structlog.get_logger(__name__)

MAX_THREADS: Final = 512  # they are started only as they are needed
FILES_PER_THREAD: Final = 8  # that may be open: besides its connection the server's peers need some, too
NAME: Final = "mobizon-api"
GRACE: Final = 0.5  # seconds that a request has to come back by itself after its deadline
MAX_JOIN: Final = 1.0  # seconds


class RequestThreads:
    """Sends requests from threads and reports on the loop; implements the refresher's `Send`."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._max = _max_threads()
        self._workers = Workers(self._max, NAME)
        self._clients: dict[tuple[str | None, str | None], Client] = {}
        self._callbacks = LoopCallbacks(loop)
        self._calls: dict[Call, Callable[[Reading | ApiError, float], None]] = {}

    def send(
        self,
        api: Api,
        task_id: int,
        sent: Callable[[float], None],
        done: Callable[[Reading | ApiError], None],
    ) -> None:
        """Start a request; `sent` and `done` are called on the loop. If it raises, nothing will be sent."""
        route = (api.ca_file, api.proxy_url.reveal() if api.proxy_url else None)
        client = self._clients.get(route)
        if client is None:
            client = self._clients[route] = Client(*route, connections=self._max)
        call = Call(api.timeout, lambda when: self._callbacks.post(sent, when), self._loop.time)

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
            except Exception as error:  # noqa: BLE001 - whatever it is, the thread and the account go on
                outcome = ApiError(Reason.CONNECTION_ERROR, f"failed with {type(error).__name__}")
            self._callbacks.post(finish, outcome, time.monotonic() - began)

        self._workers.run(run)
        self._calls[call] = finish
        self._watch(call)

    def close(self) -> None:
        """Send nothing any more; threads that do not come back within a second are left alone."""
        for call in self._calls:
            call.give_up()
        self._calls.clear()
        self._workers.close(MAX_JOIN)
        for client in self._clients.values():
            client.close()

    def _watch(self, call: Call) -> None:
        """Give up a request that waits for what no time-out of a socket ends, such as a name's look-up."""
        finish = self._calls.get(call)
        if finish is None:
            return
        if call.give_up_if_late(GRACE):
            finish(call.timed_out(), call.timeout)
        else:  # the deadline moves on once the request is sent
            deadline = call.deadline or self._loop.time() + call.timeout
            self._loop.call_at(deadline + GRACE, self._watch, call)


def _max_threads() -> int:
    """As many as there can be files for; the server raises the limit as far as it may."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return (
        MAX_THREADS if hard == resource.RLIM_INFINITY else max(1, min(MAX_THREADS, hard // FILES_PER_THREAD))
    )
