"""Renderings, one at a time, shared by those who ask at the same time."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable

MAX_WAITING: Final = 8  # different renderings, above which more are refused


class BusyError(Exception):
    """Too many different renderings wait."""


class Renderer:
    """Renders one thing at a time: in slices on the event loop, and what cannot be sliced on a thread.

    Requests for the same thing share a rendering until it begins. It is dropped when the last of them is
    cancelled.
    """

    def __init__(self, name: str) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._turn = asyncio.Lock()
        self._waiting: dict[Hashable, _Rendering] = {}

    async def render(self, wanted: Hashable, begin: Callable[[], Awaitable[Callable[[], bytes]]]) -> bytes:
        """What the function that `begin` comes to makes on the thread; raises BusyError.

        `begin` is called on the event loop when the rendering's turn has come, and may do most of it there.
        """
        rendering = self._waiting.get(wanted)
        if rendering is None:
            if len(self._waiting) >= MAX_WAITING:
                raise BusyError
            task = asyncio.create_task(self._render(wanted, begin))
            rendering = self._waiting[wanted] = _Rendering(task)
        rendering.requests += 1
        try:
            return await asyncio.shield(rendering.task)
        finally:
            rendering.requests -= 1
            if not rendering.requests:
                if self._waiting.get(wanted) is rendering:
                    del self._waiting[wanted]
                rendering.task.cancel()

    def close(self) -> None:
        """Let the thread end."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _render(self, wanted: Hashable, begin: Callable[[], Awaitable[Callable[[], bytes]]]) -> bytes:
        async with self._turn:
            del self._waiting[wanted]
            return await asyncio.get_running_loop().run_in_executor(self._thread, await begin())


class _Rendering:
    """A rendering, and how many requests wait for it."""

    def __init__(self, task: asyncio.Task[bytes]) -> None:
        self.task = task
        self.requests = 0
