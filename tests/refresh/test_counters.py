"""What an account's counters count, and that they never go back."""

from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from exporter.errors import Reason
from exporter.model import Account, AccountView, Reading, Remembered, Status
from exporter.refresh.statefile import identity
from tests.support.fakes import START, World, account, failure, reading

COMPLETED, REJECTED = Status.COMPLETED, Status.REJECTED


def counted(view: AccountView) -> dict[str, float]:
    """Every counter of an account, under a name."""
    return {
        "requests": view.requests,
        **{f"failures {reason}": number for reason, number in view.failures.items()},
        **{f"duration {at}": number for at, number in enumerate(view.durations.counts)},
        "seconds": view.durations.seconds,
        **{f"finished {status.name}": number for status, number in view.finished.items()},
        **{
            f"{status.name} {at}": number
            for status, known in view.task_durations.items()
            for at, number in enumerate(known.counts)
        },
    }


class TestNeverBack:
    def test_a_key_that_is_rotated_and_rotated_back(self) -> None:
        world = World(account(3, key="A" * 40))
        before: dict[str, float] = {}
        for key in ("A" * 40, "B" * 40, "A" * 40, "C" * 40):
            world.apply(account(3, key=key))
            world.scrape()
            world.loop.advance(15)
            now = counted(world.view())
            assert all(now[name] >= value for name, value in before.items())
            before = now
        assert before["requests"] == 12

    def test_an_account_that_leaves_and_comes_back(self) -> None:
        kz, ua = account(3, key="A" * 40, name="kz"), account(3, key="B" * 40, name="ua")
        world = World(kz, ua)
        world.scrape()
        world.loop.advance(15)
        world.apply(ua)
        world.apply(ua, replace(kz, api=replace(kz.api, url="https://other.example")))
        assert [view.requests for view in world.views()] == [3, 3]

    def test_names_that_are_exchanged(self) -> None:
        kz, ua = account(5, key="A" * 40, name="kz"), account(1, key="B" * 40, name="ua")
        world = World(kz, ua)
        world.scrape()
        world.loop.advance(15)
        world.apply(replace(kz, api=ua.api), replace(ua, api=kz.api))
        assert {view.name: view.requests for view in world.views()} == {"kz": 5, "ua": 1}

    def test_a_request_under_the_former_key_still_counts(self) -> None:
        world = World(account(1, key="A" * 40))
        world.api.latency = lambda: 3.0
        world.scrape()
        world.loop.advance(1)
        world.apply(account(1, key="B" * 40))
        world.loop.advance(5)
        assert world.view().requests == sum(world.view().durations.counts) == 1


class CountersNeverGoBack(RuleBasedStateMachine):
    @initialize()
    def start(self) -> None:
        self.world = World()
        self.accounts: dict[str, Account] = {}
        self.seen: dict[str, dict[str, float]] = {}
        self.world.api.answer = lambda _, task_id: (
            failure(Reason.NOT_FOUND)
            if task_id == 3
            else reading(50, 1 + (self.world.loop.now > 60 * task_id))
        )

    def apply(self) -> None:
        keys = [found.api.key for found in self.accounts.values()]
        if len(set(keys)) == len(keys):
            self.world.apply(*(replace(found, name=name) for name, found in self.accounts.items()))

    @rule(name=st.sampled_from("abc"), key=st.sampled_from("ABC"), tasks=st.integers(0, 4))
    def put(self, name: str, key: str, tasks: int) -> None:
        self.accounts[name] = account(tasks, key=key * 40)
        self.apply()

    @rule(name=st.sampled_from("abc"))
    def take_out(self, name: str) -> None:
        self.accounts.pop(name, None)
        self.apply()

    @rule(seconds=st.sampled_from([0.05, 1.0, 20.0]))
    def scrape(self, seconds: float) -> None:
        self.world.scrape()
        self.world.loop.advance(seconds)

    @invariant()
    def none_has_gone_back(self) -> None:
        for view in self.world.views() if hasattr(self, "world") else ():
            now, before = counted(view), self.seen.get(view.name or "", {})
            assert all(now[name] >= value for name, value in before.items())
            self.seen[view.name or ""] = now


