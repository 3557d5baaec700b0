"""When the next request of an API key may start: pure arithmetic, all times in seconds of a monotonic clock.

Mobizon documents one taskqueue/getStatus call a second and key; how it measures that is not known. The
policy holds under three models of it, which tests/support/pacing_simulation.py simulates together with others
who use the same key:

* A lone refusal is jitter of the network at the edge of the limit. It costs a margin of some percent.
* Refusals that come again soon mean company on the key. The spacing grows, and a random shift keeps two
  exporters from meeting in step. When refusals have been absent for much longer than they used to be, the
  company may have gone: the spacing falls quickly, and jumps back if it had not.
* Refusals and nothing else are an outage. Requests become rare while it lasts; then it is forgotten, for
  it said nothing about the rate.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import random

# Chosen by a search over tests/support/pacing_simulation.py; the factors are of the configured interval.
JITTER_STEP: Final = 0.03  # margin that a lone refusal adds
JITTER_WEAR: Final = 0.0001  # margin that an answer takes back
JITTER_MOST: Final = 0.25
COMPANY_WITHIN: Final = 25  # answers: a refusal so soon after another is no jitter
COMPANY_STEP: Final = 1.025
COMPANY_WEAR: Final = 0.001
COMPANY_MOST: Final = 4.0
ALONE_AFTER: Final = 7  # times the usual number of answers between refusals, and some more:
ALONE_AFTER_MORE: Final = 10
ALONE_WEAR: Final = 0.2  # of what the company has added, with each answer
RETURN_TO: Final = 0.95  # of what had been added, when the company turns out to be still there
USUAL_AT_FIRST: Final = 20.0
USUAL_MOST: Final = 40
USUAL_WEIGHT: Final = 0.05
SHIFT: Final = 0.8  # at most, once after a refusal
OUTAGE_AFTER: Final = 10  # refusals in a row
OUTAGE_MOST: Final = 5.0
LONGEST_OUTAGE_SPACING: Final = 60.0  # seconds
RETRY_AFTER_MOST: Final = 60.0  # seconds


class Pacer:
    """The spacing of one key's requests, start to start."""

    def __init__(self, interval: float, rng: random.Random) -> None:
        self.interval = interval
        self._rng = rng
        self._margin = 0.0
        self._company = 1.0
        self._remembered = 1.0  # the company's factor before it began to fall quickly; 1: it is not falling
        self._before_outage = 1.0
        self._usual = USUAL_AT_FIRST  # answers between refusals, a moving average
        self._served = COMPANY_WITHIN  # answers since the last refusal
        self._refused = 0  # refusals in a row
        self._pause = (
            0.0  # what the last refusal adds once; in an outage, what it puts in the spacing's place
        )
        self._started = -math.inf
        self._not_before = -math.inf

    @property
    def outage(self) -> bool:
        """Whether nothing but refusals has come for a while."""
        return self._refused >= OUTAGE_AFTER

    @property
    def spacing(self) -> float:
        """Seconds from the start of a request to the start of the next, as now in force."""
        if self.outage:
            return min(self.interval * self._pause, max(self.interval, LONGEST_OUTAGE_SPACING))
        return self.interval * (1 + self._margin) * self._company

    @property
    def earliest(self) -> float:
        """When the next request may start."""
        shift = 0.0 if self.outage else self.interval * self._pause
        return max(self._started + self.spacing + shift, self._not_before)

    def started(self, now: float) -> None:
        """A request has started."""
        self._started = now
        if not self.outage:
            self._pause = 0.0

    def sent(self, now: float) -> None:
        """The request that has started reached the wire only now: the next one is spaced from here."""
        self._started = now

    def accepted(self) -> None:
        """A request was answered, whatever the answer says of its task."""
        if self.outage:
            self._company, self._pause = self._before_outage, 0.0
        self._refused = 0
        self._served += 1
        self._margin = max(0.0, self._margin - JITTER_WEAR)
        if self._served <= ALONE_AFTER * self._usual + ALONE_AFTER_MORE:
            self._company = max(1.0, self._company - COMPANY_WEAR)
            return
        self._remembered = max(self._remembered, self._company)
        self._company = 1 + (self._company - 1) * (1 - ALONE_WEAR)
        if self._company < 1 + JITTER_STEP:
            self._company = self._remembered = 1.0

    def refused(self, now: float, retry_after: float = 0.0) -> None:
        """A request was refused because it came too early; `retry_after` is what the server asks for."""
        if self._remembered > 1.0:
            self._company = max(self._company, 1 + (self._remembered - 1) * RETURN_TO)
            self._remembered = 1.0
        elif self._served >= COMPANY_WITHIN:
            self._margin = min(JITTER_MOST, self._margin + JITTER_STEP)
        elif not self.outage:
            self._company = min(COMPANY_MOST, self._company * COMPANY_STEP)
        if self._refused == 0:
            self._before_outage = self._company
        self._refused += 1
        self._usual += USUAL_WEIGHT * (min(self._served, USUAL_MOST) - self._usual)
        self._served = 0
        if self.outage:
            self._pause = min(OUTAGE_MOST, self._refused - OUTAGE_AFTER + 2) * self._rng.uniform(0.8, 1.2)
        else:
            self._pause = self._rng.uniform(0, SHIFT)
        self._not_before = max(self._not_before, now + min(retry_after, RETRY_AFTER_MOST))
