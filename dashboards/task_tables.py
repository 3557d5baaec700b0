"""The tables of tasks and of alerts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from dashboards import expressions as promql
from dashboards import lib
from dashboards.expressions import BY, TASK
from dashboards.panels import Head, value_map
from dashboards.tables import (
    NOTHING,
    ON_COLOR,
    PERCENT_BAR,
    RED_TEXT,
    STATUS_CELL,
    Column,
    table_panel,
    width,
)

if TYPE_CHECKING:
    from grafana_foundation_sdk.models import dashboard

ALERTS: Final = 'alertname=~"Mobizon.+"'


def task_table(*, on_phone: bool = False) -> dashboard.Panel:
    """Every task, the most urgent first."""
    expressions = (
        promql.status_or_unread(),
        promql.metric("progress"),
        promql.ready_at(),
        promql.age(),
        promql.error(),
        promql.urgency(),
    )
    kept = "${job:queryparam}&${instance:queryparam}"
    this = lib.data_link(
        lib.TASKS, "This task alone", f"{kept}&${{account:queryparam}}&var-task=${{__value.raw}}"
    )
    of_account = lib.data_link(
        lib.TASKS,
        "This account alone",
        f"{kept}&var-account=${{__value.raw:percentencode}}&var-task=$__all",
    )
    all_accounts = lib.data_link(lib.TASKS, "All accounts", f"{kept}&var-account=$__all&var-task=$__all")
    if on_phone:
        # Together as wide as a phone that is held upright; the filters' icons would cover the titles.
        bare = {"custom.filterable": False}
        columns = [
            Column("task_id", "Task", {"links": [this], **width(55), **bare}),
            Column("name", "Name", width(105) | bare),
            Column("Value #C", "Ready at", {"unit": "time:ddd HH:mm", **width(85), **bare}),
            Column("Value #A", "Status", STATUS_CELL | width(90) | bare),
        ]
    else:
        columns = [
            Column("task_id", "Task", {"links": [this], **width(90)}),
            Column("name", "Name"),
            Column("account", "Account", {"links": [of_account, all_accounts], **width(150)}),
            Column("Value #A", "Status", STATUS_CELL | width(120)),
            Column("Value #B", "Progress", PERCENT_BAR | width(190)),
            Column("Value #C", "Ready at", {"unit": "dateTimeAsIsoNoDateIfToday", **width(170)}),
            Column("Value #D", "Age", {"unit": "s", **width(100)}),
            Column("reason", "Error", {"noValue": ""} | RED_TEXT | width(170)),
        ]
    return table_panel(
        Head(
            "Tasks",
            "The most urgent first: rejected, stalled, failing, in progress (soonest ready first), waiting, "
            "completed. Ready at: if the task goes on as in the last hour; empty for one that waits, stands "
            "still or has moved too little to tell. Not listed before the first answer about it.",
            "none",
        ),
        expressions,
        columns,
        sort_by="Value #F",
        empty="No tasks listed. If the numbers above are gray, nothing is known of any.",
    )


def alert_table() -> dashboard.Panel:
    """The alerts of this product that are firing."""
    labels = "severity, alertname, account, task_id, name, reason"
    firing = f'ALERTS{{{ALERTS}, alertstate="firing"}}'
    severity = value_map({"critical": ("critical", "red"), "warning": ("warning", "orange")})
    return table_panel(
        Head(
            "Firing alerts",
            "Alerts of this product in this data source, whatever is chosen above.",
            "none",
        ),
        [f"1000 * max by ({labels}) (ALERTS_FOR_STATE{{{ALERTS}}} and ignoring (alertstate) {firing})"],
        [
            Column("severity", "Severity", {"mappings": severity, **ON_COLOR, **width(110)}),
            Column("alertname", "Alert"),
            Column("account", "Account"),
            Column("task_id", "Task", width(90)),
            Column("name", "Name"),
            Column("reason", "Reason"),
            Column("Value", "Since", {"unit": "dateTimeFromNow"}),
        ],
        sort_by="Value",
        empty="None fires, if this data source has evaluated the rules.",
    )


def gone_table() -> dashboard.Panel:
    """Tasks that were listed in the time shown and are no more."""

    def last(name: str) -> str:
        known = f"max by ({BY}) (last_over_time(mobizon_task_{name}{{{TASK}}}[$__range]))"
        # With the exporter gone nothing is listed, and nothing is known to be listed no longer.
        return (
            f"({known} unless on (account, task_id) mobizon_task_up{{{TASK}}} and on () max({promql.TASKS}))"
        )

    return table_panel(
        Head(
            "No longer listed",
            "Tasks that were read in the time shown above and are not on the list now, with the last that "
            "was known of them. Empty where none has been taken off.",
            "none",
        ),
        [last("status"), last("progress"), f"1000 * {last('last_success_timestamp_seconds')}"],
        [
            Column("task_id", "Task", width(90)),
            Column("name", "Name"),
            Column("account", "Account"),
            Column("Value #A", "Last status", STATUS_CELL),
            Column("Value #B", "Last progress", {"unit": "percent"}),
            Column("Value #C", "Last reading", {"unit": "dateTimeAsIso"}),
        ],
        sort_by="Value #C",
        empty=NOTHING,
    )
