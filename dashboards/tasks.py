"""Mobizon / Tasks: what a campaign operator looks at."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from dashboards import lib
from dashboards.lib import ACCOUNT, TASK, Grid
from dashboards.panels import (
    STATUSES,
    Head,
    Query,
    bar_panel,
    graph_panel,
    painted,
    stat_panel,
    table_panel,
    thresholds,
    timeline_panel,
    value_map,
)

if TYPE_CHECKING:
    from grafana_foundation_sdk.models import dashboard

# Two instances may show the same task for a while; stray labels would split rows.
BY: Final = "account, task_id, name"
LEGEND: Final = "{{task_id}} {{name}} {{account}}"

STATUS: Final = f"max by ({BY}) (mobizon_task_status{{{TASK}}})"
PROGRESS: Final = f"max by ({BY}) (mobizon_task_progress{{{TASK}}})"
LAST_SUCCESS: Final = f"max by ({BY}) (mobizon_task_last_success_timestamp_seconds{{{TASK}}})"
LAST_CHANGE: Final = f"max by ({BY}) (mobizon_task_last_change_timestamp_seconds{{{TASK}}})"
# Percent a second of the tasks that move. Not `rate`: progress is a gauge.
SPEED: Final = f"(deriv(mobizon_task_progress{{{TASK}}}[15m]) > 0) and mobizon_task_status{{{TASK}}} == 1"
ETA: Final = f"max by ({BY}) ((100 - mobizon_task_progress{{{TASK}}}) / ({SPEED}))"
# Finished tasks are asked for no more, so their readings only grow older.
AGE: Final = f"time() - ({LAST_SUCCESS} unless {STATUS} >= 2 <= 3)"
STALLED: Final = f"({LAST_SUCCESS} - {LAST_CHANGE} >= 1800) and {STATUS} == 1"
ERROR: Final = f"max by ({BY}, reason) (mobizon_task_error{{{TASK}}})"

COLORS: Final = {
    "waiting": "blue",
    "in_progress": "yellow",
    "completed": "green",
    "rejected": "red",
    "not_found": "purple",
    "unknown": "gray",
}

STATUS_CELL: Final[dict[str, object]] = {
    "mappings": value_map(STATUSES),
    "custom.displayMode": "color-background-solid",
}


def board() -> dashboard.Dashboard:
    """The dashboard, ready to be written."""
    grid = Grid()
    grid.add(3, 4, *_stats())
    grid.add(12, 10, _bars(), _table(), *_history())
    grid.add(24, 8, _queue())
    grid.collapsed("Speed", 24, 8, _speed())
    grid.collapsed("No longer listed", 24, 8, _gone())
    return lib.board(
        "mobizon-tasks",
        Head("Mobizon / Tasks", "Background tasks of Mobizon's SMS platform: state, progress, time left."),
        other=("Exporter and API", "mobizon-exporter"),
        grid=grid,
        with_task=True,
    )


def _count(condition: str) -> Query:
    """Zero where no task is so, but nothing at all where the exporter gives nothing."""
    return Query(f"count({condition}) or 0 * max(mobizon_tasks{{{ACCOUNT}}})", instant=True)


def _stats() -> list[dashboard.Panel]:
    bad = thresholds((None, "green"), (1, "red"))
    warn = thresholds((None, "green"), (1, "orange"))
    old = thresholds((None, "green"), (600, "orange"), (1200, "red"))
    return [
        stat_panel(
            Head("Rejected", "Tasks that Mobizon will not carry out."),
            _count(f"{STATUS} == 3"),
            steps=bad,
            on_background=True,
        ),
        stat_panel(
            Head(
                "Stalled",
                "Tasks in progress whose readings have shown the same progress for half an hour.",
            ),
            _count(STALLED),
            steps=warn,
            on_background=True,
        ),
        stat_panel(
            Head("In progress", "Tasks that Mobizon is carrying out."),
            _count(f"{STATUS} == 1"),
            steps=thresholds((None, "yellow")),
        ),
        stat_panel(
            Head("Waiting", "Tasks that Mobizon has not begun."),
            _count(f"{STATUS} == 0"),
            steps=thresholds((None, "blue")),
        ),
        stat_panel(
            Head("Completed", "Tasks that are done."),
            _count(f"{STATUS} == 2"),
            steps=thresholds((None, "green")),
        ),
        stat_panel(
            Head("Mean progress", "Of all tasks that have been read.", "percent"),
            Query(f"avg({PROGRESS})", instant=True),
        ),
        stat_panel(
            Head(
                "Last one done in",
                "The longest time left of the tasks in progress, if each goes on as in the last 15 minutes. "
                "Tasks that wait or stand still are not counted.",
                "s",
            ),
            Query(f"max({ETA})", instant=True),
        ),
        stat_panel(
            Head(
                "Oldest data",
                "Age of the oldest reading of a task that is not finished. "
                "With one request a second and N tasks, N seconds are normal.",
                "s",
            ),
            Query(f"max({AGE})", instant=True),
            steps=old,
        ),
    ]


def _bars() -> dashboard.Panel:
    return bar_panel(
        Head("Progress", "How far each task is, the least advanced first.", "percent"),
        Query(f"sort({PROGRESS})", LEGEND, instant=True),
    )


def _history() -> list[dashboard.Panel]:
    return [
        timeline_panel(
            Head(
                "Status over time",
                "The state of each task. With hundreds of tasks choose some above.",
                "none",
            ),
            Query(STATUS, LEGEND),
            value_map(STATUSES),
        ),
        graph_panel(
            Head("Progress over time", "A line that lies flat is a task that does not move.", "percent"),
            [Query(PROGRESS, LEGEND)],
            maximum=100,
            many=True,
        ),
    ]


def _queue() -> dashboard.Panel:
    panel = graph_panel(
        Head(
            "Queue over time",
            "Tasks on the list by state, whatever tasks are chosen above. Not found: Mobizon does not know "
            "the id. Unknown: not read yet, or in a state that Mobizon does not document.",
        ),
        [Query(f"sum by (status) (mobizon_tasks{{{ACCOUNT}}})", "{{status}}")],
        stacked=True,
    )
    return painted(panel, COLORS)


def _speed() -> dashboard.Panel:
    return graph_panel(
        Head("Speed", "Percent a minute of the tasks in progress, over the last 15 minutes.", "percent"),
        [Query(f"60 * max by ({BY}) ({SPEED})", LEGEND)],
        many=True,
    )


def _link(title: str, query: str) -> dict[str, object]:
    url = f"/d/mobizon-tasks?${{datasource:queryparam}}&${{__url_time_range}}&{query}"
    return {"title": title, "url": url, "targetBlank": False}


def _table() -> dashboard.Panel:
    queries = [Query(expr, instant=True, as_table=True) for expr in (STATUS, PROGRESS, ETA, AGE, ERROR)]
    account_links = [
        _link("This account alone", "var-account=${__value.raw:percentencode}&var-task=$__all"),
        _link("All accounts", "var-account=$__all&var-task=$__all"),
    ]
    return table_panel(
        Head(
            "Tasks",
            "Every task that has been read or has failed. A click on the id shows that task alone, one "
            "on the account all of its tasks. The time left is a guess from the last 15 minutes.",
            "none",
        ),
        queries,
        columns={
            "task_id": "Task",
            "name": "Name",
            "account": "Account",
            "Value #A": "Status",
            "Value #B": "Progress",
            "Value #C": "Time left",
            "Value #D": "Age",
            "reason": "Error",
        },
        formats={
            "Task": {
                "links": [_link("This task alone", "var-task=${__value.raw}")],
                "custom.width": 90,
            },
            "Account": {"links": account_links},
            "Status": STATUS_CELL | {"custom.width": 110},
            "Progress": {
                "unit": "percent",
                "min": 0,
                "max": 100,
                "color": {"mode": "fixed", "fixedColor": "blue"},
                "custom.displayMode": "basic",
            },
            "Time left": {"unit": "s", "custom.width": 110},
            "Age": {"unit": "s", "custom.width": 100},
            "Error": {
                "custom.displayMode": "color-text",
                "color": {"mode": "fixed", "fixedColor": "red"},
            },
        },
        sort_by="Status",
    )


def _gone() -> dashboard.Panel:
    def last(metric: str) -> str:
        known = f"max by ({BY}) (last_over_time({metric}{{{TASK}}}[$__range]))"
        return f"({known} unless on (account, task_id) mobizon_task_up{{{TASK}}})"

    expressions = (
        last("mobizon_task_status"),
        last("mobizon_task_progress"),
        f"1000 * {last('mobizon_task_last_success_timestamp_seconds')}",
    )
    return table_panel(
        Head(
            "No longer listed",
            "Tasks that were read in the time shown above and are not on the list now, with the last that "
            "was known of them. Empty where none has been taken off.",
            "none",
        ),
        [Query(expr, instant=True, as_table=True) for expr in expressions],
        columns={
            "task_id": "Task",
            "name": "Name",
            "account": "Account",
            "Value #A": "Last status",
            "Value #B": "Last progress",
            "Value #C": "Last reading",
        },
        formats={
            "Last status": STATUS_CELL,
            "Last progress": {"unit": "percent"},
            "Last reading": {"unit": "dateTimeAsIso"},
        },
        sort_by="Last reading",
    )
