"""Which task of one API key is asked about next, and when: decisions only, no I/O and no clock of its own.

Times named `now` are monotonic seconds; `wall` is Unix time. Asking is counted: every scrape, and every view
of the status page, is an ask with a number, and a task is due until a request that started under the
latest number has been answered.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from exporter.errors import ApiError, Reason
from exporter.model import Failure, Reading, TaskSpec, TaskView
from exporter.refresh.backoff import Health

if TYPE_CHECKING:
    from collections.abc import Iterable

    from exporter.refresh.pacing import Pacer

FIRST_DELAY: Final = 5.0
LONGEST_DELAY: Final = 300.0
# Prometheus asks again long before; whoever asked so long ago and not since is gone.
ASK_LASTS: Final = 300.0
SPEED_MEMORY: Final = 120.0  # seconds over which the speed of a task is averaged
FIRST_LATENCY: Final = 0.25  # seconds that an answer is thought to take before there has been one

_UNANSWERED: Final = {Reason.TIMEOUT, Reason.CONNECTION_ERROR, Reason.HTTP_ERROR}


@dataclass(slots=True, eq=False)
class Task:
    """What is known of a task."""

    spec: TaskSpec
    answered: int  # the number of the latest ask that its last answered request had started under
    reading: Reading | None = None
    changed_at: float = 0.0  # wall: when progress or status last changed
    finished_at: float | None = None  # wall: when it was first seen finished
    speed: float | None = None  # percent a second, averaged
    failure: Failure | None = None  # of the last request
    asked_at: float = -math.inf  # when the last request started
    retry_at: float = -math.inf
    delay: float = 0.0
    served: bool = False  # whether a request for it ever brought a reading
    read_at: float = -math.inf  # monotonic: when the reading was taken
    failure_told: bool = False  # whether the log tells of its failure, but not yet of its end
    odd_told: int | None = None  # the undocumented status that the log tells of
    request: Request | None = None  # the one in flight
    view: TaskView | None = None  # as it was last shown

    @property
    def active(self) -> bool:
        """Whether Mobizon may still say something new of it."""
        return self.reading is None or not self.reading.final


@dataclass(slots=True, eq=False)
class Request:
    """One request, from the decision to start it to its answer."""

    task: Task
    ask: int
    started: float
    asked_before: float  # when its task was asked about the last time
    sent: bool = False


@dataclass(slots=True)
class Stats:
    """What the counters of one account count."""

    buckets: tuple[float, ...] = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
    requests: int = 0
    failures: dict[Reason, int] = field(default_factory=lambda: dict.fromkeys(Reason, 0))
    counts: list[int] = field(default_factory=lambda: [0] * 9)
    seconds: float = 0.0

    def observe(self, seconds: float) -> None:
        """Count a request's duration."""
        self.counts[sum(seconds > bound for bound in self.buckets)] += 1
        self.seconds += seconds


