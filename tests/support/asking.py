"""Requests by the real client, or by the sender, as tests make them."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import threading
import time
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from exporter.errors import ApiError
from exporter.mobizon import greenlets
from exporter.mobizon.call import Call
from exporter.mobizon.client import Client
from exporter.mobizon.sender import Sender
from exporter.model import Api, Reading, Secret
from exporter.simulator import DEMO_KEY
from tests.support.peers import SOON

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from concurrent.futures import Future

    T = TypeVar("T")

KEY = DEMO_KEY
NOW = 1767225600.0


def api(url: str, key: str = KEY, timeout: float = SOON, **settings: Any) -> Api:
    return Api(url, Secret(key), timeout=timeout, **settings)


@cache
def event_loop() -> asyncio.AbstractEventLoop:
    """The one on which the clients of all tests work, in a thread of its own."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="asking", daemon=True).start()
    return loop


def on_loop(function: Callable[[], T]) -> Future[T]:
    """What a function comes to in a greenlet there."""
    return asyncio.run_coroutine_threadsafe(greenlets.run(function), event_loop())


def get_status(client: Client, settings: Api, task_id: int, call: Call) -> Reading:
    return on_loop(lambda: client.get_status(settings, task_id, call, lambda: NOW)).result(SOON)


class Asking:
    """A request under way."""

    def __init__(self, client: Client, settings: Api, task_id: int = 7) -> None:
        self.sent: list[float] = []
        call = Call(settings.timeout, self.sent.append, time.monotonic)
        self._reading = on_loop(lambda: client.get_status(settings, task_id, call, lambda: NOW))

    def outcome(self) -> Reading | ApiError:
        try:
            return self._reading.result(SOON)
        except ApiError as error:
            return error

    def failure(self) -> ApiError:
        outcome = self.outcome()
        assert isinstance(outcome, ApiError)
        return outcome


def ask(client: Client, settings: Api | str, task_id: int = 7) -> Reading | ApiError:
    return Asking(client, api(settings) if isinstance(settings, str) else settings, task_id).outcome()


def failure(client: Client, settings: Api | str) -> ApiError:
    outcome = ask(client, settings)
    assert isinstance(outcome, ApiError)
    return outcome


def descriptors() -> dict[str, str]:
    """What this process has open."""
    found = {}
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # the one that was listing
            found[entry.name] = str(entry.readlink())
    return found


def leading_to(port: int) -> int:
    """How many descriptors of this process are the near end of a connection to this port."""
    found = 0
    for number, opened in descriptors().items():
        if opened.startswith("socket:"):
            with suppress(OSError), socket.socket(fileno=os.dup(int(number))) as sock:
                found += sock.family == socket.AF_INET and sock.getpeername()[1] == port
    return found


@contextmanager
def no_collection() -> Iterator[None]:
    """Only what is closed counts, and not what the collection of garbage happens to find."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@contextmanager
def making(ca_file: str | None = None, proxy_url: str | None = None) -> Iterator[Client]:
    client = Client(ca_file, proxy_url, connections=8)
    try:
        yield client
    finally:
        on_loop(client.close).result(SOON)


class Sent:
    """A request that was given to `Sender`, and what it reported of it."""

    def __init__(self, sender: Sender, settings: Api, task_id: int = 7) -> None:
        self.sent: list[float] = []
        self.called_in: set[threading.Thread] = set()
        self.done: asyncio.Future[Reading | ApiError] = asyncio.get_running_loop().create_future()
        sender.send(settings, task_id, self._sent, self._done)

    def _sent(self, when: float) -> None:
        self.sent.append(when)
        self.called_in.add(threading.current_thread())

    def _done(self, outcome: Reading | ApiError) -> None:
        self.called_in.add(threading.current_thread())
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
async def working() -> AsyncIterator[Sender]:
    sender = Sender(asyncio.get_running_loop())
    try:
        yield sender
    finally:
        sender.close()
