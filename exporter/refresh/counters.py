"""What the counters of one account count. They live as long as the process: a counter never goes back."""

from __future__ import annotations

from bisect import bisect_left
from typing import Final

from exporter.errors import Reason
from exporter.model import FINAL, Durations, Status

REQUEST_BOUNDS: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
TASK_BOUNDS: Final = (
    *(10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 1800.0),
    *(3600.0, 7200.0, 14400.0, 28800.0, 43200.0, 86400.0),
)


class Histogram:
    """Counts durations by bucket; `durations` is the same object until there is something new."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.durations = Durations(bounds, (0,) * (len(bounds) + 1), 0.0)

    def observe(self, seconds: float) -> None:
        """Count one duration."""
        bounds, counts = self.durations.bounds, list(self.durations.counts)
        counts[bisect_left(bounds, seconds)] += 1
        self.durations = Durations(bounds, tuple(counts), self.durations.seconds + seconds)


class Counters:
    """The counters of one account."""

    def __init__(self) -> None:
        self.requests = 0
        self.failures = dict.fromkeys(Reason, 0)
        self.request_durations = Histogram(REQUEST_BOUNDS)
        self.finished = dict.fromkeys(sorted(FINAL), 0)
        self.task_durations = {status: Histogram(TASK_BOUNDS) for status in sorted(FINAL)}

    def finish_task(self, status: Status, seconds: float | None) -> None:
        """Count a task that was seen to finish, `seconds` after its first reading if that is known."""
        self.finished[status] += 1
        if seconds is not None:
            self.task_durations[status].observe(seconds)
