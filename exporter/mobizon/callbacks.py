"""Callbacks from threads to the event loop."""

from __future__ import annotations

import contextlib
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable


class LoopCallbacks:
    """Calls back on the loop, in order. For all that is posted while it is busy it is woken but once."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._posted: deque[tuple[Callable[..., object], tuple[object, ...]]] = deque()
        self._woken = False

    def post(self, callback: Callable[..., object], *values: object) -> None:
        """Call back; from any thread."""
        self._posted.append((callback, values))
        if not self._woken:
            self._woken = True
            with contextlib.suppress(RuntimeError):  # the loop is closed: nothing waits any more
                self._loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        self._woken = False  # first, so that whatever is posted from now on wakes the loop again
        while self._posted:
            callback, values = self._posted.popleft()
            self._loop.call_soon(callback, *values)
