"""Turns asks into requests: one timer an account, scrapes that wait, and the lines logged of what came.

It knows neither threads nor sockets: a `Loop` tells the time and calls back, a `Send` starts a request and
reports to callbacks on the loop.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

import structlog

from exporter.errors import ApiError, Reason
from exporter.model import AccountView, Durations, Failure, Reading, Remembered, Secret, Status, TaskView
from exporter.refresh.pacing import Pacer
from exporter.refresh.schedule import Request, Schedule, Task
from exporter.refresh.statefile import Memory, fingerprint

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from exporter.model import Account, Api, Config

log = structlog.get_logger(__name__)

UNCLAIMED_FOR: Final = 600.0  # seconds that what is known of tasks not listed is kept after a start


class Timer(Protocol):
    """A call to come."""

    def cancel(self) -> None:
        """Call it off."""


class Loop(Protocol):
    """The part of an asyncio loop that is used here."""

    def time(self) -> float:
        """Monotonic seconds."""

    def call_at(self, when: float, callback: Callable[[], object], /) -> Timer:
        """Call back at that time."""


class Send(Protocol):
    """Starts a request. `sent` is called when it is on its way, `done` with what came of it."""

    def __call__(
        self,
        api: Api,
        task_id: int,
        sent: Callable[[float], None],
        done: Callable[[Reading | ApiError], None],
    ) -> None:
        """Return at once."""


class _Waiter:
    """A scrape that waits for answers."""

    def __init__(self, accounts: dict[_Account, int], deadline: float, done: Callable[[], None]) -> None:
        self.accounts = accounts  # those still awaited, and the number of the ask at each
        self.deadline = deadline
        self.done = done
        self.timer: Timer | None = None


class _Account:
    """An account with its schedule."""

    def __init__(self, account: Account, schedule: Schedule) -> None:
        self.account = account
        self.schedule = schedule
        self.timer: Timer | None = None
        self.failure: Failure | None = None  # why it is not served

    def fields(self, task: Task | None = None) -> dict[str, object]:
        """What a log line says of whom it is about."""
        about: dict[str, object] = {"account": self.account.name} if self.account.name else {}
        if task:
            about["task_id"] = task.spec.id
            if task.spec.name:
                about["name"] = task.spec.name
        return about


class Refresher:
    """The accounts of the configuration in force, and everything that is known of their tasks."""

    def __init__(self, loop: Loop, send: Send, *, wall: Callable[[], float], rng: random.Random) -> None:
        self._loop = loop
        self._send = send
        self._wall = wall
        self._rng = rng
        self._accounts: list[_Account] = []  # as configured
        self._by_key: dict[Secret, _Account] = {}  # whoever was configured once: a budget outlives a reload
        self._waiters: set[_Waiter] = set()
        self._stale_after = self._drop_finished_after = 0.0
        self._closed = False
        self._unclaimed: Memory = {}  # what an earlier process knew of tasks that are not listed yet
        self._unclaimed_until = 0.0
        self.changes = 0  # grows whenever there is something new to save

    def apply(self, config: Config) -> None:
        """Put a configuration in force. An account is its key: what is known of it, and its spacing, stay."""
        self.changes += 1
        self._stale_after = config.stale_after
        self._drop_finished_after = config.drop_finished_after
        before, self._accounts = self._accounts, []
        keys = {settings.api.key for settings in config.accounts}
        for settings in config.accounts:
            key, interval = settings.api.key, settings.api.request_interval
            account = self._by_key.get(key)
            if account is None:
                account = self._by_key[key] = _Account(settings, Schedule(Pacer(interval, self._rng)))
            if account not in before:
                former = next((other for other in before if _rotated(other.account, settings, keys)), None)
                if former:
                    account.schedule.take_over(former.schedule)
            if _route(account.account.api) != _route(settings.api):
                account.schedule.forget_failures()
                account.failure = None
            account.account = settings
            account.schedule.pacer.interval = interval
            account.schedule.list_tasks(settings.tasks)
            self._accounts.append(account)
        for account in before:
            if account not in self._accounts:
                account.schedule.list_tasks(())
        self._claim()
        for account in {*before, *self._accounts}:
            self._pump(account)
            self._settle(account)

    def ask(self) -> None:
        """Somebody looks, but does not wait: every active task becomes due."""
        now = self._loop.time()
        for account in self._accounts:
            account.schedule.ask(now)
            self._pump(account)

    def refresh(self, deadline: float, done: Callable[[], None]) -> Callable[[], object]:
        """Somebody looks and waits: `done` is called when what can be answered by `deadline` has been.

        Accounts are judged each by itself: one whose answers cannot all come in time is not waited for.
        Returns a function that gives up the wait.
        """
        now = self._loop.time()
        asks = {account: account.schedule.ask(now) for account in self._accounts}
        waiter = _Waiter(asks, deadline, done)
        waiter.timer = self._loop.call_at(deadline, lambda: self._release(waiter))
        self._waiters.add(waiter)
        for account in self._accounts:
            self._pump(account)
            self._judge(waiter, account)
        if self._closed or not asks:
            self._release(waiter)
        return lambda: self._drop(waiter)

    def restore(self, memory: Memory) -> None:
        """Take back what an earlier process knew of the tasks that are listed, now or before long.

        A task file may be half-written at the start, and its tasks are listed only when it is whole.
        """
        self._unclaimed = {account: dict(tasks) for account, tasks in memory.items()}
        self._unclaimed_until = self._loop.time() + UNCLAIMED_FOR
        self._claim()

    def _claim(self) -> None:
        now, wall = self._loop.time(), self._wall()
        if now >= self._unclaimed_until:
            self._unclaimed = {}
        for account in self._accounts if self._unclaimed else ():
            known = self._unclaimed.get(fingerprint(account.account.api.key), {})
            for task_id in known.keys() & account.schedule.tasks.keys():
                task, remembered = account.schedule.tasks[task_id], known.pop(task_id)
                if task.reading is None:
                    task.reading, task.served = remembered.reading, True
                    task.read_at = now - max(0.0, wall - remembered.reading.taken_at)
                    task.changed_at, task.finished_at = remembered.changed_at, remembered.finished_at

    def memory(self) -> Memory:
        """What a later process should know."""
        if self._loop.time() >= self._unclaimed_until:
            self._unclaimed = {}
        memory = {account: dict(tasks) for account, tasks in self._unclaimed.items()}
        for account in self._accounts:
            memory.setdefault(fingerprint(account.account.api.key), {}).update(
                (task_id, Remembered(task.reading, task.changed_at, task.finished_at))
                for task_id, task in account.schedule.tasks.items()
                if task.reading
            )
        return memory

    def close(self) -> None:
        """Send nothing any more, and let every waiting scrape go with what is known."""
        self._closed = True
        for account in self._accounts:
            self._pump(account)
        for waiter in list(self._waiters):
            self._release(waiter)

    def views(self) -> tuple[AccountView, ...]:
        """Everything that is known, as of now."""
        now, wall = self._loop.time(), self._wall()
        return tuple(self._view(account, now, wall) for account in self._accounts)

    def _pump(self, account: _Account) -> None:
        """Start the request that may start now, or set the timer for the next one."""
        if account.timer:
            account.timer.cancel()
            account.timer = None
        now = self._loop.time()
        at = account.schedule.next_start(now)
        if at is None or self._closed:
            return
        if at > now:
            account.timer = self._loop.call_at(at, lambda: self._pump(account))
            return
        request = account.schedule.start(now)
        try:
            self._send(
                account.account.api,
                request.task.spec.id,
                lambda when: self._sent(account, request, when),
                lambda outcome: self._finished(account, request, outcome),
            )
        except Exception:  # such as no more threads: the request has to end, or no other would start
            log.exception("Request cannot be sent", **account.fields(request.task))
            self._finished(
                account, request, ApiError(Reason.CONNECTION_ERROR, "it cannot be sent: see the log")
            )

    def _sent(self, account: _Account, request: Request, when: float) -> None:
        account.schedule.sent(request, when)
        self._pump(account)

    def _finished(self, account: _Account, request: Request, outcome: Reading | ApiError) -> None:
        schedule, task = account.schedule, request.task
        before, unserved = task.reading, schedule.unserved
        schedule.finish(request, outcome, self._loop.time(), self._wall())
        self.changes += 1
        if schedule.tasks.get(task.spec.id) is task:  # else it has left the list
            _log_task(account, task, before)
        if schedule.unserved is not unserved:
            _log_account(account, outcome)
        if not schedule.unserved and schedule.health.up:
            account.failure = None
        elif not isinstance(outcome, Reading):
            since = account.failure.since if account.failure else self._wall()
            account.failure = Failure(outcome.reason, outcome.detail, since)
        self._pump(account)
        self._settle(account)

    def _settle(self, account: _Account) -> None:
        """Let go the scrapes that have this account's answers, or can no longer get them in time."""
        for waiter in list(self._waiters):
            self._judge(waiter, account)

    def _judge(self, waiter: _Waiter, account: _Account) -> None:
        ask = waiter.accounts.get(account)
        if ask is None:
            return
        now = self._loop.time()
        expected = account.schedule.complete_at(ask, now)
        in_vain = expected is None or expected > waiter.deadline
        if in_vain or not account.schedule.pending(ask, now):
            del waiter.accounts[account]
        if not waiter.accounts:
            self._release(waiter)

    def _release(self, waiter: _Waiter) -> None:
        if self._drop(waiter):
            waiter.done()

    def _drop(self, waiter: _Waiter) -> bool:
        if waiter not in self._waiters:
            return False
        self._waiters.discard(waiter)
        if waiter.timer:
            waiter.timer.cancel()
        return True

    def _view(self, account: _Account, now: float, wall: float) -> AccountView:
        settings, schedule = account.account, account.schedule
        stats, health = schedule.stats, schedule.health
        unserved = schedule.unserved
        return AccountView(
            name=settings.name,
            url=settings.api.url,
            up=health.up,
            backing_off=unserved,
            interval=settings.api.request_interval,
            spacing=schedule.pacer.spacing,
            due=schedule.due(now),
            active=sum(task.active for task in schedule.tasks.values()),
            requests=stats.requests,
            failures=dict(stats.failures),
            durations=Durations(stats.buckets, tuple(stats.counts), stats.seconds),
            tasks=tuple(
                self._task_view(task, now, unserved=unserved)
                for task in schedule.tasks.values()
                if not self._dropped(task, wall)
            ),
            failure=account.failure,
        )

    def _task_view(self, task: Task, now: float, *, unserved: bool) -> TaskView:
        known = task.view is not None and task.view.stale and task.view.reading is task.reading
        stale = (
            task.reading is not None
            and not task.reading.final
            # once stale, only a new reading makes it current
            and (known or unserved or task.failure is not None)
            and now - task.read_at > self._stale_after
        )
        view = task.view
        if (
            view is None
            or view.stale is not stale
            or view.spec is not task.spec
            or view.reading is not task.reading
            or view.failure is not task.failure
        ):
            view = TaskView(task.spec, task.reading, stale, task.changed_at, task.speed, task.failure)
            task.view = view  # the same one while nothing changes, so that it need not be rendered again
        return view

    def _dropped(self, task: Task, wall: float) -> bool:
        """Whether a finished task has been shown for long enough."""
        return (
            self._drop_finished_after > 0
            and task.finished_at is not None
            and wall - task.finished_at >= self._drop_finished_after
        )


