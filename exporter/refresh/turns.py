"""Whose turn it is among the tasks that are due."""

from __future__ import annotations

import enum
import heapq
import itertools
import math
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from exporter.refresh.task import TaskState

HEALTHY_STARTS: Final = 4  # between two starts of tasks in back-off, while a healthy task is due


class _Kind(enum.IntEnum):
    """The indexes of the queues; the key by which each is sorted is that of `_place`."""

    NEVER_ASKED = 0
    HEALTHY = 1
    BACKING_OFF = 2


class Turns:
    """Queues of the tasks that are due.

    A task that is no longer due, or has been queued anew, leaves a queue when it comes to the head of it.
    """

    def __init__(self, is_due: Callable[[TaskState], bool]) -> None:
        self._is_due = is_due
        self._count = itertools.count(1)
        self._queues: list[list[tuple[float, int, TaskState]]] = [[] for _ in _Kind]
        self._places: dict[TaskState, tuple[_Kind, float]] = {}  # at which each was queued last
        self._healthy_starts = HEALTHY_STARTS  # since the last of a task in back-off
        self._never_asked_preferred = False  # by the last start, to a healthy task

    def refill(self, tasks: Iterable[TaskState]) -> None:
        """Queue those of the tasks that are due, and no others."""
        for queue in self._queues:
            queue.clear()
        self._places.clear()
        for task in filter(self._is_due, tasks):
            kind, key = self._places[task] = _place(task)
            self._queues[kind].append((key, next(self._count), task))
        for queue in self._queues:
            queue.sort()  # faster than heapify, as most have kept their order

    def add(self, task: TaskState, *, first: bool = False) -> None:
        """Queue a task if it is due; `first` among those that have waited as long."""
        place = _place(task)
        if self._is_due(task) and self._places.get(task) != place:
            kind, key = self._places[task] = place
            count = next(self._count)
            heapq.heappush(self._queues[kind], (key, -count if first else count, task))

    def next_at(self) -> float | None:
        """When the next task may be asked about: any time for a healthy one; None if none is due."""
        if self._first(_Kind.NEVER_ASKED) or self._first(_Kind.HEALTHY):
            return -math.inf
        failing = self._first(_Kind.BACKING_OFF)
        return failing.retry_at if failing else None

    def take(self, now: float) -> TaskState:
        """The task to ask about; only if `next_at` has come."""
        never, healthy = self._first(_Kind.NEVER_ASKED), self._first(_Kind.HEALTHY)
        failing = self._first(_Kind.BACKING_OFF)
        if failing and (never or healthy):
            its_turn = healthy is None or failing.asked_at < healthy.asked_at
            if failing.retry_at > now or self._healthy_starts < HEALTHY_STARTS or not its_turn:
                failing = None
        task = failing or (healthy if healthy and self._never_asked_preferred else never or healthy)
        if task is None:
            raise ValueError("no task is due")
        self._healthy_starts = 0 if task is failing else self._healthy_starts + 1
        self._never_asked_preferred = task is never and healthy is not None
        return task

    def _first(self, kind: _Kind) -> TaskState | None:
        queue = self._queues[kind]
        while queue:
            key, _, task = queue[0]
            if _place(task) == (kind, key) and self._is_due(task):
                return task
            heapq.heappop(queue)
            if self._places.get(task) == (kind, key):
                del self._places[task]
        return None


def _place(task: TaskState) -> tuple[_Kind, float]:
    """The queue of a task and its key there; the lowest key is the first."""
    if task.delay > 0:
        return _Kind.BACKING_OFF, task.retry_at
    if task.asked_at == -math.inf:
        return _Kind.NEVER_ASKED, task.asked_at
    return _Kind.HEALTHY, task.asked_at
