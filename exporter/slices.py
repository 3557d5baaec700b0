"""Long work on the event loop, in slices: requests, answers and timers have their turn in between."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Generator
from typing import Final, TypeAlias, TypeVar

Result = TypeVar("Result")
Steps: TypeAlias = Generator[None, None, Result]  # stops after each step, of at most 0.2 ms or so

SLICE: Final = 0.001  # seconds of steps, after which others have their turn
MAX_SLICE: Final = 0.01  # where others take so long for a turn that the steps would hardly come to an end
SHARE: Final = 0.25  # of the time that others take, which all steps have at least, up to MAX_SLICE
_under_way: Final[set[Generator[None, None, object]]] = set()


async def in_slices(steps: Steps[Result]) -> Result:
    """What the steps come to."""
    slice_ends = time.monotonic() + SLICE
    _under_way.add(steps)
    try:
        while True:
            next(steps)
            if (now := time.monotonic()) >= slice_ends:
                await asyncio.sleep(0)
                back = time.monotonic()
                share = SHARE * (back - now) / len(_under_way)
                slice_ends = back + max(SLICE, min(share, MAX_SLICE))
    except StopIteration as end:
        result: Result = end.value
        return result
    finally:
        _under_way.discard(steps)


def at_one_go(steps: Steps[Result]) -> Result:
    """What the steps come to, while nobody else has a turn."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: Result = end.value
            return result
