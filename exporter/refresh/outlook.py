"""What answers are still to come, and when: computed once, for any number of scrapes that wait for them."""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Outlook:
    """The outlook of an account at one moment; asks are known by their numbers, times are monotonic.

    `to_send` are the sorted numbers of the asks that the tasks without a useful request have been answered
    for. `in_flight` has, for each request, the ask that its task has been answered for, the one that it was
    started under, and when. `next_start` is None where no start is to be expected.
    """

    now: float
    to_send: Sequence[int]
    in_flight: Sequence[tuple[int, int, float]]
    next_start: float | None
    spacing: float
    latency: float  # seconds that an answer takes

    def pending(self, ask: int) -> bool:
        """Whether an answer is still to come that the ask of this number wants."""
        return bool(bisect_left(self.to_send, ask)) or any(
            answered < ask for answered, _, _ in self.in_flight
        )

    def complete_at(self, ask: int) -> float:
        """When the ask of this number will have all its answers, by estimate; infinite if never."""
        if self.next_start is None:
            return math.inf
        under_way = [started for answered, under, started in self.in_flight if answered < ask <= under]
        done = max(under_way, default=self.now - self.latency)
        count = bisect_left(self.to_send, ask)
        if count:
            done = max(done, self.next_start + (count - 1) * self.spacing)
        return max(done + self.latency, self.now)
