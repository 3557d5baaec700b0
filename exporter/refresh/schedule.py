"""Which task of one account is asked about next, and when: decisions only, no I/O and no clock of its own.

Times named `now` are monotonic seconds. Asks are counted: every scrape, and every view of the status page, is
an ask with a number. A task is due until a request that started under the latest number has been answered.
One that a program waits for is due again after every answer.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from exporter.errors import ApiError, Reason, Scope
from exporter.model import Reading, TaskSpec
from exporter.refresh.backoff import Backoff
from exporter.refresh.outlook import Outlook
from exporter.refresh.task import Budget, InFlight, TaskState
from exporter.refresh.turns import Turns

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from exporter.model import Remembered
    from exporter.refresh.clock import Instant

# Prometheus asks again long before: a client that asked so long ago, and not since, is gone.
ASK_EXPIRES_AFTER: Final = 300.0
INITIAL_LATENCY: Final = 0.25  # seconds that an answer is thought to take before there has been one

_UNANSWERED: Final = {Reason.TIMEOUT, Reason.CONNECTION_ERROR, Reason.HTTP_ERROR}


class Schedule:
    """The tasks of one account, and the budget of its key."""

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self.backoff = Backoff()
        self.backing_off_since = math.inf  # elapsed
        self.tasks: dict[int, TaskState] = {}
        self._active: dict[TaskState, None] = {}  # the active ones of them
        self._turns = Turns(self._is_due)
        self._answered_tasks: dict[TaskState, None] = {}  # that are not due, and will be at the next ask
        self._ask = 0
        self._asked_at = -math.inf
        self._expired_ask = 0
        self._started_since_ask = False
        self._probes = 0  # since the API was last available
        self._latency = INITIAL_LATENCY  # the longest of late, decaying

    @property
    def active(self) -> int:
        """How many tasks are active."""
        return len(self._active)

    @property
    def backing_off(self) -> bool:
        """Whether the API is unavailable for the account: it is asked one probing request at a time."""
        return self.backoff.active or self.budget.pacer.outage

    def use(self, budget: Budget) -> None:
        """Go on with another key."""
        self.budget = budget
        self.forget_failures()
        self.backoff = Backoff()

    def forget_failures(self) -> None:
        """The account is reached in another way from now on: what failed so far may work."""
        self.backoff = Backoff(self.backoff.up)
        self.backing_off_since = math.inf
        for task in self.tasks.values():
            task.forget_delay()
        self._turns.refill(self.tasks.values())

    def list_tasks(self, specs: Iterable[TaskSpec]) -> None:
        """Make this the list of tasks; what is known of those that stay is kept."""
        known, self.tasks = self.tasks, {}
        for spec in specs:
            task = known.get(spec.id) or TaskState(spec, self._ask)
            task.spec = spec
            self.tasks[spec.id] = task
        self._started_since_ask = True  # new tasks count as answered: the next ask needs a new number
        answered = (task for task in self.tasks.values() if task.answered == self._ask)
        self._answered_tasks = dict.fromkeys(answered)
        self._turns.refill(self.tasks.values())
        self._find_active()

    def restore(self, memory: Mapping[int, Remembered], at: Instant) -> None:
        """Take back what is remembered of the tasks that are listed, where that is newer."""
        for task_id in memory.keys() & self.tasks.keys():
            self.tasks[task_id].restore(memory[task_id], at)
        self._turns.refill(self.tasks.values())
        self._find_active()

    def ask(self, now: float) -> int:
        """Make every active task due; the number of the ask, shared while no request starts in between."""
        self._expire(now)
        if self._started_since_ask or self._expired_ask == self._ask:
            all_again = self._expired_ask == self._ask
            self._ask += 1
            self._started_since_ask = False
            if all_again:
                self._turns.refill(self._active)
            else:
                for task in self._answered_tasks:
                    self._turns.add(task)
            self._answered_tasks.clear()
        self._asked_at = now
        return self._ask

    def wait_for(self, task: TaskState, *, wanted: bool) -> None:
        """Make a task due again after every answer, or no longer."""
        task.waited_for = wanted
        if wanted:
            self._turns.add(task)

    def due(self, now: float, tasks: Iterable[TaskState]) -> int:
        """How many of the tasks wait for a request to be sent."""
        self._expire(now)
        return sum(task.retry_at <= now for task in filter(self._is_due, tasks))

    def next_start(self, now: float) -> float | None:
        """When the next request may start; None if there is none to send before something else happens."""
        self._expire(now)
        at = self._turns.next_at()
        if at is None or self.budget.starting:
            return None
        if self.backing_off:
            at = math.inf if self.budget.in_flight else self.backoff.until
        return None if at == math.inf else max(self.budget.pacer.earliest, at, now)

    def start(self, now: float) -> InFlight:
        """Decide the task to ask about; only at or after `next_start`. No other starts until `sent`."""
        if self.backing_off:
            task = self._probe()
        else:
            self._probes, task = 0, self._turns.take(now)
        request = InFlight(task, self.budget, self._ask, now, task.asked_at)
        task.asked_at, task.request = now, request
        self._started_since_ask = True
        self.budget.in_flight.add(request)
        self.budget.pacer.started(now)
        return request

    def sent(self, request: InFlight, now: float) -> None:
        """The request is on its way: spacing counts from here."""
        if not request.sent:
            request.sent, request.started = True, now
            request.budget.pacer.sent(now)

    def finish(self, request: InFlight, outcome: Reading | ApiError, at: Instant) -> None:
        """The request has brought a reading, or an error."""
        task = request.task
        request.budget.in_flight.discard(request)
        task.request = None
        keeps_turn = False
        if isinstance(outcome, Reading):
            self._answered(request, at)
            task.take(outcome, at)
            if request.budget is self.budget:
                self.backoff.served()
        elif self.says_nothing(request, outcome):
            keeps_turn = True
        else:
            keeps_turn = self._failed(request, outcome, at)
        if keeps_turn:
            task.asked_at = request.asked_before
        self.backing_off_since = min(self.backing_off_since, at.elapsed) if self.backing_off else math.inf
        if self.tasks.get(task.spec.id) is task:
            self._turns.add(task, first=keeps_turn)
            if task.answered == self._ask:
                self._answered_tasks[task] = None
            if task.active:
                self._active[task] = None
            else:
                self._active.pop(task, None)
        self._forget_account_if_idle()

    def says_nothing(self, request: InFlight, error: ApiError) -> bool:
        """Whether an error says nothing of its task, nor of the account under its present key."""
        return error.scope is Scope.CONNECTION or request.budget is not self.budget

    def outlook(self, now: float, deadline: float = math.inf) -> Outlook:
        """What is still to come of the asks made so far.

        Once there is too much for the latest of them to have all its answers by the deadline, the rest is
        left out.
        """
        to_send: list[int] = []
        in_flight: list[tuple[int, int, float]] = []
        pacer, latest = self.budget.pacer, self._ask
        enough = 2 + (deadline - now) / pacer.spacing
        for task in self._active:
            if task.answered >= latest:
                continue
            if task.request:
                in_flight.append((task.answered, task.request.ask, task.request.started))
                to_send.append(max(task.answered, task.request.ask))
            elif task.retry_at <= now:
                to_send.append(task.answered)
                if len(to_send) - len(in_flight) > enough:
                    break
        start = None if self.backing_off else max(pacer.earliest, now)
        return Outlook(now, sorted(to_send), in_flight, start, pacer.spacing, self._latency)

    def _failed(self, request: InFlight, error: ApiError, at: Instant) -> bool:
        """Take note of an error; whether the task keeps its turn."""
        task, pacer, first = request.task, self.budget.pacer, request.task.failure is None
        task.fail(error, at)
        if error.reason is Reason.RATE_LIMITED:
            pacer.refused(at.monotonic, error.retry_after)
            self.backoff.refused(outage=pacer.outage)
            return first  # once only: it may be the cause of the refusals
        self._answered(request, at, error.reason)
        self.backoff.failed(error, request.started, at.monotonic)
        if not self.backoff.active:  # else it is not the task that needs to be left alone
            task.back_off(at.monotonic)
        if error.reason is Reason.NOT_FOUND:
            task.lose()
        return False

    def _answered(self, request: InFlight, at: Instant, reason: Reason | None = None) -> None:
        request.task.answered = max(request.task.answered, request.ask)
        if reason not in _UNANSWERED:
            took = at.monotonic - request.started
            request.budget.pacer.accepted()
            self._latency = max(took, 0.9 * self._latency + 0.1 * took)

    def _probe(self) -> TaskState:
        """Every second time the one that has answered last, in between the one not asked for longest."""
        self._probes += 1
        tasks = [task for task in self._active if task.request is None]
        if self._probes % 2 and any(task.served for task in tasks):
            return max(tasks, key=lambda task: task.read_at)
        return min(tasks, key=lambda task: task.asked_at)

    def _is_due(self, task: TaskState) -> bool:
        asked = task.answered < self._ask > self._expired_ask
        return (asked or task.waited_for) and task.request is None and task.active

    def _expire(self, now: float) -> None:
        """Let the latest ask go if it has been too long ago."""
        if now >= self._asked_at + ASK_EXPIRES_AFTER + len(self.tasks) * self.budget.pacer.spacing:
            self._expired_ask = self._ask

    def _find_active(self) -> None:
        self._active = {task: None for task in self.tasks.values() if task.active}
        self._forget_account_if_idle()

    def _forget_account_if_idle(self) -> None:
        if not self._active:  # nothing is asked, so whether the API is available is not known
            self.backoff = Backoff()
            self.backing_off_since = math.inf
