"""The numbers at the top of the dashboards of tasks: what is wrong, and how many tasks are in which state."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from dashboards import expressions as promql
from dashboards.expressions import ACCOUNT
from dashboards.panels import Head, Query, override, stat_panel, thresholds

if TYPE_CHECKING:
    from grafana_foundation_sdk.models import dashboard

NOT_COUNTS: Final = {
    str(promql.NONE_KNOWN): ("none known", "gray"),
    str(promql.EXPORTER_DOWN): ("exporter down", "red"),
}


def alarms() -> list[dashboard.Panel]:
    """What is wrong; green only where each task is known not to be."""
    none_known = "None known: some task has not been read, the API is unavailable, or the exporter is down."
    panels = [
        ("Rejected", "Tasks that Mobizon will not carry out.", promql.count_of(_has_status(3)), "red"),
        (
            "Stalled",
            (
                "Tasks in progress whose readings have shown the same progress for half an hour. "
                "While a task has not moved since its first reading, and that is more recent, none is known."
            ),
            promql.count_of_stalled(),
            "orange",
        ),
        (
            "Failing",
            (
                "Tasks whose last request failed or that Mobizon does not know. While the API is unavailable "
                "for an account: all of its active tasks, whichever are chosen above."
            ),
            promql.count_of_failing(),
            "orange",
        ),
    ]
    return [
        stat_panel(
            Head(title, f"{description} {none_known}"),
            Query(expr, instant=True),
            steps=thresholds((0, "green"), (1, color)),
            mappings=NOT_COUNTS,
            on_background=True,
        )
        for title, description, expr, color in panels
    ]


def _has_status(status: int) -> str:
    return f"{promql.metric('status')} == {status}"


def counts() -> list[dashboard.Panel]:
    """How many tasks are on their way, and how many have come to an end."""
    panels = [
        ("In progress", "Tasks that Mobizon is carrying out.", 1, "dark-yellow"),
        ("Waiting", "Tasks that Mobizon has not begun.", 0, "blue"),
    ]
    stats = [
        stat_panel(
            Head(title, description),
            Query(promql.count_of(_has_status(status)), instant=True),
            steps=thresholds((0, "text"), (1, color)),
            mappings=NOT_COUNTS,
        )
        for title, description, status, color in panels
    ]
    return [*stats, _finished()]


def _finished() -> dashboard.Panel:
    def seen(status: str) -> Query:
        counter = f'mobizon_tasks_finished_total{{{ACCOUNT}, status="{status}"}}'
        return Query(f"round(sum(increase({counter}[$__range])))", status, instant=True)

    panel = stat_panel(
        Head("Finished", "Tasks of the accounts chosen that were seen to finish in the time shown above."),
        seen("completed"),
        seen("rejected"),
        steps=thresholds((0, "text"), (1, "green")),
    )
    red = {"mode": "absolute", "steps": [{"color": "gray", "value": None}, *_steps((0, "text"), (1, "red"))]}
    return override(panel, {"rejected": {"thresholds": red}})


def _steps(*steps: tuple[float, str]) -> list[dict[str, object]]:
    return [{"color": color, "value": value} for value, color in steps]
