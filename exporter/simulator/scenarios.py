"""How simulated tasks live: what is said of one when it is so many seconds old."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

from exporter.model import Status

NOT_FOUND: Final = 2

Number: TypeAlias = float | str
Answer: TypeAlias = tuple[Number, Number] | int
"""What is said of a task: its progress and status, or the code of an error."""
Life: TypeAlias = Callable[[float], Answer]
"""How a task lives: what is said of it when it is that many seconds old."""


def waiting() -> Life:
    """Waits to be started, for ever."""
    return lambda _: (0, Status.WAITING)


def completed() -> Life:
    """Was done before anybody asked."""
    return lambda _: (100, Status.COMPLETED)


def missing() -> Life:
    """Does not exist: code 2."""
    return lambda _: NOT_FOUND


def stalled(at: int = 50) -> Life:
    """Is in progress and never moves from `at` percent."""
    return lambda _: (at, Status.IN_PROGRESS)


def growing(seconds: float, delay: float = 0.0) -> Life:
    """Waits for `delay` seconds, grows to 100 percent within `seconds`, and is completed."""

    def life(age: float) -> Answer:
        if age < delay:
            return 0, Status.WAITING
        if age < delay + seconds:
            return int(100 * (age - delay) / seconds), Status.IN_PROGRESS
        return 100, Status.COMPLETED

    return life


def rejected(after: float = 0.0, at: int = 0) -> Life:
    """Grows to `at` percent within `after` seconds, and is rejected there."""
    return lambda age: (int(at * age / after), Status.IN_PROGRESS) if age < after else (at, Status.REJECTED)


def repeating(period: float, life: Life) -> Life:
    """Lives the first `period` seconds of `life` again and again."""
    return lambda age: life(age % period)


def flaky(life: Life, *, code: int = 3, every: float = 60.0, lasting: float = 10.0) -> Life:
    """Answers `code` in the last `lasting` of `every` so many seconds, and lives on meanwhile."""
    return lambda age: code if age % every >= every - lasting else life(age)


def as_strings(life: Life) -> Life:
    """Says its numbers as JSON strings, which PHP does now and then."""

    def said(age: float) -> Answer:
        answer = life(age)
        return answer if isinstance(answer, int) else (str(answer[0]), str(answer[1]))

    return said
