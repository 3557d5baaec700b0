"""The clocks of refreshing, read together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

SUSPENDED: Final = 0.01  # seconds; less may be the time between the looks at the two clocks


class Instant(NamedTuple):
    """One moment by three clocks, in seconds.

    `monotonic` is for pacing, `wall` (Unix time) for what is shown, `elapsed` for ages.
    """

    monotonic: float
    wall: float
    elapsed: float


class Clock:
    """Measures ages by whichever clock has moved on further since the last look.

    The monotonic clock stands still while a machine is suspended or a virtual one is paused, and the wall
    clock can be set back: by either alone an old reading would pass for a new one.
    """

    def __init__(self, monotonic: Callable[[], float], wall: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._wall = wall
        self._last = Instant(monotonic(), wall(), 0.0)

    def read(self) -> Instant:
        """The present moment."""
        last, monotonic, wall = self._last, self._monotonic(), self._wall()
        passed, by_wall = monotonic - last.monotonic, wall - last.wall
        if by_wall > passed + SUSPENDED:
            passed = by_wall
        self._last = Instant(monotonic, wall, last.elapsed + passed)
        return self._last
