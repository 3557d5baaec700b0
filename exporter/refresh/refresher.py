"""The accounts of the configuration, refreshed as they are asked for: one timer an account starts requests.

It knows neither threads nor sockets: a `Loop` tells the time and calls back, a `Send` starts a request and
reports to callbacks on the loop.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from exporter.errors import ApiError, Reason
from exporter.model import Config
from exporter.refresh.account import AccountState, matched, views_of
from exporter.refresh.clock import Clock
from exporter.refresh.counters import Counters
from exporter.refresh.memory import UnlistedTasks
from exporter.refresh.pacing import Pacer
from exporter.refresh.schedule import Schedule
from exporter.refresh.statefile import Memory, fingerprint, identity
from exporter.refresh.task import Budget
from exporter.refresh.waits import ScrapeWaits, WaitingScrape
from exporter.slices import Steps, at_one_go

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from exporter.model import Account, AccountView, Failure, Reading, Remembered, TaskView
    from exporter.refresh.ports import Loop, Send
    from exporter.refresh.task import InFlight

log = structlog.get_logger(__name__)


class Refresher:
    """Sends requests for the tasks that are asked for, and keeps what is known of them.

    `finished` is called when a reading shows that a task is finished: with the account's name, the task's id,
    and what should outlive the process.
    """

    def __init__(
        self,
        loop: Loop,
        send: Send,
        *,
        wall: Callable[[], float],
        rng: random.Random,
        finished: Callable[[str | None, int, Remembered], None] | None = None,
    ) -> None:
        self._loop = loop
        self._send = send
        self._clock = Clock(loop.time, wall)
        self._rng = rng
        self._on_finished = finished
        self.config = Config(())  # in force
        self._accounts: list[AccountState] = []  # as configured
        self._by_name: dict[str | None, AccountState] = {}
        self._budgets: dict[str, Budget] = {}  # by the key's fingerprint: a budget outlives a reload
        self._counters: dict[str | None, Counters] = {}  # by the account's name, which is the series' label
        self._unlisted = UnlistedTasks()
        self._scrapes: set[WaitingScrape] = set()
        self._closed = False
        self.changes = 0  # grows whenever there is something new to save

    def apply(self, config: Config) -> None:
        """Put a configuration in force; what is known of accounts and tasks that stay is kept.

        An account stays while its key does, whatever its name, or its name and URL, whatever their key.
        """
        self.changes += 1
        self.config = config
        before = self._accounts
        self._accounts = [self._configured(*pair) for pair in matched(config.accounts, before)]
        self._by_name = {account.settings.name: account for account in self._accounts}
        for account in set(before) - set(self._accounts):
            account.retire()
        self._unlisted.restore_listed(self._accounts, self._clock.read())
        for account in (*before, *self._accounts):
            self._pump(account)
            account.release_waits(self._loop.time())

    def ask(self) -> Steps[None]:
        """Make every active task due, without waiting for the answers."""
        for account in self._accounts:
            account.schedule.ask(self._loop.time())
            self._pump(account)
            yield

    def refresh(self, deadline: float, done: Callable[[], None]) -> tuple[Steps[None], Callable[[], object]]:
        """Make every active task due; `done` is called when what can be answered by `deadline` has been.

        Accounts are judged each by itself: one whose answers cannot all come in time is not waited for.
        Returns the steps that ask, and a function that gives up the wait.
        """
        scrape = WaitingScrape(deadline, self._scrapes, done)
        return self._ask_for(scrape), scrape.give_up

    def _ask_for(self, scrape: WaitingScrape) -> Steps[None]:
        asking = ScrapeWaits()  # while accounts are asked, the answers of others are not all
        scrape.wait_for(asking, 0)
        for account in self._accounts:
            now = self._loop.time()
            ask = account.schedule.ask(now)
            self._pump(account)
            outlook = account.schedule.outlook(now, scrape.deadline)
            if not self._closed and outlook.pending(ask) and outlook.complete_at(ask) <= scrape.deadline:
                scrape.wait_for(account.scrapes, ask)
            yield
        scrape.timer = self._loop.call_at(scrape.deadline, scrape.release)
        scrape.stop_waiting_for(asking)

    def wait_for_task(
        self, account_name: str | None, task_id: int, done: Callable[[], None]
    ) -> Callable[[], None]:
        """Ask about one task, again and again in its turn; `done` is called when the wait is over.

        That is when it is finished, not listed any more, not found by Mobizon twice, or when the refresher is
        closed; at once if that is so already. Returns a function that gives up the wait.
        """
        account = self._account(account_name)
        task = account.schedule.tasks.get(task_id) if account else None
        if account is None or task is None or task.settled or self._closed:
            done()
            return lambda: None
        give_up_wait = account.task_waits.add(task_id, done)
        account.schedule.wait_for(task, wanted=True)
        self._pump(account)

        def give_up() -> None:
            if give_up_wait():
                account.schedule.wait_for(task, wanted=False)

        return give_up

    def restore(self, memory: Memory) -> None:
        """Take back what an earlier process knew of the tasks that are listed, now or before long.

        It may be called again with more: of two readings of a task the newer one wins.
        """
        at = self._clock.read()
        self._unlisted.add(memory, at.monotonic)
        self._unlisted.restore_listed(self._accounts, at)
        for account in self._accounts:
            account.release_waits(at.monotonic)

    def memory(self) -> Memory:
        """What a later process should know."""
        memory = self._unlisted.memory(self._loop.time())
        for account in self._accounts:
            memory.setdefault(identity(account.settings), {}).update(
                (task_id, remembered)
                for task_id, task in account.schedule.tasks.items()
                if (remembered := task.remembered)
            )
        return memory

    def close(self) -> None:
        """Send nothing any more, and let everybody who waits go with what is known."""
        self._closed = True
        for account in self._accounts:
            self._pump(account)
            account.end_all_waits()
        for scrape in list(self._scrapes):
            scrape.release()

    def views(self) -> Steps[tuple[AccountView, ...]]:
        """Everything that is known, each task as of its step; all under one configuration.

        If another one comes between two steps, all is taken anew, at one go.
        """
        config, steps = self.config, views_of(self._accounts, self._clock, self.config)
        while self.config is config:
            try:
                next(steps)
            except StopIteration as end:
                views: tuple[AccountView, ...] = end.value
                return views
            yield
        return at_one_go(views_of(self._accounts, self._clock, self.config))

    def account_failures(self) -> dict[str | None, Failure | None]:
        """The accounts, as configured, and why the API is unavailable for each; None while it is not."""
        return {name: account.failure for name, account in self._by_name.items()}

    def task_view(self, account_name: str | None, task_id: int) -> TaskView | None:
        """What is known of one task, as of now; None if it is not listed."""
        account = self._account(account_name)
        return account.task_view(task_id, self._clock.read(), self.config) if account else None

    def _account(self, name: str | None) -> AccountState | None:
        """The account of that name; without a name the only one."""
        only = name is None and len(self._accounts) == 1
        return self._accounts[0] if only else self._by_name.get(name)

    def _configured(self, settings: Account, account: AccountState | None) -> AccountState:
        """The account with its settings in force; a new one if there is none yet."""
        key = fingerprint(settings.api.key)
        budget = self._budgets.get(key)
        if budget is None:
            budget = self._budgets[key] = Budget(Pacer(settings.api.request_interval, self._rng))
        counters = self._counters.setdefault(settings.name, Counters())
        if account is None:
            account = AccountState(settings, Schedule(budget), counters)
        account.configure(settings, budget, counters)
        return account

    def _pump(self, account: AccountState) -> None:
        """Start the request that may start now, or set the timer for the next one."""
        now = self._loop.time()
        at = None if self._closed else account.schedule.next_start(now)
        if account.timer:
            if at == account.timer_at:
                return
            account.timer.cancel()
            account.timer = None
        if at is None:
            return
        if at > now:
            account.timer, account.timer_at = self._loop.call_at(at, lambda: self._pump_now(account)), at
            return
        request = account.start(now)
        try:
            self._send(
                account.settings.api,
                request.task.spec.id,
                lambda when: self._sent(account, request, when),
                lambda outcome: self._finished(account, request, outcome),
            )
        except Exception:  # the request has to end, or no other would start
            log.exception("Failed to send request", **account.log.fields(request.task))
            self._finished(
                account, request, ApiError(Reason.CONNECTION_ERROR, "it cannot be sent: see the log")
            )

    def _pump_now(self, account: AccountState) -> None:
        account.timer = None
        self._pump(account)

    def _sent(self, account: AccountState, request: InFlight, when: float) -> None:
        account.schedule.sent(request, when)
        self._pump_user(account, request)

    def _finished(self, account: AccountState, request: InFlight, outcome: Reading | ApiError) -> None:
        self.changes += 1
        task, at = request.task, self._clock.read()
        if account.finish(request, outcome, at) and self._on_finished and task.remembered:
            self._on_finished(account.settings.name, task.spec.id, task.remembered)
        self._pump_user(account, request)
        account.release_waits(at.monotonic, (task.spec.id,))

    def _pump_user(self, account: AccountState, request: InFlight) -> None:
        """Pump the account, and the one that uses the request's key by now."""
        self._pump(account)
        if account.schedule.budget is not request.budget or account.retired:
            for other in self._accounts:
                if other.schedule.budget is request.budget:
                    self._pump(other)
