"""An account: its settings, its schedule, its counters, who waits for it, and what is shown of it."""

from __future__ import annotations

import math
from itertools import islice
from typing import TYPE_CHECKING, Final

from exporter.errors import ApiError
from exporter.model import AccountView, Failure, Reading, Status, TaskSource, TaskView
from exporter.refresh.tasklog import TaskLog
from exporter.refresh.waits import ScrapeWaits, TaskWaits

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from exporter.model import Account, Config
    from exporter.refresh.clock import Clock, Instant
    from exporter.refresh.counters import Counters
    from exporter.refresh.ports import Timer
    from exporter.refresh.schedule import Schedule
    from exporter.refresh.task import Budget, InFlight, TaskState
    from exporter.slices import Steps

STEP: Final = 50  # tasks whose views are made at one go
MIN_SET_BACK: Final = 5.0  # seconds; clocks that are read one after the other differ a little each time


class AccountState:
    """An account of the configuration; it stays the same one while its key, or its name and URL, stay."""

    def __init__(self, settings: Account, schedule: Schedule, counters: Counters) -> None:
        self.settings = settings
        self.schedule = schedule
        self.counters = counters
        self.scrapes = ScrapeWaits()
        self.task_waits = TaskWaits()
        self.timer: Timer | None = None  # of the next start
        self.timer_at = 0.0  # when that is
        self.retired = False
        self.log = TaskLog(settings.name)
        self.failure: Failure | None = None  # why the API is unavailable for it

    def configure(self, settings: Account, budget: Budget, counters: Counters) -> None:
        """Take over new settings, and go on with the budget of their key."""
        before, self.settings, self.counters, self.log.name = self.settings, settings, counters, settings.name
        api, old = settings.api, before.api
        if self.schedule.budget is not budget:
            self.schedule.use(budget)
            self.failure = None
        if (api.url, api.proxy_url, api.ca_file) != (old.url, old.proxy_url, old.ca_file):
            self.schedule.forget_failures()
            self.failure = None
        budget.pacer.interval = api.request_interval
        self.schedule.list_tasks(settings.tasks)
        self._forget_failure_if_idle()
        self.log.keep(self.schedule.tasks)

    def retire(self) -> None:
        """It has left the configuration: nothing more is asked."""
        self.retired = True
        self.schedule.list_tasks(())

    def start(self, now: float) -> InFlight:
        """Decide the task to ask about, and count the request."""
        self.counters.requests += 1
        return self.schedule.start(now)

    def finish(self, request: InFlight, outcome: Reading | ApiError, at: Instant) -> bool:
        """Take what a request has brought; whether it shows that its task is finished."""
        task, schedule = request.task, self.schedule
        before, was_available = task.reading, not schedule.backing_off
        says_nothing = isinstance(outcome, ApiError) and schedule.says_nothing(request, outcome)
        schedule.finish(request, outcome, at)
        if says_nothing:
            return False
        self.counters.request_durations.observe(at.monotonic - request.started)
        if isinstance(outcome, ApiError):
            self.counters.failures[outcome.reason] += 1
        available = not schedule.backing_off
        if available and schedule.backoff.up:
            self.failure = None
        elif isinstance(outcome, ApiError):
            since = self.failure.since if self.failure else at.wall
            self.failure = Failure(outcome.reason, outcome.detail, since)
        self._forget_failure_if_idle()
        if available is not was_available:
            self.log.account(outcome, available=available)
        if schedule.tasks.get(task.spec.id) is not task:  # it has left the list
            return False
        self.log.task(task, before, available=available)
        if not isinstance(outcome, Reading) or not outcome.final:
            return False
        if before and not before.final:
            self.counters.finish_task(Status(outcome.status), _seconds(task.first_read_at, outcome.taken_at))
        return True

    def release_waits(self, now: float, task_ids: Iterable[int] | None = None) -> None:
        """Let go what waits for answers that have come, or can no longer come in time.

        `task_ids` are those that something has changed for, by default all.
        """
        if self.scrapes.asks:
            self.scrapes.release_if_complete(self.schedule.outlook(now))
        for task_id in list(self.task_waits.by_task) if task_ids is None else task_ids:
            task = self.schedule.tasks.get(task_id)
            if task is None or task.settled:
                self.end_waits(task_id)

    def end_waits(self, task_id: int) -> None:
        """End all waits for a task."""
        if task := self.schedule.tasks.get(task_id):
            task.waited_for = False
        self.task_waits.end(task_id)

    def end_all_waits(self) -> None:
        """End the waits for every task."""
        for task_id in list(self.task_waits.by_task):
            self.end_waits(task_id)

    def view(self, clock: Clock, config: Config) -> Steps[AccountView]:
        """What is shown of it; each task as of its step."""
        settings, schedule, counters = self.settings, self.schedule, self.counters
        views: list[TaskView] = []
        due, tasks, drop_after = 0, iter(schedule.tasks.values()), config.drop_finished_after
        while some := list(islice(tasks, STEP)):
            at = clock.read()
            due += schedule.due(at.monotonic, some)
            if drop_after:
                some = [task for task in some if not _dropped(task, at.wall, drop_after)]
            views += [self._task_view(task, at, config.stale_after) for task in some]
            yield
        active = schedule.active
        return AccountView(
            name=settings.name,
            url=settings.api.url,
            up=schedule.backoff.up,
            backing_off=schedule.backing_off and active > 0,
            interval=settings.api.request_interval,
            spacing=schedule.budget.pacer.spacing,
            due=due,
            active=active,
            requests=counters.requests,
            failures=dict(counters.failures),
            durations=counters.request_durations.durations,
            tasks=tuple(views),
            failure=self.failure,
            finished=dict(counters.finished),
            task_durations={status: known.durations for status, known in counters.task_durations.items()},
        )

    def task_view(self, task_id: int, at: Instant, config: Config) -> TaskView | None:
        """What is shown of one of its tasks; None if it is not listed."""
        task = self.schedule.tasks.get(task_id)
        return self._task_view(task, at, config.stale_after) if task else None

    def _forget_failure_if_idle(self) -> None:
        if not self.schedule.active:  # nothing is asked, so whether the API is available is not known
            self.failure = None

    def _task_view(self, task: TaskState, at: Instant, stale_after: float) -> TaskView:
        view = task.shown
        stale, set_back = self._is_stale(task, view, at, stale_after), _set_back(task, at)
        if (
            view is None
            or view.stale is not stale
            or view.set_back != set_back
            or view.spec is not task.spec
            or view.reading is not task.reading
            or view.failure is not task.failure
        ):  # else the same one, so that it need not be rendered again
            view = task.shown = TaskView(
                *(
                    task.spec,
                    task.reading,
                    stale,
                    task.changed_at,
                    task.speed,
                    task.failure,
                    task.finished_at,
                ),
                set_back,
            )
        return view

    def _is_stale(self, task: TaskState, view: TaskView | None, at: Instant, stale_after: float) -> bool:
        """Whether the reading has been without a successor for too long.

        That counts from when service was lost, so that a short outage does not hide a long list; for a
        reading that was old by then, or that another process took, it counts from the reading.
        """
        if view and view.stale and view.reading is task.reading:
            return True  # only a new reading is current again
        lost = min(task.failing_since, self.schedule.backing_off_since)
        if lost == math.inf or task.reading is None or task.reading.final:
            return False
        pacer = self.schedule.budget.pacer
        full_refresh = self.schedule.active * (pacer.interval if pacer.outage else pacer.spacing)
        limit = max(stale_after, 2 * full_refresh)
        lost = task.read_at if task.restored else min(lost, task.read_at + limit)
        return at.elapsed - lost > limit


