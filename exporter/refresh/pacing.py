"""Decides when the next request of an API key may start. Times are in seconds of a monotonic clock.

Mobizon documents one taskqueue/getStatus call a second and key; how it enforces that is not known. The policy
works under three models of it, which tests/support/pacing_simulation.py simulates, alone and with other
clients of the same key:

* Jitter: a lone refusal comes from network jitter at the edge of the limit. It adds a margin of some percent,
  which decays.
* Contention: refusals in quick succession mean that another client uses the key. The spacing grows, and a
  random shift keeps two exporters from staying in step. When refusals have been absent for much longer than
  is typical, the other client may have stopped: the spacing falls quickly, and is restored if it had not.
* Outage: refusals and nothing else. Requests become rare while it lasts; afterwards the spacing is as before,
  because an outage says nothing about the rate.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import random

# Chosen by a search over tests/support/pacing_simulation.py; the factors are of the configured interval.
JITTER_MARGIN_STEP: Final = 0.03  # margin that a lone refusal adds
JITTER_MARGIN_DECAY: Final = 0.0001  # margin that an answer takes back
MAX_JITTER_MARGIN: Final = 0.25
CONTENTION_WITHIN: Final = 25  # answers: a refusal sooner after the last one is not jitter
CONTENTION_STEP: Final = 1.025
CONTENTION_DECAY: Final = 0.001
MAX_CONTENTION: Final = 4.0
ALONE_AFTER: Final = 7  # times the typical gap, plus the next line, in answers without a refusal
ALONE_AFTER_EXTRA: Final = 10
ALONE_DECAY: Final = 0.2  # share of the added spacing that each answer takes back
RESUME_SHARE: Final = 0.95  # of the added spacing, restored if the other client had not stopped
INITIAL_TYPICAL_GAP: Final = 20.0
MAX_TYPICAL_GAP: Final = 40
TYPICAL_GAP_WEIGHT: Final = 0.05
MAX_SHIFT: Final = 0.8  # added once after a refusal
OUTAGE_AFTER: Final = 10  # refusals in a row
MAX_OUTAGE_SPACING: Final = 5.0  # intervals
MAX_OUTAGE_SECONDS: Final = 60.0
MAX_RETRY_AFTER: Final = 60.0  # seconds


class Pacer:
    """Spaces the requests of one API key, from start to start."""

    def __init__(self, interval: float, rng: random.Random) -> None:
        self.interval = interval
        self._rng = rng
        self._margin = 0.0
        self._contention = 1.0
        self._resume_at = 1.0  # the contention factor before its quick fall; 1: it is not falling
        self._before_outage = 1.0
        self._typical_gap = INITIAL_TYPICAL_GAP  # answers between refusals, a moving average
        self._accepted_since = CONTENTION_WITHIN  # answers since the last refusal
        self._refused_in_row = 0  # refusals in a row
        self._pause = 0.0  # added once after a refusal; in an outage, replaces the spacing
        self._started = -math.inf
        self._not_before = -math.inf

    @property
    def outage(self) -> bool:
        """Whether the last requests have all been refused."""
        return self._refused_in_row >= OUTAGE_AFTER

    @property
    def spacing(self) -> float:
        """The spacing in force: seconds from the start of a request to the start of the next."""
        if self.outage:
            return min(self.interval * self._pause, max(self.interval, MAX_OUTAGE_SECONDS))
        return self.interval * (1 + self._margin) * self._contention

    @property
    def earliest(self) -> float:
        """The time at which the next request may start."""
        shift = 0.0 if self.outage else self.interval * self._pause
        return max(self._started + self.spacing + shift, self._not_before)

    def started(self, now: float) -> None:
        """A request has started."""
        self._started = now
        if not self.outage:
            self._pause = 0.0

    def sent(self, now: float) -> None:
        """The request that has started was sent only now: spacing counts from here."""
        self._started = now

    def accepted(self) -> None:
        """A request was answered and not refused, whatever the answer says about its task."""
        if self.outage:
            self._contention, self._pause = self._before_outage, 0.0
        self._refused_in_row = 0
        self._accepted_since += 1
        self._margin = max(0.0, self._margin - JITTER_MARGIN_DECAY)
        if self._accepted_since <= ALONE_AFTER * self._typical_gap + ALONE_AFTER_EXTRA:
            self._contention = max(1.0, self._contention - CONTENTION_DECAY)
            return
        self._resume_at = max(self._resume_at, self._contention)
        self._contention = 1 + (self._contention - 1) * (1 - ALONE_DECAY)
        if self._contention < 1 + JITTER_MARGIN_STEP:
            self._contention = self._resume_at = 1.0

    def refused(self, now: float, retry_after: float = 0.0) -> None:
        """A request was refused as too early; `retry_after` is the server's Retry-After in seconds."""
        if self._resume_at > 1.0:
            self._contention = max(self._contention, 1 + (self._resume_at - 1) * RESUME_SHARE)
            self._resume_at = 1.0
        elif self._accepted_since >= CONTENTION_WITHIN:
            self._margin = min(MAX_JITTER_MARGIN, self._margin + JITTER_MARGIN_STEP)
        elif not self.outage:
            self._contention = min(MAX_CONTENTION, self._contention * CONTENTION_STEP)
        if self._refused_in_row == 0:
            self._before_outage = self._contention
        self._refused_in_row += 1
        self._typical_gap += TYPICAL_GAP_WEIGHT * (
            min(self._accepted_since, MAX_TYPICAL_GAP) - self._typical_gap
        )
        self._accepted_since = 0
        if self.outage:
            self._pause = min(
                MAX_OUTAGE_SPACING, self._refused_in_row - OUTAGE_AFTER + 2
            ) * self._rng.uniform(0.8, 1.2)
        else:
            self._pause = self._rng.uniform(0, MAX_SHIFT)
        self._not_before = max(self._not_before, now + min(retry_after, MAX_RETRY_AFTER))
