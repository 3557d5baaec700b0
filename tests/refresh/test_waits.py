"""Programs that wait for the end of one task, under a clock that the test moves."""

import itertools
from collections import Counter
from collections.abc import Iterator

import pytest

from exporter.errors import Reason
from exporter.model import Reading, Remembered
from exporter.refresh.statefile import identity
from tests.support.fakes import START, Outcome, World, account, failure, reading


def finishing(world: World, at: float, *, status: int = 2) -> None:
    """Every task is finished from that time on."""
    world.api.answer = lambda *_: reading(100, status) if world.loop.now >= at else reading()


class TestAsking:
    def test_only_the_task_that_is_waited_for_is_asked_about_again_and_again(self) -> None:
        world = World(account(10))
        world.wait(4)
        world.loop.advance(30.5)
        assert world.api.asked() == [4] * 31

    def test_a_wait_goes_on_as_long_as_it_takes_and_no_longer(self) -> None:
        world = World(account(2))
        finishing(world, at=3600)
        wait = world.wait(1)
        world.loop.advance(7200)
        assert wait.ended_at == pytest.approx(3600, abs=1.2)
        assert len(world.api.sent) == pytest.approx(3601, abs=2)

    def test_it_takes_its_turn_beside_scrapes(self) -> None:
        world = World(account(5))
        world.wait(2)
        for _ in range(40):
            world.scrape()
            world.loop.advance(10)
        asked = Counter(world.api.asked())
        assert sum(asked.values()) == 401
        assert [asked[task_id] for task_id in (1, 3, 4, 5)] == [40] * 4

    def test_any_number_of_waiters_cost_what_one_does(self) -> None:
        world = World(account(2))
        waits = [world.wait(1) for _ in range(500)]
        world.loop.advance(9.5)
        assert world.api.asked() == [1] * 10
        for wait in waits[1:]:
            wait.give_up()
        world.loop.advance(5)
        assert len(world.api.sent) == 15
        waits[0].give_up()
        waits[0].give_up()
        world.loop.advance(60)
        assert len(world.api.sent) == 15
        assert all(wait.ended_at is None for wait in waits)

    @pytest.mark.parametrize("offset", [step / 10 for step in range(11)])
    def test_on_an_idle_account_the_end_is_known_within_one_point_two_seconds(self, offset: float) -> None:
        world = World(account(3))
        world.api.latency = lambda: 0.08
        world.scrape()
        world.loop.advance(20)
        world.apply(account(4))  # it has just been registered
        finishing(world, at=world.loop.now + 5 + offset)
        begun = world.loop.now
        wait = world.wait(4)
        world.loop.advance(0.08)
        assert world.view().tasks[3].reading, "it is asked about at once"
        world.loop.advance(10)
        assert wait.ended_at is not None
        assert wait.ended_at - (begun + 5 + offset) <= 1.2

    def test_five_hundred_waiters_on_fifty_tasks_beside_scrapes(self) -> None:
        world = World(account(80))
        ends = {task_id: 300.0 + 7 * task_id for task_id in range(1, 51)}
        known: dict[int, float] = {}

        def answer(_: str, task_id: int) -> Reading:
            if world.loop.now < ends.get(task_id, 1e9):
                return reading(50, 1)
            known.setdefault(task_id, world.loop.now + 0.1)
            return reading(100, 2)

        world.api.answer = answer
        waits = [(task_id, world.wait(task_id)) for task_id in range(1, 51) for _ in range(10)]
        for _ in range(60):
            world.scrape()
            world.loop.advance(15)
        times = world.api.times()
        assert all(0.999 < b - a < 1.001 for a, b in itertools.pairwise(times)), (
            "one a second, and never idle"
        )
        for task_id, wait in waits:
            assert wait.ended_at == pytest.approx(known[task_id]), "at the reading that shows it"
        for task_id in range(51, 81):
            turns = [sent.at for sent in world.api.sent if sent.task_id == task_id]
            assert max(b - a for a, b in itertools.pairwise([0.0, *turns])) <= 165, "nobody starves"


