"""What the schedule keeps of a task, of a request for it, and of the requests of a key."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from exporter.model import Failure, Reading, Remembered, TaskSpec, TaskView

if TYPE_CHECKING:
    from exporter.errors import ApiError
    from exporter.refresh.clock import Instant
    from exporter.refresh.pacing import Pacer

FIRST_TASK_DELAY: Final = 5.0
MAX_TASK_DELAY: Final = 300.0
MIN_NOT_FOUND: Final = 2  # answers `not_found` in a row until a task counts as one that does not exist
SPEED_MEMORY: Final = 120.0  # seconds over which the speed of a task is averaged


@dataclass(slots=True, eq=False)
class TaskState:
    """A listed task. Times are of the monotonic clock, unless they are said to be `wall` or `elapsed`."""

    spec: TaskSpec
    answered: int  # the number of the latest ask that its last answered request had started under
    reading: Reading | None = None
    read_at: float = -math.inf  # elapsed: when the reading was taken
    restored: bool = False  # whether an earlier process took it
    first_read_at: float | None = None  # wall: when the first reading was taken
    changed_at: float = 0.0  # wall: when progress or status last changed
    finished_at: float | None = None  # wall: when it was first seen finished
    speed: float | None = None  # percent a second, averaged
    served: bool = False  # whether a request for it ever brought a reading
    failure: Failure | None = None  # of the last request
    failing_since: float = math.inf  # elapsed: when the row of failures began
    not_found: int = 0  # answers `not_found` since the last reading
    asked_at: float = -math.inf  # when the last request started
    delay: float = 0.0  # seconds that it is left alone for after its last failure; above 0 in back-off
    retry_at: float = -math.inf
    waited_for: bool = False  # whether a program waits for this task
    request: InFlight | None = None
    shown: TaskView | None = None  # the last view of it

    @property
    def active(self) -> bool:
        """Whether Mobizon may still say something new of it."""
        return self.reading is None or not self.reading.final

    @property
    def settled(self) -> bool:
        """Whether nothing is to be gained by waiting: it is finished, or Mobizon does not know it."""
        return not self.active or self.not_found >= MIN_NOT_FOUND

    @property
    def remembered(self) -> Remembered | None:
        """What should outlive the process."""
        if self.reading is None:
            return None
        return Remembered(self.reading, self.changed_at, self.finished_at, self.first_read_at)

    def restore(self, known: Remembered, at: Instant) -> None:
        """Take back what an earlier process knew, unless what is known is at least as new."""
        if self.reading and self.reading.taken_at >= known.reading.taken_at:
            return
        age = at.wall - known.reading.taken_at
        # One from the future was taken before the clock was set: its age is not known.
        self.read_at = at.elapsed - age if age >= 0 else -math.inf
        self.asked_at = max(self.asked_at, at.monotonic - max(age, 0.0))
        self.reading, self.served, self.restored = known.reading, True, True
        self.changed_at, self.finished_at = known.changed_at, known.finished_at
        self.first_read_at = self.first_read_at if known.first_read_at is None else known.first_read_at

    def take(self, reading: Reading, at: Instant) -> None:
        """Put a new reading in the place of the old one."""
        old = self.reading
        if old is None or (old.progress, old.status) != (reading.progress, reading.status):
            self.changed_at = reading.taken_at
        if old is None or old.status != reading.status or reading.progress < old.progress:
            self.speed = None  # it has only begun, or begun again
        elif reading.taken_at > old.taken_at:
            elapsed = reading.taken_at - old.taken_at
            speed = (reading.progress - old.progress) / elapsed
            weight = 1.0 if self.speed is None else 1 - math.exp(-elapsed / SPEED_MEMORY)
            self.speed = speed if self.speed is None else self.speed + weight * (speed - self.speed)
        if reading.final:
            self.finished_at = reading.taken_at
        if old is None and self.first_read_at is None:
            self.first_read_at = reading.taken_at
        self.reading, self.read_at, self.restored, self.served = reading, at.elapsed, False, True
        self.failure, self.failing_since, self.not_found = None, math.inf, 0
        self.forget_delay()

    def fail(self, error: ApiError, at: Instant) -> None:
        """Note why the last request brought no reading."""
        if self.failure is None:
            self.failing_since = at.elapsed
        self.failure = Failure(error.reason, error.detail, self.failure.since if self.failure else at.wall)

    def lose(self) -> None:
        """Mobizon does not know it: what was read is no longer true."""
        self.reading = self.speed = None
        self.not_found += 1

    def back_off(self, now: float) -> None:
        """Leave it alone for twice as long as the last time."""
        self.delay = min(max(FIRST_TASK_DELAY, 2 * self.delay), MAX_TASK_DELAY)
        self.retry_at = now + self.delay

    def forget_delay(self) -> None:
        """Ask for it again without delay."""
        self.delay, self.retry_at = 0.0, -math.inf


@dataclass(slots=True, eq=False)
class InFlight:
    """A request, from the decision to start it to its answer."""

    task: TaskState
    budget: Budget
    ask: int
    started: float
    asked_before: float  # when its task was asked about the last time
    sent: bool = False


class Budget:
    """The requests of one API key: their spacing, and those in flight."""

    def __init__(self, pacer: Pacer) -> None:
        self.pacer = pacer
        self.in_flight: set[InFlight] = set()

    @property
    def starting(self) -> bool:
        """Whether a request has been started that is not on its way yet; no other starts meanwhile."""
        return any(not request.sent for request in self.in_flight)