def _route(api: Api) -> tuple[object, ...]:
    """How an API is reached, whatever the key."""
    return api.url, api.proxy_url, api.ca_file


def _rotated(former: Account, now: Account, keys: set[Secret]) -> bool:
    """Whether an account is a former one with a new key: what is known of its tasks holds on."""
    return former.api.key not in keys and (former.name, former.api.url) == (now.name, now.api.url)


def _log_task(account: _Account, task: Task, before: Reading | None) -> None:
    """One line when a task changes state, and when a failure begins or ends."""
    about, failure, reading = account.fields(task), task.failure, task.reading
    if failure and failure.reason is not Reason.RATE_LIMITED and not account.schedule.unserved:
        if not task.failure_told:
            log.warning("Task cannot be read", **about, reason=failure.reason.value, detail=failure.detail)
        task.failure_told = True
    if failure is None and task.failure_told:
        task.failure_told = False
        log.info("Task can be read again", **about)
    if reading is None or (before and before.status == reading.status):
        return
    known = reading.status in set(Status)
    state = Status(reading.status).name.lower() if known else "unknown"
    if known:
        log.info("Task changed state", **about, state=state, progress=reading.progress)
    elif task.odd_told != reading.status:
        task.odd_told = reading.status
        log.warning("Task has a status that is not documented", **about, status=reading.status)


def _log_account(account: _Account, outcome: Reading | ApiError) -> None:
    if account.schedule.unserved and not isinstance(outcome, Reading):
        log.error(
            "Account is not served",
            **account.fields(),
            reason=outcome.reason.value,
            detail=outcome.detail,
        )
    else:
        log.info("Account is served again", **account.fields())
