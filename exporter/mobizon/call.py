"""A request under way, as the thread that makes it and the loop that waits for it share it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from exporter.errors import ApiError, Reason

if TYPE_CHECKING:
    from collections.abc import Callable


class Call:
    """One request under way, for the thread that makes it and the loop that waits for it.

    `timeout` seconds are given to connect, and again from the first byte sent to the last byte read.
    `deadline` ends the present one of these phases, by `clock`; None until the request has begun.
    """

    def __init__(self, timeout: float, sent: Callable[[float], None], clock: Callable[[], float]) -> None:
        self.timeout = timeout
        self.deadline: float | None = None
        self.is_sent = False
        self._sent = sent
        self._clock = clock
        self._given_up = False
        self._lock = threading.Lock()

    def begin(self) -> None:
        """A phase begins. TimeoutError if the request was given up, or is late: then it is never sent."""
        with self._lock:
            now = self._clock()
            if self._given_up or (self.deadline is not None and now > self.deadline):
                raise TimeoutError
            self.deadline = now + self.timeout

    def sent(self) -> None:
        """The last byte has gone out, or it is unknown whether it has."""
        # Told only now, for between a look at the clock and the sending other threads may have their turn:
        # a request is never later on the wire than it is said to be, and the next one never too early.
        self.is_sent = True
        self._sent(self._clock())

    def give_up(self) -> None:
        """From now on nothing of the request is sent."""
        with self._lock:
            self._given_up = True

    def give_up_if_late(self, grace: float) -> bool:
        """Give it up if its deadline has passed by `grace` seconds; whether it is given up."""
        with self._lock:
            if self.deadline is not None and self._clock() >= self.deadline + grace:
                self._given_up = True
            return self._given_up

    def timed_out(self) -> ApiError:
        """The error of a deadline that has passed."""
        missing = "complete answer" if self.is_sent else "connection"
        return ApiError(Reason.TIMEOUT, f"no {missing} within {self.timeout:g} s")


class Body(bytes):
    """The body of a request; brings along the call that it belongs to."""

    call: Call
