"""A loop whose time the test moves, and an API that answers on it."""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from exporter.errors import ApiError, Reason, Scope
from exporter.model import Account, AccountView, Api, Config, Reading, Remembered, Secret, TaskSpec
from exporter.refresh.refresher import Refresher
from exporter.slices import at_one_go

START = 1_700_000_000.0  # the wall clock when the loop's time is 0

Outcome = Reading | ApiError


class FakeTimer:
    def __init__(self) -> None:
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class FakeLoop:
    """Time stands still but for `advance`, which makes the calls that fall due on the way."""

    def __init__(self) -> None:
        self.now = 0.0
        self.wall_offset = 0.0  # what setting the clock, or a suspended machine, has added to it
        self._calls: list[tuple[float, int, FakeTimer, Callable[[], object]]] = []
        self._count = itertools.count()

    def time(self) -> float:
        return self.now

    def wall(self) -> float:
        return START + self.now + self.wall_offset

    def call_at(self, when: float, callback: Callable[[], object], /) -> FakeTimer:
        timer = FakeTimer()
        heapq.heappush(self._calls, (when, next(self._count), timer, callback))
        return timer

    def advance(self, seconds: float) -> None:
        until = self.now + seconds
        while self._calls and self._calls[0][0] <= until:
            when, _, timer, callback = heapq.heappop(self._calls)
            if not timer.cancelled:
                self.now = max(self.now, when)
                callback()
        self.now = until


@dataclass
class Sent:
    at: float
    key: str
    task_id: int
    interval: float  # in force when it was sent


@dataclass
class FakeApi:
    """Answers what `answer` says, `latency` seconds after the request went out, `connect` seconds late."""

    loop: FakeLoop
    answer: Callable[[str, int], Outcome] = field(default=lambda key, task_id: reading(50, 1))
    latency: Callable[[], float] = field(default=lambda: 0.1)
    connect: Callable[[], float] = field(default=lambda: 0.0)
    sent: list[Sent] = field(default_factory=list)
    starts_no_thread: bool = False
    not_started: list[float] = field(default_factory=list)
    in_flight: int = 0
    most_in_flight: int = 0

    def send(
        self, api: Api, task_id: int, sent: Callable[[float], None], done: Callable[[Outcome], None]
    ) -> None:
        if self.starts_no_thread:
            self.not_started.append(self.loop.now)
            raise RuntimeError("can't start new thread")
        key = api.key.reveal()
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)

        def out() -> None:
            self.sent.append(Sent(self.loop.now, key, task_id, api.request_interval))
            sent(self.loop.now)
            outcome = self.answer(key, task_id)
            self.loop.call_at(self.loop.now + self.latency(), lambda: back(outcome))

        def back(outcome: Outcome) -> None:
            self.in_flight -= 1
            if isinstance(outcome, Reading):
                outcome = Reading(outcome.progress, outcome.status, self.loop.wall())
            done(outcome)

        self.loop.call_at(self.loop.now + self.connect(), out)

    def times(self, key: str | None = None) -> list[float]:
        return [sent.at for sent in self.sent if key in {None, sent.key}]

    def asked(self) -> list[int]:
        return [sent.task_id for sent in self.sent]


class World:
    """A refresher over a fake loop and a fake API."""

    def __init__(self, *accounts: Account, **settings: float) -> None:
        self.loop = FakeLoop()
        self.api = FakeApi(self.loop)
        self.finished: list[tuple[str | None, int, Remembered]] = []
        self.refresher = Refresher(
            self.loop,
            self.api.send,
            wall=self.loop.wall,
            rng=random.Random(1),
            finished=lambda *task: self.finished.append(task),
        )
        self.apply(*accounts, **settings)

    def apply(self, *accounts: Account, **settings: float) -> None:
        self.refresher.apply(Config(accounts, **settings))

    def scrape(self, timeout: float = 9.5) -> Scrape:
        scrape = Scrape(self.loop.now)
        asking, scrape.give_up = self.refresher.refresh(
            self.loop.now + timeout, lambda: scrape.answer(self.loop.now, self.views())
        )
        at_one_go(asking)
        return scrape

    def ask(self) -> None:
        at_one_go(self.refresher.ask())

    def wait(self, task_id: int, account: str | None = None) -> Wait:
        wait = Wait()
        wait.give_up = self.refresher.wait_for_task(account, task_id, lambda: wait.end(self.loop.now))
        return wait

    def view(self, at: int = 0) -> AccountView:
        return self.views()[at]

    def views(self) -> tuple[AccountView, ...]:
        return at_one_go(self.refresher.views())


class Scrape:
    def __init__(self, at: float) -> None:
        self.at = at
        self.answered_at: float | None = None
        self.views: tuple[AccountView, ...] = ()
        self.give_up: Callable[[], object] = lambda: None

    def answer(self, now: float, views: tuple[AccountView, ...]) -> None:
        assert self.answered_at is None, "answered twice"
        self.answered_at, self.views = now, views

    @property
    def took(self) -> float:
        assert self.answered_at is not None, "not answered"
        return self.answered_at - self.at


class Wait:
    """A program that waits for a task."""

    def __init__(self) -> None:
        self.ended_at: float | None = None
        self.give_up: Callable[[], object] = lambda: None

    def end(self, now: float) -> None:
        assert self.ended_at is None, "ended twice"
        self.ended_at = now


def account(
    tasks: int | Iterable[int] = 1, *, key: str = "K" * 40, name: str | None = None, interval: float = 1.0
) -> Account:
    ids = range(1, tasks + 1) if isinstance(tasks, int) else tasks
    return Account(
        name, Api("https://api.example", Secret(key), interval), tuple(TaskSpec(task_id) for task_id in ids)
    )


def reading(progress: float = 50, status: int = 1) -> Reading:
    return Reading(progress, status, 0.0)


def failure(reason: Reason, *, scope: Scope | None = None, retry_after: float = 0.0) -> ApiError:
    return ApiError(reason, "told by a test", scope=scope, retry_after=retry_after)
