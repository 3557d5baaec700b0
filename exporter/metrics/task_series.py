"""The series of tasks, as text: of ten thousand tasks few change between two scrapes, so lines are kept.

The text is what prometheus_client's `generate_latest` makes of gauges, and the same in the text format and
in OpenMetrics.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from prometheus_client.utils import floatToGoString

if TYPE_CHECKING:
    from exporter.model import AccountView, TaskView

    Lines = tuple[str, ...]
    Kept = tuple[TaskView, str, Lines]  # a view, its labels as text, and its lines

FAMILIES: Final = (
    ("mobizon_task_progress", "Progress of the task in percent, as Mobizon reports it."),
    ("mobizon_task_status", "Status of the task: 0 waiting, 1 in progress, 2 completed, 3 rejected."),
    ("mobizon_task_up", "Whether the last request for the task was answered with a reading."),
    ("mobizon_task_error", "Why the last request for the task has failed."),
    ("mobizon_task_last_success_timestamp_seconds", "When the task's reading was taken, in Unix time."),
    (
        "mobizon_task_last_change_timestamp_seconds",
        "When the task's progress or status last changed, in Unix time.",
    ),
)


class TaskSeries:
    """Renders views of tasks; a view that is the very one of last time is not formatted again."""

    def __init__(self) -> None:
        self._known: dict[tuple[str | None, int], Kept] = {}

    def render(self, accounts: tuple[AccountView, ...]) -> str:
        """Every family with its series, such as these.

        # HELP mobizon_task_progress Progress of the task in percent, as Mobizon reports it.
        # TYPE mobizon_task_progress gauge
        mobizon_task_progress{name="spring-sale",task_id="124",team="crm"} 45.0
        mobizon_task_error{name="spring-sale",reason="timeout",task_id="124",team="crm"} 1.0
        """
        known, self._known = self._known, {}
        for account in accounts:
            for view in account.tasks:
                key = (account.name, view.spec.id)
                self._known[key] = _rendered(account.name, view, known.get(key))
        rows = [lines for _, _, lines in self._known.values()]
        parts: list[str] = []
        for at, (name, documentation) in enumerate(FAMILIES):
            parts.append(f"# HELP {name} {documentation}\n# TYPE {name} gauge\n")
            parts.extend(row[at] for row in rows)
        return "".join(parts)


def _rendered(account: str | None, view: TaskView, kept: Kept | None) -> Kept:
    """A view with its lines: those of last time if it is the same, else made of what is the same."""
    if kept and kept[0] is view:
        return kept
    inside = kept[1] if kept and kept[0].spec is view.spec else _inside(_labels(account, view))
    return view, inside, _lines(account, view, inside)


def _lines(account: str | None, view: TaskView, inside: str) -> Lines:
    """A line for each family, or nothing where the task has no such series."""
    values: list[float | None] = [None] * len(FAMILIES)
    if view.reading and not view.stale:
        values[0], values[1] = view.reading.progress, view.reading.status
    if view.reading or view.failure:
        values[2] = 0 if view.failure else 1
    if view.reading:
        values[4], values[5] = view.reading.taken_at, view.changed_at
    lines = [
        "" if value is None else f"{name}{{{inside}}} {floatToGoString(value)}\n"  # type: ignore[no-untyped-call] # the library's
        for (name, _), value in zip(FAMILIES, values, strict=True)
    ]
    if view.failure:
        labels = _labels(account, view) | {"reason": view.failure.reason.value}
        lines[3] = f"{FAMILIES[3][0]}{{{_inside(labels)}}} 1.0\n"
    return tuple(lines)


def _labels(account: str | None, view: TaskView) -> dict[str, str]:
    labels = dict(view.spec.labels) | {"task_id": str(view.spec.id)}
    if view.spec.name:
        labels["name"] = view.spec.name
    if account:
        labels["account"] = account
    return labels


def _inside(labels: dict[str, str]) -> str:
    """What stands between the braces."""
    return ",".join(f'{name}="{_escaped(value)}"' for name, value in sorted(labels.items()))


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
