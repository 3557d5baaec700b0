"""Mobizon / Exporter and API: whether what the other dashboard shows can be believed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from dashboards import lib
from dashboards.lib import ACCOUNT, TARGET, Grid
from dashboards.panels import (
    Head,
    Query,
    graph_panel,
    stat_panel,
    table_panel,
    thresholds,
    value_map,
)

if TYPE_CHECKING:
    from grafana_foundation_sdk.models import dashboard

WHO: Final = "{{instance}} {{account}}"
INTERVAL: Final = f"mobizon_api_request_interval_seconds{{{ACCOUNT}}}"
REQUESTS: Final = f"rate(mobizon_api_requests_total{{{ACCOUNT}}}[$__rate_interval])"
FAILURES: Final = f"rate(mobizon_api_request_failures_total{{{ACCOUNT}}}[$__rate_interval])"
DURATION: Final = f"rate(mobizon_api_request_duration_seconds_bucket{{{ACCOUNT}}}[$__rate_interval])"
BUDGET: Final = f"{REQUESTS} * {INTERVAL}"
# Finished tasks are asked for no more, and those not found seldom.
REFRESH: Final = (
    f'sum without (status) (mobizon_tasks{{{ACCOUNT}, status=~"waiting|in_progress|unknown"}}) * {INTERVAL}'
)

RELOADED: Final = f"mobizon_exporter_config_last_reload_success_timestamp_seconds{{{TARGET}}}"
CONFIGURATION: Final = (
    f"min(mobizon_exporter_config_last_reload_successful{{{TARGET}}})"
    f" * (max(mobizon_exporter_task_file_errors{{{TARGET}}}) == bool 0)"
)

BAD_AT_ZERO: Final = thresholds((None, "red"), (1, "green"))


def board() -> dashboard.Dashboard:
    """The dashboard, ready to be written."""
    grid = Grid()
    grid.add(4, 4, *_stats())
    grid.add(12, 8, *_graphs())
    grid.collapsed("Process", 8, 8, *_process())
    return lib.board(
        "mobizon-exporter",
        Head(
            "Mobizon / Exporter and API",
            "The exporter of Mobizon's background tasks, and the API that it asks.",
        ),
        other=("Tasks", "mobizon-tasks"),
        grid=grid,
        with_task=False,
    )


def _stats() -> list[dashboard.Panel]:
    up = value_map({"0": ("down", "red"), "1": ("up", "green")})
    valid = value_map({"0": ("invalid", "red"), "1": ("valid", "green")})
    return [
        stat_panel(
            Head("Exporter", "Whether Prometheus can scrape it; the worst of those chosen.", "none"),
            Query(f"min(up{{{TARGET}}})", instant=True),
            mappings=up,
            steps=BAD_AT_ZERO,
            on_background=True,
        ),
        stat_panel(
            Head(
                "API",
                "Whether Mobizon serves the account; the worst of those chosen. "
                "A dash: nothing has been answered yet.",
                "none",
            ),
            Query(f"min(mobizon_up{{{ACCOUNT}}})", instant=True),
            mappings=up,
            steps=BAD_AT_ZERO,
            on_background=True,
        ),
        stat_panel(
            Head("Configuration", "Whether the last reload succeeded and every task file is good.", "none"),
            Query(CONFIGURATION, instant=True),
            mappings=valid,
            steps=BAD_AT_ZERO,
            on_background=True,
        ),
        stat_panel(
            Head("Last reload", "When a configuration was last read with success.", "dateTimeFromNow"),
            Query(f"1000 * max({RELOADED})", instant=True),
        ),
        stat_panel(
            Head(
                "API budget used now",
                "Requests a second times the spacing in force: at 100 % it asks as often as it may.",
                "percentunit",
            ),
            Query(f"max({BUDGET})"),
        ),
        stat_panel(
            Head(
                "Full refresh",
                "How long it takes to read every active task once, at the spacing in force.",
                "s",
            ),
            Query(f"max({REFRESH})", instant=True),
            steps=thresholds((None, "green"), (600, "orange")),
        ),
    ]


def _graphs() -> list[dashboard.Panel]:
    return [
        graph_panel(
            Head(
                "Requests",
                "Requests sent to Mobizon a second. The limit is one a second for each API key.",
                "reqps",
            ),
            [Query(REQUESTS, WHO)],
        ),
        graph_panel(
            Head(
                "Failures by reason",
                "Requests a second that brought no reading. "
                "A few of rate_limited are jitter at the edge of the limit.",
                "reqps",
            ),
            [Query(f"sum by (reason) ({FAILURES})", "{{reason}}")],
            stacked=True,
        ),
        graph_panel(
            Head("Request duration", "From the first byte sent to the last byte read.", "s"),
            [
                Query(f"histogram_quantile({quantile}, sum by (le) ({DURATION}))", f"p{quantile * 100:.0f}")
                for quantile in (0.5, 0.95, 0.99)
            ],
        ),
        graph_panel(
            Head(
                "API budget used",
                "Requests a second times the spacing in force. Steadily at 100 %: the list does not fit "
                "between two scrapes, and readings are older than the scrape interval.",
                "percentunit",
            ),
            [Query(BUDGET, WHO)],
        ),
        graph_panel(
            Head(
                "Spacing in force",
                "Time between two requests. It grows while Mobizon refuses requests as too frequent.",
                "s",
            ),
            [Query(INTERVAL, WHO)],
        ),
        graph_panel(
            Head(
                "Time of a full refresh",
                "Active tasks times the spacing in force; readings are up to this old.",
                "s",
            ),
            [Query(REFRESH, WHO)],
        ),
        graph_panel(
            Head("Tasks due", "Tasks whose request has yet to be sent."),
            [Query(f"mobizon_tasks_due{{{ACCOUNT}}}", WHO)],
        ),
        graph_panel(
            Head("Task errors", "Tasks whose last request failed, by reason."),
            [Query(f"sum by (reason) (mobizon_task_error{{{ACCOUNT}}})", "{{reason}}")],
            stacked=True,
        ),
    ]


def _process() -> list[dashboard.Panel]:
    labels = "instance, version, revision, python_version"
    return [
        graph_panel(
            Head("Memory", "Resident memory of the process.", "bytes"),
            [Query(f"process_resident_memory_bytes{{{TARGET}}}", "{{instance}}")],
        ),
        graph_panel(
            Head("CPU", "Processor time used a second; 100 % is one core.", "percentunit"),
            [Query(f"rate(process_cpu_seconds_total{{{TARGET}}}[$__rate_interval])", "{{instance}}")],
        ),
        table_panel(
            Head("Build", "What is running, and where.", "none"),
            [
                Query(
                    f"max by ({labels}) (mobizon_exporter_build_info{{{TARGET}}})",
                    instant=True,
                    as_table=True,
                )
            ],
            columns={
                "instance": "Instance",
                "version": "Version",
                "revision": "Revision",
                "python_version": "Python",
            },
            formats={},
            sort_by="Instance",
        ),
    ]
