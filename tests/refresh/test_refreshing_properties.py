"""What holds over any interleaving of scrapes, views, reloads, answers, failures, refusals and slowness."""

import itertools
from collections import Counter
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from exporter.errors import Reason
from tests.support.fakes import Scrape, Wait, World, account, failure, reading

pytestmark = pytest.mark.untraced

KEYS = ("A" * 40, "B" * 40)
ASK_EXPIRES_AFTER = (
    300 + 12 * 6 * 5 + 61
)  # seconds: see ASK_EXPIRES_AFTER, and the longest spacing and back-off


class Refreshing(RuleBasedStateMachine):
    @initialize(interval=st.sampled_from([0.5, 1.0, 5.0]))
    def start(self, interval: float) -> None:
        self.interval = interval
        self.lists = {key: range(1, 4) for key in KEYS}
        self.world = World()
        self.outcome: Any = reading
        self.latency, self.connect = 0.1, 0.0
        self.world.api.answer = lambda key, task_id: self.outcome()
        self.world.api.latency = lambda: self.latency
        self.world.api.connect = lambda: self.connect
        self.scrapes: list[tuple[Scrape, float]] = []
        self.asks = 0
        self.asked_at = float("-inf")
        self.checked = 0
        self.apply()

    def apply(self) -> None:
        self.world.apply(
            *(account(self.lists[key], key=key, name=key[0], interval=self.interval) for key in self.lists)
        )

    @rule(timeout=st.sampled_from([0.0, 1.0, 9.5, 60.0]))
    def scrape(self, timeout: float) -> None:
        self.asks += 1
        self.asked_at = self.world.loop.now
        self.scrapes.append((self.world.scrape(timeout), timeout))

    @rule()
    def view(self) -> None:
        self.asks += 1
        self.asked_at = self.world.loop.now
        self.world.ask()

    @precondition(lambda self: self.scrapes)
    @rule()
    def hang_up(self) -> None:
        scrape, _ = self.scrapes.pop()
        scrape.give_up()

    @rule(seconds=st.sampled_from([0.0, 0.01, 0.3, 1.0, 7.0, 60.0, 1000.0]))
    def wait(self, seconds: float) -> None:
        self.world.loop.advance(seconds)

    @rule(key=st.sampled_from(KEYS), first=st.integers(1, 4), count=st.integers(0, 6))
    def list_tasks(self, key: str, first: int, count: int) -> None:
        self.lists[key] = range(first, first + count)
        self.apply()

    @rule(interval=st.sampled_from([0.5, 1.0, 5.0]))
    def change_interval(self, interval: float) -> None:
        self.interval = interval
        self.apply()

    @rule(key=st.sampled_from(KEYS))
    def take_out_or_put_back(self, key: str) -> None:
        if self.lists.pop(key, None) is None:
            self.lists[key] = range(1, 4)
        self.apply()

    @rule(
        outcome=st.sampled_from(
            [
                reading,
                lambda: reading(10, 7),
                lambda: failure(Reason.RATE_LIMITED),
                lambda: failure(Reason.RATE_LIMITED, retry_after=20),
                *(lambda reason=reason: failure(reason) for reason in Reason),
            ]
        )
    )
    def answer(self, outcome: Any) -> None:
        self.outcome = outcome

    @rule(latency=st.sampled_from([0.0, 0.1, 2.0, 30.0]), connect=st.sampled_from([0.0, 0.0, 0.4, 3.0]))
    def slow(self, latency: float, connect: float) -> None:
        self.latency, self.connect = latency, connect

    @invariant()
    def requests_are_spaced(self) -> None:
        for key in KEYS:
            sent = [sent for sent in self.world.api.sent[self.checked :] if sent.key == key]
            for before, after in itertools.pairwise(sent):
                assert after.at - before.at >= after.interval - 1e-6
        last = {sent.key: at for at, sent in enumerate(self.world.api.sent)}
        self.checked = min(last.values(), default=0) if len(last) == len(KEYS) else 0

    @invariant()
    def nothing_is_sent_unasked(self) -> None:
        assert all(self.asks for _ in self.world.api.sent[-1:])
        late = [sent for sent in self.world.api.sent[-5:] if sent.at > self.asked_at + ASK_EXPIRES_AFTER]
        assert not late

    @invariant()
    def scrapes_are_answered_by_their_deadline(self) -> None:
        for scrape, timeout in self.scrapes:
            if scrape.answered_at is None:
                assert self.world.loop.now < scrape.at + timeout
            else:
                assert scrape.took <= timeout + 1e-9  # times are sums of floats

    @invariant()
    def what_is_shown_is_what_is_listed(self) -> None:
        shown = {view.name: [task.spec.id for task in view.tasks] for view in self.world.views()}
        assert shown == {key[0]: list(tasks) for key, tasks in self.lists.items()}

    def teardown(self) -> None:
        """No due task starves: once the API is well again, all are read before long."""
        if not hasattr(self, "world"):
            return
        self.outcome, self.latency, self.connect = reading, 0.1, 0.0
        for _ in range(60):
            self.world.scrape()
            self.world.loop.advance(15)
        for view in self.world.views():
            assert view.up is True or not view.tasks
            for task in view.tasks:
                assert task.reading is not None
                assert task.failure is None
                assert self.world.loop.wall() - task.reading.taken_at < 120


