"""Old readings do not pass for new ones, and a short outage hides nothing."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.errors import Reason
from exporter.model import Reading, Remembered
from exporter.refresh.clock import SUSPENDED, Clock
from exporter.refresh.statefile import identity
from tests.support.fakes import START, World, account, failure, reading

HOUR = 3600.0


def read(world: World, *, scrapes: int = 1) -> None:
    for _ in range(scrapes):
        world.scrape()
        world.loop.advance(15)


def down(world: World, reason: Reason = Reason.CONNECTION_ERROR) -> None:
    world.api.answer = lambda *_: failure(reason)


def states(world: World) -> set[str]:
    return {task.state for task in world.view().tasks}


class TestServiceLost:
    def test_a_short_outage_hides_no_long_list(self) -> None:
        world = World(account(500), stale_after=300.0)
        read(world, scrapes=70)
        assert states(world) == {"in_progress"}
        down(world, Reason.API_ERROR)
        read(world, scrapes=2)
        assert world.view().backing_off
        assert states(world) == {"in_progress"}, "the oldest is eight minutes old"
        world.api.answer = lambda *_: reading()
        read(world, scrapes=2)
        assert states(world) == {"in_progress"}

    @pytest.mark.parametrize("reason", [Reason.CONNECTION_ERROR, Reason.RATE_LIMITED])
    @pytest.mark.parametrize(("tasks", "interval"), [(500, 1.0), (250, 2.0)])
    def test_a_long_list_is_stale_after_two_full_refreshes(
        self, reason: Reason, tasks: int, interval: float
    ) -> None:
        world = World(account(tasks, interval=interval), stale_after=300.0)
        read(world, scrapes=70)
        down(world, reason)
        lost = world.loop.now
        while world.loop.now < lost + 980:
            read(world)
            assert states(world) == {"in_progress"}
        read(world, scrapes=6)  # an outage of refusals is one after 16
        assert states(world) == {"unknown"}

    def test_a_full_refresh_is_reckoned_with_the_spacing_in_force(self) -> None:
        world = World(account(20), stale_after=30.0)
        world.api.answer = lambda _, task_id: reading() if task_id % 2 else failure(Reason.RATE_LIMITED)
        read(world, scrapes=20)
        full_refresh = 20 * world.view().spacing
        assert full_refresh > 40
        down(world)
        stale_at = world.loop.now + 2 * full_refresh
        while world.loop.now < stale_at - 15:
            read(world)
            assert {task.state for task in world.view().tasks[::2]} == {"in_progress"}
        read(world, scrapes=3)
        assert states(world) == {"unknown"}

    def test_a_list_that_is_scraped_rarely_is_not_stale_at_the_first_failure(self) -> None:
        world = World(account(3), stale_after=300.0)
        world.scrape()
        world.loop.advance(290)
        down(world, Reason.TIMEOUT)
        world.scrape()
        world.loop.advance(100)
        assert states(world) == {"in_progress"}, "390 s old, and without service for 100 s"
        world.scrape()
        world.loop.advance(250)
        assert states(world) == {"unknown"}

    def test_a_reading_that_was_old_when_service_was_lost_is_stale_at_once(self) -> None:
        world = World(account(1), stale_after=300.0)
        read(world)
        world.loop.advance(HOUR)
        down(world)
        world.scrape()
        world.loop.advance(1)
        assert states(world) == {"unknown"}

    def test_with_nobody_asking_nothing_is_stale(self) -> None:
        world = World(account(1), stale_after=300.0)
        read(world)
        world.loop.advance(HOUR)
        assert states(world) == {"in_progress"}


class TestClocks:
    def test_a_reading_from_before_a_suspension_is_stale_when_nothing_follows_it(self) -> None:
        world = World(account(2), stale_after=300.0)
        read(world)
        down(world)
        read(world, scrapes=2)
        assert states(world) == {"in_progress"}
        world.loop.wall_offset += HOUR  # and the monotonic clock stood still
        assert states(world) == {"unknown"}

    def test_an_outage_that_is_noticed_after_a_suspension_counts_the_time_before_it(self) -> None:
        world = World(account(2), stale_after=300.0)
        read(world)
        world.loop.wall_offset += HOUR
        down(world)
        world.scrape()
        world.loop.advance(5)
        assert states(world) == {"unknown"}

    @pytest.mark.parametrize("step", [-HOUR, -365 * 24 * HOUR])
    def test_a_clock_that_is_set_back_makes_nothing_young(self, step: float) -> None:
        world = World(account(1), stale_after=300.0)
        read(world)
        down(world)
        read(world)
        world.loop.wall_offset += step
        read(world, scrapes=25)
        assert states(world) == {"unknown"}

    @pytest.mark.parametrize("final", [False, True])
    def test_the_age_that_is_shown_is_right_after_a_clock_is_set_back(self, *, final: bool) -> None:
        world = World(account(1))
        world.loop.advance(100)
        world.api.answer = lambda *_: reading(100, 2) if final else reading()
        read(world)
        (view,) = world.view().tasks
        before = view.age(world.loop.wall()) or 0.0
        assert before == pytest.approx(14.9)
        world.loop.wall_offset -= HOUR
        world.loop.advance(60)
        (view,) = world.view().tasks
        assert view.age(world.loop.wall()) == pytest.approx(before + 60, abs=1)
        world.loop.wall_offset += HOUR / 2
        world.loop.advance(60)
        (view,) = world.view().tasks
        assert (view.age(world.loop.wall()) or 0) >= before + 119, "and never younger"

    def test_clocks_that_differ_a_little_leave_views_as_they_are(self) -> None:
        world = World(account(1))
        read(world)
        (view,) = world.view().tasks
        for offset in (0.01, -0.02, 1.0, 0.0):
            world.loop.wall_offset = offset
            assert world.view().tasks[0] is view

    def test_a_clock_that_was_ahead_when_the_reading_was_taken_makes_it_no_younger_either(self) -> None:
        world = World(account(1), stale_after=300.0)
        world.loop.wall_offset = 24 * HOUR
        read(world)
        down(world)
        read(world)
        world.loop.wall_offset = 0.0  # it is set right
        assert states(world) == {"in_progress"}
        world.loop.wall_offset += HOUR  # and then the machine is suspended
        assert states(world) == {"unknown"}

    def test_a_restored_reading_from_the_future_is_of_unknown_age(self) -> None:
        world = World(account(2), stale_after=300.0)
        remembered = Remembered(Reading(40, 1, START + HOUR), START + HOUR, None)
        world.refresher.restore({identity(account(2)): dict.fromkeys((1, 2), remembered)})
        assert states(world) == {"in_progress"}
        down(world)
        world.scrape()
        world.loop.advance(5)
        assert [task.state for task in world.view().tasks] == ["unknown", "unknown"]

    @given(st.lists(st.tuples(st.floats(0, 1e6), st.floats(-1e6, 1e6)), max_size=20))
    def test_elapsed_time_is_at_least_what_each_clock_has_counted(
        self, steps: list[tuple[float, float]]
    ) -> None:
        now, wall = [0.0], [START]
        clock = Clock(lambda: now[0], lambda: wall[0])
        last, counted = clock.read(), 0.0
        for passed, offset in steps:
            now[0] += passed
            wall[0] += passed + offset
            at = clock.read()
            counted += max(0.0, offset) + passed
            assert at.elapsed >= last.elapsed
            assert at.elapsed == pytest.approx(counted, rel=1e-6, abs=1e-3 + len(steps) * SUSPENDED)
            last = at

    def test_the_time_between_the_looks_at_the_two_clocks_does_not_add_up(self) -> None:
        now, looks = [0.0], [0]

        def wall() -> float:
            looks[0] += 1
            return START + now[0] + looks[0] % 2 * 0.001  # later every second time

        clock = Clock(lambda: now[0], wall)
        for _ in range(10_000):
            now[0] += 0.01
            at = clock.read()
        assert at.elapsed == pytest.approx(now[0], abs=0.01)


class TestRestored:
    def test_readings_outlive_the_rotation_of_a_key_also_across_a_restart(self) -> None:
        old = World(account(3, key="A" * 40, name="kz"))
        old.scrape()
        old.loop.advance(15)
        new = World(account(3, key="B" * 40, name="kz"))
        new.refresher.restore(old.refresher.memory())
        assert [task.reading for task in new.view().tasks] == [task.reading for task in old.view().tasks]
        assert len(new.refresher.memory()) == 1, "from now on it is known under the new key"

    def test_an_account_that_is_renamed_while_the_exporter_is_down_is_found_by_its_key(self) -> None:
        old = World(account(3, name="kz"))
        old.scrape()
        old.loop.advance(15)
        new = World(account(3, name="renamed"))
        new.refresher.restore(old.refresher.memory())
        assert all(task.reading for task in new.view().tasks)

    def test_names_that_are_exchanged_take_no_readings_of_each_other(self) -> None:
        a, b = account([1], key="A" * 40, name="a"), account([2], key="B" * 40, name="b")
        old = World(a, b)
        old.scrape()
        old.loop.advance(15)
        new = World(replace(a, api=b.api), replace(b, api=a.api))
        new.refresher.restore(old.refresher.memory())
        assert not any(task.reading for view in new.views() for task in view.tasks)

    def test_another_name_under_another_key_takes_nothing(self) -> None:
        old = World(account(1, key="A" * 40, name="a"))
        old.scrape()
        old.loop.advance(15)
        new = World(account(1, key="B" * 40, name="b"))
        new.refresher.restore(old.refresher.memory())
        assert states(new) == {"unknown"}

    def test_of_two_memories_the_newer_reading_wins_whichever_comes_first(self) -> None:
        older = {1: Remembered(Reading(10, 1, START - 100), START - 100, None)}
        newer = {1: Remembered(Reading(100, 2, START - 50), START - 50, START - 50)}
        mine = identity(account(1))
        for first, second in ((older, newer), (newer, older)):
            world = World(account(1))
            world.refresher.restore({mine: first})
            world.refresher.restore({mine: second})
            assert states(world) == {"completed"}
            unlisted = World(account([]))
            unlisted.refresher.restore({mine: first})
            unlisted.refresher.restore({mine: second})
            unlisted.apply(account(1))
            assert states(unlisted) == {"completed"}

    def test_the_time_of_the_first_reading_outlives_a_restart(self) -> None:
        old = World(account(1))
        old.scrape()
        old.loop.advance(15)
        new = World(account(1))
        new.loop.advance(100)
        new.refresher.restore(old.refresher.memory())
        new.api.answer = lambda *_: reading(100, 2)
        new.scrape()
        new.loop.advance(15)
        (known,) = [tasks[1] for tasks in new.refresher.memory().values()]
        assert (known.first_read_at, known.finished_at) == (START + 0.1, START + 100.1)