class Schedule:
    """The tasks of one API key, their requests in flight, and the key's budget."""

    def __init__(self, pacer: Pacer) -> None:
        self.pacer = pacer
        self.health = Health()
        self.stats = Stats()
        self.tasks: dict[int, Task] = {}
        self._flying: set[Request] = set()
        self._ask = 0
        self._asked_at = -math.inf
        self._latency = FIRST_LATENCY  # seconds an answer takes: the longest of late, wearing off

    @property
    def unserved(self) -> bool:
        """Whether the API does not serve the account: it is asked one probing request at a time."""
        return self.health.backing_off or self.pacer.outage

    def forget_failures(self) -> None:
        """The account is reached in another way from now on: what failed so far may work."""
        self.health = Health(self.health.up)
        for task in self.tasks.values():
            task.delay, task.retry_at = 0.0, -math.inf

    def take_over(self, other: Schedule) -> None:
        """Know of tasks what another schedule knows: that of the same account under its former key."""
        self.tasks = {
            task_id: replace(task, answered=self._ask, request=None, delay=0.0, retry_at=-math.inf)
            for task_id, task in other.tasks.items()
        }

    def list_tasks(self, specs: Iterable[TaskSpec]) -> None:
        """Make this the list of tasks; what is known of those that stay is kept."""
        known = self.tasks
        self.tasks = {}
        for spec in specs:
            task = known.get(spec.id) or Task(spec, self._ask)
            task.spec = spec
            self.tasks[spec.id] = task

    def ask(self, now: float) -> int:
        """Somebody wants to know: every active task becomes due. Returns the number of the ask."""
        self._ask += 1
        self._asked_at = now
        return self._ask

    def due(self, now: float) -> int:
        """How many tasks wait for a request to be sent."""
        return sum(self._wanted(task) and task.retry_at <= now for task in self.tasks.values())

    def next_start(self, now: float) -> float | None:
        """When the next request may start; None if there is none to send before something else happens."""
        if any(not request.sent for request in self._flying) or now >= self._lapses_at():
            return None
        wanted = [task.retry_at for task in self.tasks.values() if self._wanted(task)]
        if not wanted:
            return None
        if self.unserved:
            return None if self._flying else max(self.pacer.earliest, self.health.until, now)
        return max(self.pacer.earliest, min(wanted), now)

    def start(self, now: float) -> Request:
        """Decide the task to ask about; only at or after `next_start`. No other starts until `sent`."""
        tasks = self.tasks.values()
        if self.unserved:
            # One that answered when it was last asked tells whether the account does, and not the task.
            task = min(
                (task for task in tasks if task.active and task.request is None),
                key=lambda task: (not task.served or task.failure is not None, task.asked_at),
            )
        else:
            task = min(
                (task for task in tasks if self._wanted(task) and task.retry_at <= now),
                key=lambda task: (task.reading is not None, task.asked_at),
            )
        request = Request(task, self._ask, now, task.asked_at)
        task.asked_at, task.request = now, request
        self._flying.add(request)
        self.pacer.started(now)
        self.stats.requests += 1
        return request

    def sent(self, request: Request, now: float) -> None:
        """The request is on its way: spacing counts from here."""
        if not request.sent:
            request.sent, request.started = True, now
            self.pacer.sent(now)

    def finish(self, request: Request, outcome: Reading | ApiError, now: float, wall: float) -> None:
        """The request has brought a reading, or an error."""
        self._flying.discard(request)
        task, took = request.task, now - request.started
        task.request = None
        self.stats.observe(took)
        reason = None if isinstance(outcome, Reading) else outcome.reason
        if reason is not Reason.RATE_LIMITED:
            task.answered = max(task.answered, request.ask)
        if reason not in _UNANSWERED | {Reason.RATE_LIMITED}:
            self.pacer.accepted()
            self._latency = max(took, 0.9 * self._latency + 0.1 * took)
        if isinstance(outcome, Reading):
            self.health.served()
            task.read_at = now
            _take(task, outcome)
        else:
            self._failed(request, outcome, now, wall)

    def _failed(self, request: Request, error: ApiError, now: float, wall: float) -> None:
        task = request.task
        self.stats.failures[error.reason] += 1
        before = task.failure
        task.failure = Failure(error.reason, error.detail, before.since if before else wall)
        if error.reason is Reason.RATE_LIMITED:
            if before is None:  # it keeps its turn, but once only: it may be the cause of the refusals
                task.asked_at = request.asked_before
            self.pacer.refused(now, error.retry_after)
            self.health.refused(outage=self.pacer.outage)
            return
        self.health.failed(error, request.started, now)
        if not self.health.backing_off:  # else it is not the task that needs to be left alone
            task.delay = min(max(FIRST_DELAY, 2 * task.delay), LONGEST_DELAY)
            task.retry_at = now + task.delay
        if error.reason is Reason.NOT_FOUND:
            task.reading = task.speed = None

    def pending(self, ask: int, now: float) -> bool:
        """Whether an answer is still to come that the ask of this number wants."""
        return any(self._awaited(task, ask, now) for task in self.tasks.values())

    def complete_at(self, ask: int, now: float) -> float | None:
        """When the ask of this number will have all its answers; None if that is not to be expected.

        An estimate: from the spacing in force and from how long answers have taken of late.
        """
        if self.unserved:
            return None
        awaited = [task.request for task in self.tasks.values() if self._awaited(task, ask, now)]
        under_way = [request.started for request in awaited if request and request.ask >= ask]
        done = max(under_way, default=now - self._latency)
        if len(awaited) > len(under_way):
            to_send = len(awaited) - len(under_way)
            done = max(done, max(self.pacer.earliest, now) + (to_send - 1) * self.pacer.spacing)
        return max(done + self._latency, now)

    def _wanted(self, task: Task) -> bool:
        return task.answered < self._ask and task.active and task.request is None

    def _awaited(self, task: Task, ask: int, now: float) -> bool:
        return task.answered < ask and task.active and (task.request is not None or task.retry_at <= now)

    def _lapses_at(self) -> float:
        return self._asked_at + ASK_LASTS + len(self.tasks) * self.pacer.spacing


def _take(task: Task, reading: Reading) -> None:
    """Put a new reading in the place of the old one."""
    old = task.reading
    if old is None or (old.progress, old.status) != (reading.progress, reading.status):
        task.changed_at = reading.taken_at
    if old is None or old.status != reading.status or reading.progress < old.progress:
        task.speed = None  # it has only begun, or begun again
    elif reading.taken_at > old.taken_at:
        elapsed = reading.taken_at - old.taken_at
        speed = (reading.progress - old.progress) / elapsed
        weight = 1.0 if task.speed is None else 1 - math.exp(-elapsed / SPEED_MEMORY)
        task.speed = speed if task.speed is None else task.speed + weight * (speed - task.speed)
    if reading.final:
        task.finished_at = reading.taken_at
    task.reading, task.failure, task.served = reading, None, True
    task.delay, task.retry_at = 0.0, -math.inf
