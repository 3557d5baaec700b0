"""A request under way, as those who make it see it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from exporter.errors import ApiError, Reason

if TYPE_CHECKING:
    from collections.abc import Callable


class Call:
    """One request under way.

    `timeout` seconds are given to connect, and again from the first byte sent to the last byte read.
    """

    def __init__(self, timeout: float, sent: Callable[[float], object], clock: Callable[[], float]) -> None:
        self.timeout = timeout
        self.is_sent = False
        self._sent = sent
        self._clock = clock

    def sent(self) -> None:
        """The last byte has gone out, or it is unknown whether it has."""
        self.is_sent = True
        self._sent(self._clock())

    def timed_out(self) -> ApiError:
        """The error of a time-out."""
        missing = "complete answer" if self.is_sent else "connection"
        return ApiError(Reason.TIMEOUT, f"no {missing} within {self.timeout:g} s")


class Body(bytes):
    """The body of a request; brings along the call that it belongs to."""

    call: Call
