"""Whether Mobizon serves an account: the back-off of everything that belongs to one API key."""

from __future__ import annotations

import math
from typing import Final

from exporter.errors import ApiError, Reason, Scope

FIRST_ACCOUNT_DELAY: Final = 2.0
MAX_ACCOUNT_DELAY: Final = 60.0
UNREACHABLE_AFTER: Final = 3  # connection failures or time-outs in a row
FAILED_AFTER: Final = 5  # failures in a row of any kind but `not_found`

_UNREACHABLE: Final = {Reason.TIMEOUT, Reason.CONNECTION_ERROR}


class Backoff:
    """Counts failures in a row and says how long to leave the account alone; monotonic seconds.

    `up` is whether the API serves the account, None until an answer tells. `until` is when the next
    request may probe, while `active`.
    """

    def __init__(self, up: bool | None = None) -> None:  # noqa: FBT001 - three values, and named by its place
        self.up = up
        self.until = -math.inf
        self._delay = 0.0
        self._since = -math.inf
        self._unreachable = 0
        self._failed = 0

    @property
    def active(self) -> bool:
        """Whether the account is left alone but for one probing request at a time."""
        return self._delay > 0

    def served(self) -> None:
        """A request was answered in a way that proves the API available for the account."""
        self.up = True
        self._delay = 0.0
        self._unreachable = self._failed = 0

    def refused(self, *, outage: bool) -> None:
        """A request came too early: the API was reached, which does not end an outage."""
        self._unreachable = 0
        if outage:
            self.up = False

    def failed(self, error: ApiError, started: float, now: float) -> None:
        """A request that started at `started` has failed, but not because it came too early."""
        if error.reason is Reason.NOT_FOUND:
            self.served()
            return
        self._failed += 1
        self._unreachable = self._unreachable + 1 if error.reason in _UNREACHABLE else 0
        certain = error.scope is Scope.ACCOUNT or self._unreachable >= UNREACHABLE_AFTER
        broken = certain or self._failed >= FAILED_AFTER
        if error.scope is Scope.TASK:
            self.up = True
        elif certain or self.active or self.up is None:  # a row of bad tasks is none until a probe fails, too
            self.up = False
        if broken and started >= self._since:  # an answer to an older request says nothing of the probe
            self._delay = min(max(FIRST_ACCOUNT_DELAY, 2 * self._delay), MAX_ACCOUNT_DELAY)
            self._since = now
            self.until = now + self._delay
