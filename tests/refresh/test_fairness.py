"""Who gets the starts: tasks never asked about, healthy and failing ones (rule 5 of refreshing)."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.errors import Reason
from exporter.model import Reading, Remembered, TaskSpec
from exporter.refresh.statefile import identity
from exporter.refresh.task import TaskState
from exporter.refresh.turns import HEALTHY_STARTS, Turns
from tests.support.fakes import START, Outcome, World, account, failure, reading

pytestmark = pytest.mark.untraced

LIVE = range(1, 11)


def world_beside_dead_ids(dead: int, *, interval: float) -> World:
    """Ten live tasks, and the rest of the list not found; answers take 80 ms."""
    world = World(account(10 + dead, interval=interval))
    world.api.latency = lambda: 0.08
    world.api.answer = lambda _, task_id: reading() if task_id in LIVE else failure(Reason.NOT_FOUND)
    return world


def oldest_live_reading(world: World) -> float:
    read = [task.reading for task in world.view().tasks if task.spec.id in LIVE]
    return max(world.loop.wall() - known.taken_at if known else math.inf for known in read)


class TestDeadIds:
    def test_ten_live_tasks_beside_two_thousand_are_never_older_than_three_seconds(self) -> None:
        world = world_beside_dead_ids(2000, interval=0.02)
        for _ in range(100):
            world.scrape()
            world.loop.advance(1)
        oldest = []
        for _ in range(150):
            world.scrape()
            world.loop.advance(1)
            oldest.append(oldest_live_reading(world))
        assert max(oldest) <= 3

    @pytest.mark.parametrize("every", [15, 3])
    def test_live_tasks_beside_a_thousand_get_three_quarters_of_the_starts(self, every: int) -> None:
        world = world_beside_dead_ids(1000, interval=1.0)
        starts: list[bool] = []  # made while a live task was due: whether it was one of a live task
        read_at = dict.fromkeys(LIVE, -math.inf)
        answer = world.api.answer

        def noted(key: str, task_id: int) -> Outcome:
            if any(read < asked for read in read_at.values()):
                starts.append(task_id in LIVE)
            if task_id in LIVE:
                read_at[task_id] = world.loop.now
            return answer(key, task_id)

        asked = 0.0
        while len(set(world.api.asked())) < 1010:
            world.scrape()
            world.loop.advance(every)
        world.api.answer = noted
        for _ in range(3000 // every):
            asked = world.loop.now
            world.scrape()
            world.loop.advance(every)
        assert len(starts) > 1000
        assert sum(starts) / len(starts) >= 0.75

    def test_and_the_dead_ones_are_still_asked_about(self) -> None:
        world = world_beside_dead_ids(300, interval=1.0)
        for _ in range(700):
            world.scrape()
            world.loop.advance(5)
        counted = [world.api.asked().count(task_id) for task_id in (11, 150, 310)]
        assert min(counted) >= 2

    def test_three_hundred_and_twenty_do_not_starve_ten(self) -> None:
        world = world_beside_dead_ids(320, interval=1.0)
        for _ in range(200):
            world.scrape()
            world.loop.advance(15)
        oldest = []
        for _ in range(40):
            world.scrape()
            world.loop.advance(15)
            oldest.append(oldest_live_reading(world))
        assert max(oldest) <= 30

    def test_one_that_fails_once_among_many_keeps_its_turn_in_the_order(self) -> None:
        world = World(account(100))
        for _ in range(20):
            world.scrape()
            world.loop.advance(15)
        failed = itertools.chain([True], itertools.repeat(False))
        world.api.answer = lambda _, task_id: (
            failure(Reason.API_ERROR) if task_id == 7 and next(failed) else reading()
        )
        world.api.sent.clear()
        for _ in range(30):
            world.scrape()
            world.loop.advance(15)
        asked = [at for at, task_id in enumerate(world.api.asked()) if task_id == 7]
        assert asked[1] - asked[0] == pytest.approx(100, abs=5), "neither sooner nor later than the others"


class TestNewTasks:
    def test_a_long_list_of_new_ones_takes_every_second_start_at_most(self) -> None:
        world = World(account(10))
        world.scrape()
        world.loop.advance(15)
        world.apply(account(210))
        world.api.sent.clear()
        for _ in range(400):
            world.scrape()
            world.loop.advance(1)
        asked = world.api.asked()
        new = [task_id > 10 and task_id not in asked[:at] for at, task_id in enumerate(asked)]
        assert not any(a and b for a, b in itertools.pairwise(new))
        assert sum(new[:400]) == pytest.approx(200, abs=2), "and no fewer"

    def test_while_no_other_is_due_they_take_every_start(self) -> None:
        world = World(account(10))
        world.scrape()
        world.loop.advance(15)
        world.apply(account(30))
        world.api.sent.clear()
        world.scrape()
        world.loop.advance(60)
        new = [task_id > 10 for task_id in world.api.asked()]
        assert new == [True, False] * 10 + [True] * 10

    def test_restored_ones_are_not_new(self) -> None:
        world = World(account(3))
        world.refresher.restore(
            {
                identity(account(3)): {
                    task_id: Remembered(Reading(1, 1, START - age), START - age, None)
                    for task_id, age in ((1, 10), (2, 30))
                }
            }
        )
        world.scrape()
        world.loop.advance(10)
        assert world.api.asked() == [3, 2, 1]


NEVER, HEALTHY, FAILING = "never asked", "healthy", "failing"


@given(
    st.lists(
        st.tuples(
            st.sampled_from([NEVER, HEALTHY, FAILING, None]),  # of a task that becomes due, if one does
            st.integers(1, 3),  # starts
        ),
        max_size=80,
    )
)
def test_the_shares_of_starts_hold_in_any_order_of_events(events: list[tuple[str | None, int]]) -> None:
    due: set[TaskState] = set()
    turns = Turns(lambda task: task in due)
    now, ids = 1000.0, itertools.count()
    while_healthy_due: list[str] = []  # the starts made then, since when one has been without a break

    def kind(task: TaskState) -> str:
        return FAILING if task.delay else NEVER if task.asked_at == -math.inf else HEALTHY

    for new, starts in events:
        if new:
            number = next(ids)
            task = TaskState(TaskSpec(number), 0)
            if new != NEVER:
                task.asked_at = now - 500 - number % 7
            if new == FAILING:
                task.delay, task.retry_at = 5.0, now - number % 3
            due.add(task)
            turns.add(task)
        for _ in range(starts):
            at = turns.next_at()
            assert (at is None) == (not due)
            if at is None:
                break
            assert at <= now
            now += 1
            healthy = [task for task in due if kind(task) == HEALTHY]
            task = turns.take(now)
            assert task in due
            taken = kind(task)
            if healthy:
                while_healthy_due.append(taken)
                if taken == HEALTHY:
                    assert task.asked_at == min(other.asked_at for other in healthy)
                assert while_healthy_due[-2:] != [NEVER, NEVER]
                assert while_healthy_due[-HEALTHY_STARTS - 1 :].count(FAILING) <= 1
            due.discard(task)
            task.asked_at = now


def test_sixty_bad_tasks_never_pass_for_a_bad_account_while_one_is_answered() -> None:
    world = World(account(61))
    world.api.answer = lambda _, task_id: reading() if task_id == 1 else failure(Reason.API_ERROR)
    seen = set()
    world.scrape()
    world.loop.advance(1)
    for second in range(600):
        if second % 15 == 0:
            world.scrape()
        world.loop.advance(1)
        seen.add(world.view().up)
    assert seen == {True}