class TestEnding:
    @pytest.mark.parametrize("status", [2, 3])
    def test_at_the_reading_that_shows_the_task_finished(self, status: int) -> None:
        world = World(account(1))
        finishing(world, at=2.5, status=status)
        wait = world.wait(1)
        world.loop.advance(10)
        assert wait.ended_at == pytest.approx(3.1)

    def test_at_once_where_there_is_nothing_to_wait_for(self) -> None:
        world = World(account(1))
        finishing(world, at=0)
        world.scrape()
        world.loop.advance(5)
        assert world.wait(1).ended_at == 5, "finished"
        assert world.wait(2).ended_at == 5, "not listed"
        assert world.wait(1, account="other").ended_at == 5
        assert len(world.api.sent) == 1

    def test_not_found_ends_a_wait_once_it_has_been_said_twice(self) -> None:
        world = World(account(1))
        answers = iter([Reason.NOT_FOUND, Reason.TIMEOUT, Reason.NOT_FOUND])
        world.api.answer = lambda *_: failure(next(answers))
        wait = world.wait(1)
        world.loop.advance(5)
        assert wait.ended_at is None
        world.loop.advance(60)
        assert wait.ended_at == pytest.approx(world.api.times()[2] + 0.1)
        assert world.wait(1).ended_at == world.loop.now

    def test_a_reading_takes_back_that_it_was_not_found(self) -> None:
        world = World(account(1))
        answers: Iterator[Outcome] = iter(
            [failure(Reason.NOT_FOUND), reading(), failure(Reason.NOT_FOUND), reading(100, 2)]
        )
        world.api.answer = lambda *_: next(answers)
        wait = world.wait(1)
        world.loop.advance(60)
        assert wait.ended_at == pytest.approx(world.api.times()[3] + 0.1)

    def test_when_the_task_leaves_the_list(self) -> None:
        world = World(account(2))
        wait = world.wait(2)
        world.loop.advance(3)
        world.apply(account(1))
        assert wait.ended_at == 3
        sent = len(world.api.sent)
        world.loop.advance(60)
        assert len(world.api.sent) == sent

    def test_when_its_account_leaves_the_configuration(self) -> None:
        world = World(account(1, key="A" * 40, name="a"), account(1, key="B" * 40, name="b"))
        wait, other = world.wait(1, "a"), world.wait(1, "b")
        world.loop.advance(3)
        world.apply(account(1, key="B" * 40, name="b"))
        assert wait.ended_at == 3
        assert other.ended_at is None

    def test_when_the_refresher_is_closed(self) -> None:
        world = World(account(2))
        waits = [world.wait(1), world.wait(2)]
        world.loop.advance(3)
        world.refresher.close()
        assert [wait.ended_at for wait in waits] == [3, 3]
        assert world.wait(1).ended_at == 3
        sent = len(world.api.sent)
        world.loop.advance(60)
        assert len(world.api.sent) == sent

    def test_when_what_is_restored_shows_it_finished(self) -> None:
        world = World(account(1))
        wait = world.wait(1)
        final = Remembered(Reading(100, 2, START - 5), START - 5, START - 5)
        world.refresher.restore({identity(account(1)): {1: final}})
        assert wait.ended_at == 0


class TestTrouble:
    def test_a_wait_goes_on_while_its_account_is_in_back_off(self) -> None:
        world = World(account(3))
        world.api.answer = lambda *_: failure(Reason.CONNECTION_ERROR)
        wait = world.wait(1)
        world.loop.advance(600)
        assert wait.ended_at is None
        assert world.view().backing_off
        assert max(b - a for a, b in itertools.pairwise(world.api.times())) < 61
        world.api.answer = lambda *_: reading(100, 2)
        world.loop.advance(121)
        assert wait.ended_at is not None

    def test_it_goes_on_under_a_new_key_and_name(self) -> None:
        world = World(account(2, key="A" * 40))
        wait = world.wait(2)
        world.loop.advance(3.5)
        world.apply(account(2, key="B" * 40))
        world.loop.advance(3.5)
        world.apply(account(2, key="B" * 40, name="renamed"))
        finishing(world, at=world.loop.now + 3)
        world.loop.advance(10)
        assert wait.ended_at == pytest.approx(10, abs=1.2)

    def test_an_expired_ask_does_not_end_what_a_wait_asks_for(self) -> None:
        world = World(account(3))
        world.scrape()
        world.wait(3)
        world.loop.advance(1000)
        world.api.sent.clear()
        world.loop.advance(10)
        assert world.api.asked() == [3] * 10


class TestOneTask:
    def test_it_is_shown_as_among_all(self) -> None:
        world = World(account(3, name="a"), account([7], key="B" * 40, name="b"))
        finishing(world, at=0)
        world.scrape()
        world.loop.advance(20)
        assert world.refresher.task_view("b", 7) is world.view(1).tasks[0]
        assert world.refresher.task_view("a", 2) is world.view(0).tasks[1]
        assert world.refresher.task_view("a", 7) is None
        assert world.refresher.task_view("c", 1) is None
        assert world.refresher.task_view(None, 1) is None, "which account is not said"

    def test_it_goes_stale_as_among_all(self) -> None:
        world = World(account(1), stale_after=60.0)
        world.scrape()
        world.loop.advance(5)
        world.api.answer = lambda *_: failure(Reason.CONNECTION_ERROR)
        world.scrape()
        stale = []
        for _ in range(2):
            world.loop.advance(40)
            view = world.refresher.task_view(None, 1)
            stale.append(view and view.stale)
        assert stale == [False, True]

    def test_with_one_account_its_name_is_not_needed(self) -> None:
        assert World(account(3, name="a")).refresher.task_view(None, 3)

    def test_the_end_is_told_with_what_should_be_remembered(self) -> None:
        world = World(account(2, name="a"))
        finishing(world, at=5)
        for _ in range(3):
            world.scrape()
            world.loop.advance(15)
        final = Reading(100, 2, START + 15.1)
        assert world.finished[0] == ("a", 1, Remembered(final, START + 15.1, START + 15.1, START + 0.1))
        assert [task_id for _, task_id, _ in world.finished] == [1, 2]
        assert world.view().tasks[0].finished_at == START + 15.1
