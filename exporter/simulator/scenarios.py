"""What is answered for a simulated task, by its age."""

from __future__ import annotations

import itertools
from collections import UserDict
from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

from exporter.model import Status

NOT_FOUND: Final = 2
FIRST_ADDED_ID: Final = 1001

Number: TypeAlias = float | str
Answer: TypeAlias = tuple[Number, Number] | int
"""A task's progress and status, or the code of an error."""
Scenario: TypeAlias = Callable[[float], Answer]
"""The answer for a task that is so many seconds old."""


class Tasks(UserDict[int, Scenario]):
    """Scenarios by task id. A task's age counts from when it was added or replaced."""

    def __init__(self, clock: Callable[[], float], scenarios: Mapping[int, Scenario]) -> None:
        self._clock = clock
        self._started_at: dict[int, float] = {}
        self._new_ids = itertools.count(FIRST_ADDED_ID)
        super().__init__(scenarios)

    def __setitem__(self, task_id: int, scenario: Scenario) -> None:
        self._started_at[task_id] = self._clock()  # first, as a request may come in between
        super().__setitem__(task_id, scenario)

    def start(self) -> None:
        """Let the age of every task count from now."""
        self._started_at = dict.fromkeys(self, self._clock())

    def add(self, scenario: Scenario) -> int:
        """The id of a new task."""
        task_id = next(number for number in self._new_ids if number not in self)
        self[task_id] = scenario
        return task_id

    def answer(self, task_id: int, at: float) -> Answer:
        """The answer at that moment of the clock."""
        scenario = self.get(task_id)
        return NOT_FOUND if scenario is None else scenario(at - self._started_at[task_id])


def waiting() -> Scenario:
    """Waits to be started, for ever."""
    return lambda _: (0, Status.WAITING)


def completed() -> Scenario:
    """Is completed from the start."""
    return lambda _: (100, Status.COMPLETED)


def missing() -> Scenario:
    """Does not exist: code 2."""
    return lambda _: NOT_FOUND


def stalled(at: int = 50) -> Scenario:
    """Is in progress and never moves from `at` percent."""
    return lambda _: (at, Status.IN_PROGRESS)


def growing(seconds: float, delay: float = 0.0) -> Scenario:
    """Waits for `delay` seconds, grows to 100 percent within `seconds`, and is completed."""

    def scenario(age: float) -> Answer:
        if age < delay:
            return 0, Status.WAITING
        if age < delay + seconds:
            return int(100 * (age - delay) / seconds), Status.IN_PROGRESS
        return 100, Status.COMPLETED

    return scenario


def rejected(after: float = 0.0, at: int = 0) -> Scenario:
    """Grows to `at` percent within `after` seconds, and is rejected there."""
    return lambda age: (int(at * age / after), Status.IN_PROGRESS) if age < after else (at, Status.REJECTED)


def rejected_at(percent: int, scenario: Scenario) -> Scenario:
    """Follows `scenario`, and is rejected when that reaches so many percent."""

    def rejecting(age: float) -> Answer:
        answer = scenario(age)
        if isinstance(answer, tuple) and float(answer[0]) >= percent:
            return percent, Status.REJECTED
        return answer

    return rejecting


def repeating(period: float, scenario: Scenario) -> Scenario:
    """Repeats the first `period` seconds of `scenario`."""
    return lambda age: scenario(age % period)


def flaky(scenario: Scenario, *, code: int = 3, every: float = 60.0, lasting: float = 10.0) -> Scenario:
    """Answers `code` in the last `lasting` of `every` so many seconds, while `scenario` goes on."""
    return lambda age: code if age % every >= every - lasting else scenario(age)


def as_strings(scenario: Scenario) -> Scenario:
    """Answers with numbers in JSON strings, which PHP does now and then."""

    def quoted(age: float) -> Answer:
        answer = scenario(age)
        return answer if isinstance(answer, int) else (str(answer[0]), str(answer[1]))

    return quoted
