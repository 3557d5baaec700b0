"""The series of tasks, as text: of ten thousand tasks few change between two scrapes, so lines are kept."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Final

from exporter.metrics.text import header, label_set, sample

if TYPE_CHECKING:
    from collections.abc import Iterator

    from exporter.model import AccountView, TaskView
    from exporter.slices import Steps

    Block = list[bytes]  # the lines of some tasks, by family

STEP: Final = 50  # tasks whose lines are joined at one go
PROGRESS: Final = "mobizon_task_progress"
STATUS: Final = "mobizon_task_status"
UP: Final = "mobizon_task_up"
ERROR: Final = "mobizon_task_error"
LAST_SUCCESS: Final = "mobizon_task_last_success_timestamp_seconds"
LAST_CHANGE: Final = "mobizon_task_last_change_timestamp_seconds"
FAMILIES: Final = {
    PROGRESS: "Progress in percent, as of the last reading.",
    STATUS: "Status as of the last reading: 0 waiting, 1 in progress, 2 completed, 3 rejected.",
    UP: "Whether the last request brought a reading.",
    ERROR: "Why the last request failed; always 1.",
    LAST_SUCCESS: "Unix time of the last reading.",
    LAST_CHANGE: "Unix time of the last change of progress or status.",
}
_NO_VALUES: Final = (None,) * len(FAMILIES)
_NO_LINES: Final = [""] * len(FAMILIES)


class TaskSeries:
    """Renders views of tasks; what is the same as last time is not formatted again."""

    def __init__(self) -> None:
        self._accounts: dict[str | None, _Account] = {}

    def render(self, accounts: tuple[AccountView, ...]) -> Steps[list[bytes]]:
        """Every family with its series, in pieces, such as these.

        # HELP mobizon_task_error Why the last request failed; always 1.
        # TYPE mobizon_task_error gauge
        mobizon_task_error{name="spring-sale",reason="timeout",task_id="124",team="crm"} 1.0
        """
        kept, self._accounts = self._accounts, {}
        families = [
            [header(name, "gauge", documentation, openmetrics=False).encode()]
            for name, documentation in FAMILIES.items()
        ]
        for account in accounts:
            known = self._accounts[account.name] = kept.get(account.name) or _Account(account.name)
            for block in known.blocks(account.tasks):
                for pieces, piece in zip(families, block, strict=True):
                    pieces.append(piece)
                yield
        return list(chain.from_iterable(families))


class _Account:
    """What is kept of the tasks of an account."""

    def __init__(self, name: str | None) -> None:
        self._name = name
        self._blocks: dict[int, tuple[tuple[TaskView, ...], Block]] = {}  # by the place of the first
        self._tasks: dict[int, _Task] = {}

    def blocks(self, tasks: tuple[TaskView, ...]) -> Iterator[Block]:
        """The lines of every STEP tasks."""
        kept, self._blocks = self._blocks, {}
        for at in range(0, len(tasks), STEP):
            known, views = kept.get(at), tasks[at : at + STEP]
            if known is None or known[0] != views:
                lines = zip(*map(self._lines, views), strict=True)
                known = views, ["".join(family).encode() for family in lines]
            self._blocks[at] = views, known[1]  # the present views: the same ones are compared at once
            yield known[1]
        if len(self._tasks) > len(tasks):  # some have left
            self._tasks = {view.spec.id: self._tasks[view.spec.id] for view in tasks}

    def _lines(self, view: TaskView) -> list[str]:
        known = self._tasks.get(view.spec.id)
        if known is None or known.view is not view:
            known = self._tasks[view.spec.id] = _task(self._name, view, known)
        return known.lines


@dataclass(slots=True)
class _Task:
    """What is kept of a task; `values` and `lines` have a place for each family, None or "" without a series.

    ERROR's value is the reason.
    """

    view: TaskView
    labels: str
    values: tuple[float | str | None, ...]
    lines: list[str]


def _task(account: str | None, view: TaskView, before: _Task | None) -> _Task:
    """A view with its lines; those of before where they are the same."""
    labels = before.labels if before and before.view.spec is view.spec else label_set(_labels(account, view))
    if before is None or before.labels != labels:
        before = _Task(view, labels, _NO_VALUES, _NO_LINES)
    values, lines = _values(view), list(before.lines)
    for at, name in enumerate(FAMILIES):
        if values[at] != before.values[at]:
            lines[at] = _line(account, view, name, labels, values[at])
    return _Task(view, labels, values, lines)


def _line(account: str | None, view: TaskView, name: str, labels: str, value: float | str | None) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return sample(name + label_set(_labels(account, view) | {"reason": value}), 1)
    return sample(name + labels, value)


def _values(view: TaskView) -> tuple[float | str | None, ...]:
    """The values of all families."""
    reading, failure = view.reading, view.failure
    up, reason = (0, failure.reason.value) if failure else (1, None)
    if reading is None:
        return (None, None, up if failure else None, reason, None, None)
    progress, status = (None, None) if view.stale else (reading.progress, reading.status)
    return (progress, status, up, reason, reading.taken_at, view.changed_at)


def _labels(account: str | None, view: TaskView) -> dict[str, str]:
    labels = dict(view.spec.labels) | {"task_id": str(view.spec.id)}
    if view.spec.name:
        labels["name"] = view.spec.name
    if account:
        labels["account"] = account
    return labels
