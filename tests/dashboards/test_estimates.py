"""How good "Ready at" is: campaigns of tasks that change their speed and pause, against when they end."""

from __future__ import annotations

import bisect
import random
import statistics
from typing import TYPE_CHECKING

import pytest

from dashboards import expressions
from tests.support import promql, recorded
from tests.support.grafana import ALL
from tests.support.recorded import END, Account, Exporter, Task

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.recorded import History

pytestmark = pytest.mark.prometheus

TASKS = 40
MINUTE, HOUR = 60.0, 3600.0
LASTING = 10 * HOUR
"""A campaign's tasks are all done by then."""


class Course:
    """How one task goes: it waits, and goes on at a speed that changes every few minutes, with pauses."""

    def __init__(self, source: random.Random) -> None:
        usual = min(max(source.lognormvariate(0, 0.7) * 90 * MINUTE, 15 * MINUTE), 6 * HOUR)
        self.times, self.percents = [source.uniform(0, 20 * MINUTE)], [0.0]
        while self.percents[-1] < 100:
            if source.random() < 0.15:
                self._go_on(source.uniform(1, 8) * MINUTE, 0)
            self._go_on(source.uniform(3, 12) * MINUTE, 100 / usual * source.lognormvariate(-0.08, 0.4))
        self.begun, self.done = self.times[0], self.times[-1]

    def _go_on(self, seconds: float, speed: float) -> None:
        at = self.percents[-1]
        if at + speed * seconds >= 100:
            seconds, at = (100 - at) / speed, 100.0
        else:
            at += speed * seconds
        self.times.append(self.times[-1] + seconds)
        self.percents.append(at)

    def at(self, time: float) -> tuple[int, int]:
        """Progress in whole percents, and status, so many seconds after the campaign's start."""
        if time < self.begun:
            return 0, 0
        if time >= self.done:
            return 100, 2
        after = bisect.bisect(self.times, time)
        (begin, end), (low, high) = self.times[after - 1 : after + 1], self.percents[after - 1 : after + 1]
        return int(low + (high - low) * (time - begin) / (end - begin)), 1


def _history(course: Course, age: float) -> History:
    """What readings show that are so many seconds old."""
    return lambda before: course.at(LASTING - before - age)


def _errors(courses: list[Course], estimates: dict[int, list[tuple[float, float]]]) -> Iterator[float]:
    """Of every minute after a tenth of the way and until the last: the error of the time left."""
    for number, course in enumerate(courses):
        for time, ready in estimates[number]:
            left = course.done - time
            if time >= course.begun + (course.done - course.begun) / 10 and left >= MINUTE:
                yield abs(ready - course.done) / left


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_the_time_left_of_a_campaign_is_a_quarter_off_at_most_by_the_median(
    tmp_path: Path, seed: int
) -> None:
    source = random.Random(seed)
    courses = [Course(source) for _ in range(TASKS)]
    assert max(course.done for course in courses) < LASTING
    # One request a second: readings of forty tasks are up to forty seconds old.
    tasks = [Task(number, _history(course, number)) for number, course in enumerate(courses)]
    samples = recorded.Samples()
    recorded.record(samples, Exporter("mobizon", [Account(tasks)], watched=LASTING))
    query = promql.filled(expressions.ready_at(), ALL)
    start = END - LASTING
    with recorded.prometheus(tmp_path, samples) as server:
        found = server.query_range(query, start, END, MINUTE)
    estimates = {
        int(series["metric"]["task_id"]): [
            (time - start, float(ready) / 1000 - start) for time, ready in series["values"]
        ]
        for series in found
    }
    errors = list(_errors(courses, estimates))
    minutes = sum((course.done - course.begun) * 0.9 / MINUTE for course in courses)
    print(
        f"seed {seed}: median error {statistics.median(errors):.3f},"
        f" {sum(error < 0.25 for error in errors) / len(errors):.0%} within a quarter,"
        f" {len(errors) / minutes:.0%} of the way with an estimate"
    )
    assert len(errors) / minutes > 0.9
    assert statistics.median(errors) < 0.25
