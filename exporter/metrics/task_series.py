"""The series of tasks, as text: of ten thousand tasks few change between two scrapes, so lines are kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from exporter.metrics.text import header, sample, series

if TYPE_CHECKING:
    from exporter.model import AccountView, TaskView

    Line = tuple[str, float, str]  # a series, its value, and both as text
    Lines = dict[str, Line]  # by family, where the task has a series of it

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


class TaskSeries:
    """Renders views of tasks; what is the same as last time is not formatted again."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str | None, int], tuple[TaskView, Lines]] = {}

    def render(self, accounts: tuple[AccountView, ...]) -> str:
        """Every family with its series, such as these.

        # HELP mobizon_task_error Why the last request failed; always 1.
        # TYPE mobizon_task_error gauge
        mobizon_task_error{name="spring-sale",reason="timeout",task_id="124",team="crm"} 1.0
        """
        kept, self._kept = self._kept, {}
        for account in accounts:
            for view in account.tasks:
                key = (account.name, view.spec.id)
                known = kept.get(key)
                if known is None or known[0] is not view:
                    same_labels = known is not None and known[0].spec is view.spec
                    known = view, _lines(account.name, view, known[1] if known and same_labels else {})
                self._kept[key] = known
        rows = [lines for _, lines in self._kept.values()]
        parts: list[str] = []
        for name, documentation in FAMILIES.items():
            parts.append(header(name, "gauge", documentation, openmetrics=False))
            parts.extend(row[name][2] for row in rows if name in row)
        return "".join(parts)


def _lines(account: str | None, view: TaskView, before: Lines) -> Lines:
    """The lines of a view; those of before where they are the same."""
    lines: Lines = {}
    for name, value in _values(view).items():
        known = before.get(name)
        if known is None or known[1] != value:
            text = known[0] if known else series(name, _labels(account, view))
            known = text, value, sample(text, value)
        lines[name] = known
    if view.failure:
        text = series(ERROR, _labels(account, view) | {"reason": view.failure.reason.value})
        lines[ERROR] = text, 1, sample(text, 1)
    return lines


def _values(view: TaskView) -> dict[str, float]:
    """The values of all families but ERROR."""
    reading, up = view.reading, 0 if view.failure else 1
    if reading is None:
        return {UP: up} if view.failure else {}
    read = {UP: up, LAST_SUCCESS: reading.taken_at, LAST_CHANGE: view.changed_at}
    return read if view.stale else read | {PROGRESS: reading.progress, STATUS: reading.status}


def _labels(account: str | None, view: TaskView) -> dict[str, str]:
    labels = dict(view.spec.labels) | {"task_id": str(view.spec.id)}
    if view.spec.name:
        labels["name"] = view.spec.name
    if account:
        labels["account"] = account
    return labels