def views_of(
    accounts: Sequence[AccountState], clock: Clock, config: Config
) -> Steps[tuple[AccountView, ...]]:
    """What is shown of all of them."""
    views = []
    for account in accounts:
        views.append((yield from account.view(clock, config)))  # noqa: PERF401 - a comprehension cannot yield
    return tuple(views)


def _dropped(task: TaskState, wall: float, drop_finished_after: float) -> bool:
    """Whether a finished task has been shown for long enough."""
    return (
        task.finished_at is not None
        and task.spec.source is not TaskSource.REGISTRY
        and wall - task.finished_at >= drop_finished_after
    )


def _set_back(task: TaskState, at: Instant) -> float:
    """How many seconds the clock has been set back by since the reading; 0 if unknown or mere noise."""
    if task.reading is None:
        return 0.0
    difference = (at.elapsed - task.read_at) - (at.wall - task.reading.taken_at)
    return float(round(difference)) if MIN_SET_BACK <= difference < math.inf else 0.0


def _seconds(begun: float | None, ended: float) -> float | None:
    return None if begun is None else max(0.0, ended - begun)


def matched(
    settings: Sequence[Account], before: Sequence[AccountState]
) -> list[tuple[Account, AccountState | None]]:
    """The accounts to come with those that they have been: by their key, else by name and URL."""
    by_key = {account.settings.api.key: account for account in before}
    same_key = [by_key.pop(new.api.key, None) for new in settings]
    by_place = {(account.settings.name, account.settings.api.url): account for account in by_key.values()}
    return [
        (new, account or by_place.pop((new.name, new.api.url), None))
        for new, account in zip(settings, same_key, strict=True)
    ]
