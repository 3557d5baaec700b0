"""Renders snapshots in Prometheus's text formats."""

from __future__ import annotations

import contextlib
import gc
import gzip
import time
from collections import deque
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector
from prometheus_client.exposition import choose_encoder

from exporter.metrics.account_series import AccountSeries
from exporter.metrics.families import Snapshot, SnapshotCollector
from exporter.metrics.renderer import Renderer
from exporter.metrics.task_series import TaskSeries
from exporter.slices import Steps, in_slices

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from exporter.model import AccountView

# Two formats, whatever a client asks for: each further one would be rendered by itself.
_TEXT: Final = choose_encoder("text/plain; version=0.0.4")
_OPENMETRICS: Final = choose_encoder("application/openmetrics-text; version=1.0.0")
_OBJECTS: Final = 5  # that a rendering makes for each task before it lets go of those of the last one
_GZIP_LEVEL: Final = 1  # an exposition is repetitive: more effort costs time and saves little


class Exposition:
    """Renders snapshots in the format that a scrape accepts."""

    def __init__(self, snapshot: Callable[[], Awaitable[Snapshot]]) -> None:
        self._snapshot = snapshot
        self._tasks = TaskSeries()
        self._accounts = AccountSeries()
        self._collector = SnapshotCollector()
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self._collector)
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        self._renderer = Renderer("exposition")
        self._durations: deque[float] = deque(maxlen=5)

    @property
    def render_seconds(self) -> float:
        """How long a rendering takes: the second longest of the last five, for one may be an accident."""
        return sorted(self._durations)[-2:][0] if self._durations else 0.0

    async def render(self, accept: str, *, compress: bool) -> tuple[bytes, str]:
        """The exposition as of now and its content type, for the value of an Accept header."""
        encode, content_type = _OPENMETRICS if _accepts_openmetrics(accept) else _TEXT

        async def begin() -> Callable[[], bytes]:
            began = time.monotonic()
            listed = sum(len(account.tasks) for account in self._collector.snapshot.accounts)  # of late
            with _collecting_garbage_later(_OBJECTS * listed):
                self._collector.snapshot = snapshot = await self._snapshot()
                openmetrics = content_type.startswith("application/openmetrics-text")
                pieces = await in_slices(self._rendered(snapshot.accounts, openmetrics=openmetrics))

            def packed() -> bytes:
                # the process's own metrics count its open files, which takes the longer the more there are
                body = pack(b"".join([*pieces, encode(self._registry)]), compress=compress)
                self._durations.append(time.monotonic() - began)
                return body

            return packed

        return await self._renderer.render((content_type, compress), begin), content_type

    def _rendered(self, accounts: tuple[AccountView, ...], *, openmetrics: bool) -> Steps[list[bytes]]:
        tasks = yield from self._tasks.render(accounts)
        yield
        others = yield from self._accounts.render(accounts, openmetrics=openmetrics)
        return [*tasks, *others]

    def close(self) -> None:
        """Let the thread end."""
        self._renderer.close()


@contextlib.contextmanager
def _collecting_garbage_later(objects: int) -> Iterator[None]:
    """Make room for so many objects more before Python looks for garbage among them.

    There is none among those of a rendering, and to look for it takes longer than to make them, and stops
    everything meanwhile. What fails at the same time may leave a lot, which is not let pile up for long.
    """
    threshold, *others = gc.get_threshold()
    gc.set_threshold(threshold + objects, *others)
    try:
        yield
    finally:
        gc.set_threshold(threshold, *others)


def _accepts_openmetrics(accept: str) -> bool:
    try:
        _, content_type = choose_encoder(accept)
    except (TypeError, ValueError):  # a version that is no number
        return False
    return content_type.startswith("application/openmetrics-text")


def pack(body: bytes, *, compress: bool) -> bytes:
    """The body, compressed if it is to be."""
    return gzip.compress(body, _GZIP_LEVEL, mtime=0) if compress else body
