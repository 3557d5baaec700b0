"""Whose turn it is, in short rows of starts."""

from __future__ import annotations

import math
import sys

import pytest

from exporter.model import TaskSpec
from exporter.refresh.task import TaskState
from exporter.refresh.turns import Turns

NOW = 100.0


class Due:
    """Tasks that are due until they are asked about."""

    def __init__(self) -> None:
        self.turns = Turns(lambda task: task in self._tasks)
        self._tasks: dict[TaskState, str] = {}

    def add(
        self, name: str, asked_at: float = -math.inf, *, retry_at: float | None = None, **place: bool
    ) -> None:
        """Make a task due; it is in back-off if there is a time for it to be tried again."""
        task = TaskState(TaskSpec(len(self._tasks) + 1), 0)
        task.asked_at = asked_at
        if retry_at is not None:
            task.delay, task.retry_at = 5.0, retry_at
        self._tasks[task] = name
        self.turns.add(task, **place)

    def withdraw(self, task: TaskState) -> str:
        """Make it not due any more; its name."""
        return self._tasks.pop(task)

    def make_due(self, task: TaskState, name: str) -> None:
        self._tasks[task] = name
        self.turns.add(task)

    def tasks(self, names: str) -> list[TaskState]:
        by_name = {name: task for task, name in self._tasks.items()}
        return [by_name[name] for name in names]

    def starts(self, number: int, *, again: str = "") -> list[str]:
        """The names of the tasks that are asked about; those in `again` are due again at once."""
        taken = []
        for at in range(number):
            task = self.turns.take(NOW)
            name = self._tasks.pop(task)
            taken.append(name)
            task.asked_at = NOW + at
            if name in again:
                self.make_due(task, name)
        return taken


def test_the_one_not_asked_for_longest_is_next() -> None:
    due = Due()
    for name, asked_at in (("a", 3.0), ("b", 1.0), ("c", 2.0)):
        due.add(name, asked_at)
    assert due.starts(3) == ["b", "c", "a"]
    assert due.turns.next_at() is None
    with pytest.raises(ValueError, match="no task is due"):
        due.turns.take(NOW)


def test_those_asked_at_the_same_time_keep_their_order_but_for_one_that_keeps_its_turn() -> None:
    due = Due()
    due.add("a", 10.0)
    due.add("b", 10.0)
    due.add("c", 10.0, first=True)
    assert due.starts(3) == ["c", "a", "b"]


def test_those_never_asked_about_come_first_but_not_twice_in_a_row_while_a_healthy_one_is_due() -> None:
    due = Due()
    due.add("c", 9.0)
    due.add("0")
    assert due.starts(2) == ["0", "c"]
    for name in "123":
        due.add(name)
    assert due.starts(1) == ["1"]
    due.add("a", 10.0)
    due.add("b", 11.0)
    assert due.starts(4) == ["2", "a", "3", "b"]


def test_filling_the_queues_again_leaves_out_what_is_no_longer_due() -> None:
    due = Due()
    for name in "abc":
        due.add(name, 10.0)
    due.turns.refill(due.tasks("cb"))
    assert due.starts(2) == ["c", "b"]
    assert due.turns.next_at() is None


def test_tasks_in_back_off_get_every_fifth_start_while_others_are_due() -> None:
    due = Due()
    for name, asked_at in (("a", 10.0), ("b", 11.0), ("c", 12.0)):
        due.add(name, asked_at)
    for asked_at in (1.0, 2.0):
        due.add("x", asked_at, retry_at=50.0)
    assert due.starts(12, again="abc") == [*"xabca", *"xbcab", *"ca"]


@pytest.mark.parametrize(("retry_at", "expected"), [(NOW, ["x", "a"]), (NOW + 0.1, ["a"])])
@pytest.mark.parametrize("asked_at", [10.0, -math.inf])
def test_one_in_back_off_waits_for_its_time_while_another_is_due(
    asked_at: float, retry_at: float, expected: list[str]
) -> None:
    due = Due()
    due.add("a", asked_at)
    due.add("x", 1.0, retry_at=retry_at)
    assert due.turns.next_at() == -math.inf
    assert due.starts(len(expected)) == expected
    if retry_at > NOW:
        assert due.turns.next_at() == retry_at


@pytest.mark.parametrize(("asked_at", "expected"), [(9.9, "x"), (10.0, "a"), (10.1, "a")])
def test_one_in_back_off_goes_first_only_if_it_has_not_been_asked_for_longer(
    asked_at: float, expected: str
) -> None:
    due = Due()
    due.add("a", 10.0)
    due.add("x", asked_at, retry_at=50.0)
    assert due.starts(1) == [expected]


def test_a_task_that_is_queued_again_and_again_is_queued_once() -> None:
    due = Due()
    due.add("a", 1.0)
    (task,) = due.tasks("a")
    references = sys.getrefcount(task)
    for _ in range(100):
        due.turns.add(task)
    assert sys.getrefcount(task) == references
    assert due.starts(2, again="a") == ["a", "a"]


def test_a_task_that_is_due_again_at_the_place_that_it_had_is_not_forgotten() -> None:
    due = Due()
    due.add("a", 1.0)
    (task,) = due.tasks("a")
    name = due.withdraw(task)
    assert due.turns.next_at() is None
    due.make_due(task, name)
    assert due.turns.next_at() == -math.inf
    assert due.starts(1) == ["a"]