TestCountersNeverGoBack = CountersNeverGoBack.TestCase
TestCountersNeverGoBack.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


class TestOutcomes:
    def test_tasks_seen_to_finish_count_by_status_with_how_long_they_took(self) -> None:
        world = World(account(3))
        ends = {1: (50.0, 2), 2: (400.0, 3), 3: (1e9, 2)}

        def answer(_: str, task_id: int) -> Reading:
            at, status = ends[task_id]
            return reading(100, status) if world.loop.now >= at else reading()

        world.api.answer = answer
        assert world.view().finished == {COMPLETED: 0, REJECTED: 0}
        for _ in range(40):
            world.scrape()
            world.loop.advance(15)
        view = world.view()
        assert view.finished == {COMPLETED: 1, REJECTED: 1}
        completed = view.task_durations[COMPLETED]
        assert completed.bounds[0] == 10
        assert completed.bounds[-1] == 24 * 3600
        assert completed.seconds == pytest.approx(60, abs=2)
        assert view.task_durations[REJECTED].seconds == pytest.approx(404, abs=2)
        assert sum(completed.counts) == sum(view.task_durations[REJECTED].counts) == 1

    def test_a_task_that_was_finished_when_first_seen_does_not_count(self) -> None:
        world = World(account(2))
        world.api.answer = lambda *_: reading(100, 2)
        world.scrape()
        world.loop.advance(15)
        assert world.view().finished == {COMPLETED: 0, REJECTED: 0}
        assert world.view().task_durations[COMPLETED].seconds == 0
        assert [task_id for _, task_id, _ in world.finished] == [1, 2], "but it is told of"

    def test_a_restart_in_between_is_part_of_how_long_it_took(self) -> None:
        old = World(account(1))
        old.scrape()
        old.loop.advance(15)
        new = World(account(1))
        new.loop.advance(1000)
        new.refresher.restore(old.refresher.memory())
        new.api.answer = lambda *_: reading(100, 2)
        new.scrape()
        new.loop.advance(15)
        assert new.view().finished[COMPLETED] == 1
        assert new.view().task_durations[COMPLETED].seconds == pytest.approx(1000)

    def test_one_whose_first_reading_is_not_known_counts_without_a_duration(self) -> None:
        world = World(account(1))
        restored = Remembered(Reading(40, 1, START - 100), START - 200, None)
        world.refresher.restore({identity(account(1)): {1: restored}})
        for answer in (reading(), reading(100, 2)):
            world.api.answer = lambda *_, answer=answer: answer
            world.scrape()
            world.loop.advance(15)
        assert world.view().finished[COMPLETED] == 1
        assert sum(world.view().task_durations[COMPLETED].counts) == 0

    def test_a_clock_that_was_set_back_takes_nothing_off_the_durations(self) -> None:
        world = World(account(1))
        world.scrape()
        world.loop.advance(15)
        world.loop.wall_offset = -3600.0
        world.api.answer = lambda *_: reading(100, 2)
        world.scrape()
        world.loop.advance(15)
        known = world.view().task_durations[COMPLETED]
        assert (sum(known.counts), known.seconds) == (1, 0.0)

    def test_a_task_that_has_left_the_list_meanwhile_does_not_count(self) -> None:
        world = World(account(1))
        world.scrape()
        world.loop.advance(15)
        world.api.answer = lambda *_: reading(100, 2)
        world.api.latency = lambda: 2.0
        world.scrape()
        world.loop.advance(1)
        world.apply(account([]))
        world.loop.advance(15)
        assert world.view().finished[COMPLETED] == 0
        assert world.finished == []