class ApiThatAnswers(RuleBasedStateMachine):
    """With an API that always answers, a scrape that can have all answers in time has them."""

    @initialize(tasks=st.integers(1, 30))
    def start(self, tasks: int) -> None:
        self.tasks = tasks
        self.world = World(account(tasks))
        self.world.scrape()
        self.world.loop.advance(60)

    @rule(pause=st.floats(0.0, 40.0), timeout=st.sampled_from([5.0, 9.5, 30.0]))
    def scrape(self, pause: float, timeout: float) -> None:
        self.world.loop.advance(pause)
        scrape = self.world.scrape(timeout)
        at_once = scrape.answered_at is not None
        self.world.loop.advance(timeout)
        fresh = [
            task
            for task in scrape.views[0].tasks
            if task.reading and task.reading.taken_at >= self.world.loop.wall() - timeout
        ]
        assert at_once or len(fresh) == self.tasks
        if self.tasks <= timeout - 1:
            assert not at_once

    def teardown(self) -> None:
        if hasattr(self, "world"):
            counts = Counter(self.world.api.asked())
            assert max(counts.values(), default=0) - min(counts.values(), default=0) <= 1


class NeverIdle(RuleBasedStateMachine):
    """The budget is used while work is due and never exceeded, however scrapes, views and waits are mixed."""

    @initialize(tasks=st.integers(1, 30), dead=st.integers(0, 30))
    def start(self, tasks: int, dead: int) -> None:
        self.world = World(account(tasks + dead))
        self.world.api.answer = lambda _, task_id: (
            reading() if task_id <= tasks else failure(Reason.NOT_FOUND)
        )
        self.waits: list[Wait] = []

    @rule(timeout=st.sampled_from([1.0, 9.5, 60.0]))
    def scrape(self, timeout: float) -> None:
        self.world.scrape(timeout)

    @rule()
    def view(self) -> None:
        self.world.ask()

    @rule(task_id=st.integers(1, 60))
    def wait(self, task_id: int) -> None:
        self.waits.append(self.world.wait(task_id))

    @precondition(lambda self: self.waits)
    @rule()
    def give_up(self) -> None:
        self.waits.pop(0).give_up()

    @rule(seconds=st.floats(0.0, 5.0) | st.floats(0.0, 400.0))
    def pass_time(self, seconds: float) -> None:
        self.world.loop.advance(seconds)

    @invariant()
    def the_budget_is_used_while_work_is_due(self) -> None:
        if hasattr(self, "world"):
            self.world.loop.advance(0)  # what starts now is on its way only then
            assert not self.world.view().due or self.world.loop.now < self.world.api.times()[-1] + 1

    @invariant()
    def requests_are_spaced(self) -> None:
        if hasattr(self, "world"):
            times = self.world.api.times()[-500:]
            assert all(b - a >= 1 - 1e-6 for a, b in itertools.pairwise(times))


TestRefreshing = Refreshing.TestCase
TestRefreshing.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestNeverIdle = NeverIdle.TestCase
TestNeverIdle.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
TestApiThatAnswers = ApiThatAnswers.TestCase
TestApiThatAnswers.settings = settings(max_examples=50, stateful_step_count=20, deadline=None)
