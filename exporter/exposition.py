"""The text that Prometheus gets: rendered off the event loop, once for all who ask at the same time."""

from __future__ import annotations

import asyncio
import gzip
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector
from prometheus_client.exposition import choose_encoder

from exporter.collector import Snapshot, SnapshotCollector
from exporter.series import TaskSeries

if TYPE_CHECKING:
    from collections.abc import Callable

_GZIP_LEVEL: Final = 1  # an exposition is repetitive: more effort costs time and saves little


class Exposition:
    """Renders snapshots in the format that a scrape accepts."""

    def __init__(self, snapshot: Callable[[], Snapshot]) -> None:
        self._snapshot = snapshot
        self._tasks = TaskSeries()
        self._collector = SnapshotCollector()
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self._collector)
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="render")
        self._turn = asyncio.Lock()
        self._waiting: dict[tuple[str, bool], asyncio.Task[bytes]] = {}

    async def render(self, accept: str, *, compress: bool) -> tuple[bytes, str]:
        """The exposition as of now and its content type, for the value of an Accept header.

        Whoever asks before a rendering begins shares it.
        """
        encode, content_type = choose_encoder(accept)
        wanted = (content_type, compress)
        task = self._waiting.get(wanted)
        if task is None:
            task = asyncio.create_task(self._render(encode, wanted))
            self._waiting[wanted] = task
        return await asyncio.shield(task), content_type

    async def in_turn(self, render: Callable[[], bytes]) -> bytes:
        """What `render` returns, run on the thread that renders: two at a time would be no faster."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, render)

    def close(self) -> None:
        """Let the thread end."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _render(self, encode: Callable[[CollectorRegistry], bytes], wanted: tuple[str, bool]) -> bytes:
        def run() -> bytes:
            snapshot = self._collector.snapshot
            text = self._tasks.render(snapshot.accounts).encode() + encode(self._registry)
            return gzip.compress(text, _GZIP_LEVEL, mtime=0) if wanted[1] else text

        async with self._turn:
            del self._waiting[wanted]
            self._collector.snapshot = self._snapshot()
            return await self.in_turn(run)
