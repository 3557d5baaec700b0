"""Views are taken in short steps, and are all of one configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING

from exporter.refresh.clock import Clock
from exporter.slices import Steps, at_one_go
from tests.support.fakes import World, account

if TYPE_CHECKING:
    import pytest

    from exporter.model import AccountView


def accounts(*names: str) -> World:
    return World(*(account(3, key=name * 40, name=name) for name in names))


def shown(steps: Steps[tuple[AccountView, ...]]) -> list[tuple[str | None, list[int]]]:
    return [(view.name, [task.spec.id for task in view.tasks]) for view in at_one_go(steps)]


def test_each_account_is_a_step_and_every_few_tasks_are() -> None:
    assert sum(1 for _ in World(account(10_000)).refresher.views()) >= 200
    assert sum(1 for _ in accounts("a", "b", "c").refresher.views()) == 3


def test_the_counts_are_of_all_steps() -> None:
    world = World(account(120))
    world.scrape()
    world.loop.advance(2.5)
    view = world.view()
    assert (view.active, view.due, len(view.tasks)) == (120, 117, 120)


def test_each_step_has_the_time_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a task that is read, or a clock that is set, between two steps makes no reading look old."""
    reads = 0
    read = Clock.read

    def counted(clock: Clock) -> object:
        nonlocal reads
        reads += 1
        return read(clock)

    world = World(account(1000))
    monkeypatch.setattr(Clock, "read", counted)
    assert sum(1 for _ in world.refresher.views()) == reads > 1


def test_a_reload_between_two_accounts_leaves_nothing_of_the_former_ones() -> None:
    world = accounts("a", "b", "c")
    steps = world.refresher.views()
    next(steps)
    world.apply(*(account(3, key=key * 40, name=name) for key, name in ("ab", "ba", "cd")))
    assert shown(steps) == [(name, [1, 2, 3]) for name in "bad"]


def test_a_reload_between_two_tasks_leaves_nothing_of_the_former_ones() -> None:
    world = World(account(1000))
    steps = world.refresher.views()
    next(steps)
    world.apply(account(range(500, 1500)))
    assert shown(steps) == [(None, list(range(500, 1500)))]


def test_after_a_reload_all_is_taken_at_one_go() -> None:
    world = World(account(1000))
    steps = world.refresher.views()
    next(steps)
    world.apply(account(1000))
    assert list(steps) == []
