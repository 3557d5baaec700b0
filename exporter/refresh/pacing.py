"""Decides when the next request of an API key may start. Times are in seconds of a monotonic clock.

Mobizon documents one taskqueue/getStatus call a second and key; how it enforces that is not known. The policy
works under three models of it, which tests/support/pacing_simulation.py simulates, alone and with other
clients of the same key:

* Jitter: a lone refusal comes from network jitter at the edge of the limit. The margin finds the size of the
  jitter: the first refusal sets it high, it decays quickly to where refusals begin, and then slowly, until
  there have been none for long.
* Contention: refusals in quick succession mean that another client uses the key. Each adds spacing, and a
  random shift keeps two exporters from staying in step. After a time without refusals the pacer probes if the
  other client has stopped: the added spacing falls, and the next refusal restores it.
* Outage: refusals and nothing else. Requests become rare while it lasts; afterwards the spacing is as before,
  because an outage says nothing about the rate.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import random

# Chosen by a search over tests/support/pacing_simulation.py. Shares and times are of the configured interval.
FIRST_MARGIN: Final = 0.06
MIN_MARGIN: Final = 0.001  # less is none
MAX_MARGIN: Final = 0.12
MARGIN_STEP: Final = 0.2  # share of the margin that a refusal which may come from jitter adds
MIN_MARGIN_STEP: Final = 0.002  # requests start late by about as much, which is a margin, too
MARGIN_DECAY: Final = 0.0001  # share that an answer takes back
MARGIN_SEARCH_DECAY: Final = 0.015  # the same while the size of the jitter is not known
RELEARN_AFTER: Final = 1800.0  # time without refusals, after which it is not known
LONE_AFTER: Final = 6.0  # time without refusals after which one is a lone refusal
CONTENTION_STEP: Final = 0.04
CONTENTION_DECAY: Final = 0.0012  # what an answer takes back
MIN_CONTENTION: Final = 0.01  # less is none
MAX_CONTENTION: Final = 3.0
JITTER_BELOW: Final = 0.1  # with more contention in force, a refusal says nothing about jitter
PROBE_AFTER: Final = 100.0  # time without refusals
PROBE_DECAY: Final = 0.12  # share of the contention in force that an answer takes back while probing
SHIFT: Final = (0.4, 0.5)  # from and to; added once after a refusal
STARVED_AFTER: Final = 5  # refusals in a row; further ones do not tell more about the rate
OUTAGE_AFTER: Final = 16  # refusals in a row
OUTAGE_SPACING: Final = (4.05, 4.3)  # from and to
MAX_OUTAGE_SECONDS: Final = 60.0
MAX_RETRY_AFTER: Final = 60.0  # seconds


class Pacer:
    """Spaces the requests of one API key, from start to start."""

    def __init__(self, interval: float, rng: random.Random) -> None:
        self.interval = interval
        self._rng = rng
        self._margin = 0.0
        self._margin_decay = MARGIN_SEARCH_DECAY
        self._contention = 0.0
        self._probe = 1.0  # share of the contention that is in force; less than 1 while probing
        self._before_outage = 0.0  # the contention
        self._quiet = LONE_AFTER  # time without refusals
        self._refused = 0  # refusals in a row
        self._pause = 0.0  # added once after a refusal; in an outage, replaces the spacing
        self._started = self._not_before = -math.inf

    @property
    def outage(self) -> bool:
        """Whether the last requests have all been refused."""
        return self._refused >= OUTAGE_AFTER

    @property
    def spacing(self) -> float:
        """The spacing in force: seconds from the start of a request to the start of the next."""
        if self.outage:
            return min(self.interval * self._pause, max(self.interval, MAX_OUTAGE_SECONDS))
        return self.interval * (1 + self._margin) * (1 + self._contention * self._probe)

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
        self._refused = 0
        self._quiet += self.spacing / self.interval
        if self._quiet > RELEARN_AFTER:
            self._margin_decay = MARGIN_SEARCH_DECAY
        if not self._contention:
            self._margin *= (1 - self._margin_decay) if self._margin > MIN_MARGIN else 0
        elif self._quiet > PROBE_AFTER:
            self._probe *= 1 - PROBE_DECAY
        else:
            self._contention -= CONTENTION_DECAY
        if self._contention * self._probe < MIN_CONTENTION:
            self._contention, self._probe = 0.0, 1.0

    def refused(self, now: float, retry_after: float = 0.0) -> None:
        """A request was refused as too early; `retry_after` is the server's Retry-After in seconds."""
        lone = self._quiet >= LONE_AFTER and not self._contention
        self._margin_decay = MARGIN_DECAY if lone and self._margin else MARGIN_SEARCH_DECAY
        if self._contention * self._probe < JITTER_BELOW:
            step = max(MIN_MARGIN_STEP, self._margin * MARGIN_STEP) if self._margin else FIRST_MARGIN
            self._margin = min(MAX_MARGIN, self._margin + step)
        if self._probe < 1:
            self._probe = 1.0
        elif not lone and self._refused < STARVED_AFTER:
            self._contention = min(MAX_CONTENTION, self._contention + CONTENTION_STEP)
        if self._refused == 0:
            self._before_outage = self._contention
        self._refused += 1
        self._quiet = 0.0
        self._pause = self._rng.uniform(*(OUTAGE_SPACING if self.outage else SHIFT))
        self._not_before = max(self._not_before, now + min(retry_after, MAX_RETRY_AFTER))
