"""Mobizon / Tasks: what a campaign operator looks at."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from dashboards import expressions as promql
from dashboards import lib
from dashboards.expressions import ACCOUNT, TASK
from dashboards.lib import Grid
from dashboards.panels import STATUSES, Head, Look, Query, graph_panel, painted, timeline_panel, value_map
from dashboards.task_stats import alarms, counts
from dashboards.task_tables import ALERTS, alert_table, gone_table, task_table

if TYPE_CHECKING:
    from grafana_foundation_sdk.models import dashboard

LEGEND: Final = "{{task_id}} {{name}} {{account}}"
COLORS: Final = {
    "waiting": "blue",
    "in_progress": "dark-yellow",
    "completed": "green",
    "rejected": "red",
    "not_found": "purple",
    "unknown": "gray",
}


def board() -> dashboard.Dashboard:
    """The dashboard; its first screen, of 1600 by 900 pixels, ends with the table."""
    grid = Grid()
    grid.add(4, 3, *alarms(), *counts())
    grid.add(24, 17, task_table())
    grid.add(14, 10, _progress())
    grid.add(10, 10, _queue())
    grid.add(24, 14, _timeline())
    grid.collapsed("Outcomes", 12, 8, *_outcomes())
    grid.collapsed("Alerts", 24, 8, alert_table())
    grid.collapsed("Speed", 24, 8, _speed())
    grid.collapsed("No longer listed", 24, 8, gone_table())
    return lib.board(
        lib.TASKS,
        Head("Mobizon / Tasks", "Background tasks of Mobizon's SMS platform: state, progress, time left."),
        others=(lib.EXPORTER, lib.PHONE),
        grid=grid,
        marks=_marks(),
    )


def phone_board() -> dashboard.Dashboard:
    """Grafana puts all panels one below the other on a phone, and there six numbers would fill the screen."""
    grid = Grid()
    grid.add(8, 3, *alarms())
    grid.add(24, 17, task_table(on_phone=True))
    return lib.board(
        lib.PHONE,
        Head("Mobizon / Tasks on a phone", "Is anything wrong, and when will mine be ready?"),
        others=(lib.TASKS,),
        grid=grid,
    )


def _progress() -> dashboard.Panel:
    return graph_panel(
        Head(
            "Progress over time",
            "The 15 tasks that are the most urgent now, of those chosen above. "
            "A line that lies flat is a task that does not move.",
            "percent",
        ),
        Query(promql.most_urgent(15, f"mobizon_task_progress{{{TASK}}}"), LEGEND),
        look=Look(maximum=100, decimals=0, long_legend=True),
    )


def _queue() -> dashboard.Panel:
    panel = graph_panel(
        Head(
            "Queue over time",
            "Tasks on the list by state, whatever tasks are chosen above. Not found: Mobizon does not know "
            "the id. Unknown: not read yet, or in a state that Mobizon does not document.",
        ),
        Query(f"sum by (status) ({promql.TASKS})", "{{status}}"),
        look=Look(stacked=True, decimals=0, soft_maximum=1),
    )
    return painted(panel, COLORS)


def _timeline() -> dashboard.Panel:
    return timeline_panel(
        Head(
            "Status over time",
            "The 24 most urgent of the tasks chosen above; none that was completed more than an hour ago.",
            "none",
        ),
        Query(
            promql.most_urgent(24, f"mobizon_task_status{{{TASK}}}", but=promql.LONG_COMPLETED),
            LEGEND,
        ),
        value_map(STATUSES),
    )


def _outcomes() -> list[dashboard.Panel]:
    finished = f"sum by (status) (increase(mobizon_tasks_finished_total{{{ACCOUNT}}}[$__rate_interval]))"
    durations = f"rate(mobizon_task_duration_seconds_bucket{{{ACCOUNT}}}[$__rate_interval])"
    bars = graph_panel(
        Head("Finished per hour", "Tasks that were seen to finish in the hour before, or in the step shown."),
        Query(finished, "{{status}}", interval="1h"),
        look=Look(bars=True, decimals=0, soft_maximum=1),
    )
    lines = graph_panel(
        Head(
            "Duration",
            "Of the tasks that finished in the hour before: from the first reading to the last. "
            "Half of them took at most p50, nineteen of twenty at most p95.",
            "s",
        ),
        *(
            Query(
                f"histogram_quantile({quantile}, sum by (le, status) ({durations}))",
                f"p{quantile * 100:.0f} {{{{status}}}}",
                interval="1h",
            )
            for quantile in (0.5, 0.95)
        ),
        look=Look(points=True),
    )
    return [painted(bars, {name: COLORS[name] for name in ("completed", "rejected")}), lines]


def _marks() -> list[lib.Marks]:
    return [
        lib.Marks(
            "Firing alerts",
            f'ALERTS{{{ALERTS}, alertstate="firing"}}',
            color="red",
            title="{{alertname}}",
            text="{{task_id}} {{name}} {{account}}",
        ),
        lib.Marks(
            "Restarts of the exporter",
            f"1000 * (process_start_time_seconds{{{promql.TARGET}}} and on (job, instance) {promql.BUILD})",
            color="blue",
            title="Exporter started",
            text="{{instance}}",
            value_is_time=True,
        ),
    ]


def _speed() -> dashboard.Panel:
    # Over a range the speed by which the table estimates would take seconds.
    moving = f"(deriv(mobizon_task_progress{{{TASK}}}[30m]) > 0 and mobizon_task_status{{{TASK}}} == 1)"
    return graph_panel(
        Head(
            "Speed",
            "Of the 15 tasks that are the most urgent now, over half an hour each, where they move.",
            "suffix: %/min",
        ),
        Query(f"60 * {promql.most_urgent(15, moving)}", LEGEND),
        look=Look(long_legend=True),
    )
