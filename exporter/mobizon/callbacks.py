"""Callbacks from threads to the event loop."""

from __future__ import annotations

import contextlib
from collections import deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

TICK: Final = 0.002  # seconds; a wake-up takes two threads from their work


class LoopCallbacks:
    """Calls back on the loop, in order; it is woken but once for all that is posted within TICK seconds."""

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
        if self._posted:
            while self._posted:
                callback, values = self._posted.popleft()
                self._loop.call_soon(callback, *values)
            self._loop.call_later(TICK, self._deliver)  # looks again before it has to be woken
            return
        self._woken = False
        if self._posted:  # by a thread that did not see this
            self._woken = True
            self._loop.call_soon(self._deliver)
