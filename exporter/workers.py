"""The threads that requests wait in, behind the event loop."""

from __future__ import annotations

import contextlib
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

import structlog

from exporter.client import Client
from exporter.connection import Call
from exporter.errors import ApiError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from exporter.config import Api
    from exporter.model import Reading

log = structlog.get_logger(__name__)

MOST_THREADS: Final = 256  # they are started only as they are needed


class Workers:
    """Sends requests from threads and reports on the loop; implements the refresher's `Send`."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._threads = ThreadPoolExecutor(MOST_THREADS, thread_name_prefix="mobizon-api")
        self._clients: dict[tuple[str | None, str | None], Client] = {}
        self._calls: set[Call] = set()

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
            client = self._clients[route] = Client(*route, connections=MOST_THREADS)
        call = Call(api.timeout, lambda when: self._report(sent, when), self._loop.time)
        self._calls.add(call)
        self._watch(call)

        def finish(outcome: Reading | ApiError, seconds: float) -> None:
            self._calls.discard(call)
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

    def close(self) -> None:
        """End every request under way."""
        for call in self._calls:
            call.expire()
        self._threads.shutdown(wait=True, cancel_futures=True)
        for client in self._clients.values():
            client.close()

    def _watch(self, call: Call) -> None:
        """Look again when the call's deadline has come; it moves on once the request is sent."""
        if call not in self._calls:
            return
        now = self._loop.time()
        if call.deadline is not None and call.deadline <= now:
            call.expire()
        else:
            self._loop.call_at(call.deadline or now + call.timeout, self._watch, call)

    def _report(self, callback: Callable[..., None], *values: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to tell
            self._loop.call_soon_threadsafe(callback, *values)
