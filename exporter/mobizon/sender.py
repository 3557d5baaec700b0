"""Sends requests beside each other on the event loop."""

from __future__ import annotations

import resource
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Final

import structlog

from exporter.errors import ApiError, Reason
from exporter.mobizon.call import Call
from exporter.mobizon.client import Client
from exporter.mobizon.greenlets import Routine, join_threads

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from exporter.model import Api, Reading

log = structlog.get_logger(__name__)

MAX_REQUESTS: Final = 512  # under way at once
FILES_PER_REQUEST: Final = 8  # that may be open: besides its connection the server's peers need some, too
MAX_JOIN: Final = 1.0  # seconds


class Sender:
    """Sends requests and reports on the loop; implements the refresher's `Send`."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._max = _max_requests()
        self._clients: dict[tuple[str | None, str | None], Client] = {}
        self._waiting: deque[Callable[[], None]] = deque()
        self._starting = False
        self._under_way: set[Routine] = set()
        self._log = log.bind()  # once, and not at each request

    def send(
        self,
        api: Api,
        task_id: int,
        sent: Callable[[float], None],
        done: Callable[[Reading | ApiError], None],
    ) -> None:
        """Start a request; `sent` and `done` are called on the loop."""
        self._waiting.append(partial(self._request, api, task_id, sent, done))
        self._start_soon()

    def close(self) -> None:
        """Send nothing any more; threads that do not come back within a second are left alone."""
        self._max = 0
        self._waiting.clear()
        for request in list(self._under_way):
            request.throw()
        join_threads(MAX_JOIN)
        for client in self._clients.values():
            client.close()

    def _start_soon(self) -> None:
        """Start what waits, one in each turn of the loop: in between, others have theirs."""
        if self._waiting and not self._starting and len(self._under_way) < self._max:
            self._starting = True
            self._loop.call_soon(self._start)

    def _start(self) -> None:
        self._starting = False
        if self._waiting:
            request = Routine(self._waiting.popleft(), self._over)
            self._under_way.add(request)
            self._start_soon()
            request.switch()

    def _over(self, request: Routine) -> None:
        """What connects for a request that has timed out holds its place: it may hang for long."""
        self._under_way.discard(request)
        self._start_soon()

    def _request(
        self,
        api: Api,
        task_id: int,
        sent: Callable[[float], None],
        done: Callable[[Reading | ApiError], None],
    ) -> None:
        began = self._loop.time()
        outcome: Reading | ApiError
        try:
            call = Call(api.timeout, lambda when: self._loop.call_soon(sent, when), self._loop.time)
            outcome = self._client(api).get_status(api, task_id, call)
        except ApiError as error:
            outcome = error.with_traceback(None)  # which would keep what it leads to
        except Exception as error:  # noqa: BLE001 - whatever it is, the account goes on
            outcome = ApiError(Reason.CONNECTION_ERROR, f"failed with {type(error).__name__}")
        detail = str(outcome) if isinstance(outcome, ApiError) else "answered"
        self._log.debug(
            "Request ended", task_id=task_id, seconds=round(self._loop.time() - began, 4), outcome=detail
        )
        self._loop.call_soon(done, outcome)

    def _client(self, api: Api) -> Client:
        """The one for all that share proxy and authorities."""
        route = (api.ca_file, api.proxy_url.reveal() if api.proxy_url else None)
        client = self._clients.get(route)
        if client is None:
            client = self._clients[route] = Client(*route, connections=self._max)
        return client


def _max_requests() -> int:
    """As many as there can be files for; the server raises the limit as far as it may."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return (
        MAX_REQUESTS
        if hard == resource.RLIM_INFINITY
        else max(1, min(MAX_REQUESTS, hard // FILES_PER_REQUEST))
    )
