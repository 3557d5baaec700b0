"""The series of tasks, as text: of ten thousand tasks few change between two scrapes, so lines are kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from exporter.metrics.text import header, label_text, sample

if TYPE_CHECKING:
    from exporter.model import AccountView, TaskView

    Lines = dict[str, str]  # by family, where the task has a series of it
    Kept = tuple[TaskView, str, Lines]  # a view, its labels as text, and its lines

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
    """Renders views of tasks; a view that is the very one of last time is not formatted again."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str | None, int], Kept] = {}

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
                self._kept[key] = _rendered(account.name, view, kept.get(key))
        rows = [lines for _, _, lines in self._kept.values()]
        parts: list[str] = []
        for name, documentation in FAMILIES.items():
            parts.append(header(name, "gauge", documentation, openmetrics=False))
            parts.extend(row[name] for row in rows if name in row)
        return "".join(parts)


def _rendered(account: str | None, view: TaskView, kept: Kept | None) -> Kept:
    """A view with its lines: those of last time if it is the same, else made of what is the same."""
    if kept and kept[0] is view:
        return kept
    labels = kept[1] if kept and kept[0].spec is view.spec else label_text(_labels(account, view))
    return view, labels, _lines(account, view, labels)


def _lines(account: str | None, view: TaskView, labels: str) -> Lines:
    lines: Lines = {}
    if view.reading and not view.stale:
        lines[PROGRESS] = sample(PROGRESS, labels, view.reading.progress)
        lines[STATUS] = sample(STATUS, labels, view.reading.status)
    if view.reading or view.failure:
        lines[UP] = sample(UP, labels, 0 if view.failure else 1)
    if view.failure:
        reason = {"reason": view.failure.reason.value}
        lines[ERROR] = sample(ERROR, label_text(_labels(account, view) | reason), 1)
    if view.reading:
        lines[LAST_SUCCESS] = sample(LAST_SUCCESS, labels, view.reading.taken_at)
        lines[LAST_CHANGE] = sample(LAST_CHANGE, labels, view.changed_at)
    return lines


def _labels(account: str | None, view: TaskView) -> dict[str, str]:
    labels = dict(view.spec.labels) | {"task_id": str(view.spec.id)}
    if view.spec.name:
        labels["name"] = view.spec.name
    if account:
        labels["account"] = account
    return labels
