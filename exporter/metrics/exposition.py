"""The text that Prometheus gets: rendered off the event loop, once for all who ask at the same time."""

from __future__ import annotations

import asyncio
import gzip
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector
from prometheus_client.exposition import choose_encoder

from exporter.metrics.account_series import AccountSeries
from exporter.metrics.families import Snapshot, SnapshotCollector
from exporter.metrics.task_series import TaskSeries

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

_GZIP_LEVEL: Final = 1  # an exposition is repetitive: more effort costs time and saves little


class Renderer:
    """One thread that renders, off the event loop; whoever asks before a rendering begins shares it."""

    def __init__(self, name: str) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._turn = asyncio.Lock()
        self._waiting: dict[Hashable, asyncio.Task[bytes]] = {}

    async def render(self, wanted: Hashable, begin: Callable[[], Callable[[], bytes]]) -> bytes:
        """What the function that `begin` returns, once its turn has come, makes on the thread."""
        task = self._waiting.get(wanted)
        if task is None:
            task = self._waiting[wanted] = asyncio.create_task(self._render(wanted, begin))
        return await asyncio.shield(task)

    def close(self) -> None:
        """Let the thread end."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _render(self, wanted: Hashable, begin: Callable[[], Callable[[], bytes]]) -> bytes:
        async with self._turn:
            del self._waiting[wanted]
            return await asyncio.get_running_loop().run_in_executor(self._thread, begin())


class Exposition:
    """Renders snapshots in the format that a scrape accepts."""

    def __init__(self, snapshot: Callable[[], Snapshot]) -> None:
        self._snapshot = snapshot
        self._tasks = TaskSeries()
        self._accounts = AccountSeries()
        self._collector = SnapshotCollector()
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self._collector)
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        self._renderer = Renderer("exposition")
        self._took: deque[float] = deque(maxlen=5)

    @property
    def takes(self) -> float:
        """Seconds that a rendering takes: the second longest of the last five, for one may be an accident."""
        return sorted(self._took)[-2:][0] if self._took else 0.0

    async def render(self, accept: str, *, compress: bool) -> tuple[bytes, str]:
        """The exposition as of now and its content type, for the value of an Accept header."""
        try:
            encode, content_type = choose_encoder(accept)
        except (TypeError, ValueError):  # a version that is no number
            encode, content_type = choose_encoder("")

        def begin() -> Callable[[], bytes]:
            began = time.monotonic()
            self._collector.snapshot = snapshot = self._snapshot()

            def rendered() -> bytes:
                openmetrics = content_type.startswith("application/openmetrics-text")
                text = self._tasks.render(snapshot.accounts)
                text += self._accounts.render(snapshot.accounts, openmetrics=openmetrics)
                body = pack(text.encode() + encode(self._registry), compress=compress)
                self._took.append(time.monotonic() - began)
                return body

            return rendered

        return await self._renderer.render((content_type, compress), begin), content_type

    def close(self) -> None:
        """Let the thread end."""
        self._renderer.close()


def pack(body: bytes, *, compress: bool) -> bytes:
    """The body, compressed if it is to be."""
    return gzip.compress(body, _GZIP_LEVEL, mtime=0) if compress else body
